//! Patterns in Ruby's dialect mean what they mean in Ruby.

use expect_test::expect;
use parse::pattern::{Engine, Found, Pattern, Sieve, Sifted, States};

/// The fields of a match, empty ones too, as `name=value`; `-`: no match.
fn fields(pattern: &str, line: &[u8]) -> String {
    let pattern = match Pattern::new(pattern) {
        Ok(pattern) => pattern,
        Err(refusal) => return format!("refused {refusal}"),
    };
    let mut slots = Vec::new();
    match pattern.find(line, &mut slots) {
        Found::No => return "-".to_string(),
        Found::Limit => return "limit".to_string(),
        Found::Yes => assert!(pattern.may_match(line), "a line that matches may match"),
    }
    let shown = |slot: &Option<(u32, u32)>| slot.map(|(start, end)| line[start as usize..end as usize].escape_ascii().to_string());
    let fields = pattern.names().iter().zip(&slots).filter_map(|(name, slot)| Some(format!("{name}={}", shown(slot)?)));
    fields.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(pattern: &str, line: &str, want: &str) {
    assert_eq!(fields(pattern, line.as_bytes()), want, "{pattern} on {line:?}");
}

#[track_caller]
fn engine(pattern: &str, want: Engine) {
    assert_eq!(Pattern::new(pattern).expect(pattern).report().engine, want, "{pattern}");
}

#[test]
fn slashes_and_flags() {
    check("/(?<a>h.)/", "h\nhx", "a=hx");
    check("/(?<a>h.)/im", "H\nhx", "a=H\\n");
    check("/(?<a> h i ) # tail/x", "hi", "a=hi");
    check("/(?<a>h)/q", "/h/q", "a=h");
    check("/(?<a>h)/q", "h", "-");
    check("(?<a>a(?i)b|c)", "aC", "a=aC");
    check("(?<a>a(?i:b)c)", "aBC", "-");
    check("(?<a>x(?m:.*)z).", "x\ny\nz\nz", "-");
    check("(?<a>(?x-i: a b ))", "ab", "a=ab");
}

#[test]
fn escapes() {
    check(r"^\<(?<pri>\d+)\>", "<13>", "pri=13");
    check(r"(?<a>\h+)(?<b>\H)", "dEadx", "a=dEad b=x");
    check(r"(?<a>\x41\x{42}\u0043\104\e\a\f\v)", "ABCD\x1b\x07\x0c\x0b", r"a=ABCD\x1b\x07\x0c\x0b");
    check(r"(?<a>\xC3\xA9)", "é", r"a=\xc3\xa9");
    check(r"(?<a>\cA\C-b\M-\C-@?)", "\x01\x02", "refused at byte 12 of the pattern: these bytes are no character of UTF-8");
    check(r"(?<a>\cA\C-b)", "\x01\x02", r"a=\x01\x02");
    check(r"(?<a>.\Z)", "xy\n", "a=y");
    check(r"(?<a>.\z)", "xy\n", "-");
    check(r"(?<a>x\R)", "x\r\n", r"a=x\r\n");
    check(r"(?<a>x\R)\n", "x\r\n", "-");
    check(r"\A(?<a>\X)", "e\u{301}x", r"a=e\xcc\x81");
    check(r"a\K(?<b>b)", "ab", "b=b");
}

#[test]
fn classes() {
    check(r"(?<a>[]x]+)", "a]x", "a=]x");
    check(r"(?<a>[^]x]+)", "]ax", "a=a");
    check(r"(?<a>[a[bc]]+)", "xabc", "a=abc");
    check(r"(?<a>[a-z&&[^aeiou]]+)", "aeixyz", "a=xyz");
    check(r"(?<a>[^a-z&&[^aeiou]]+)", "xeax", "a=ea");
    check(r"(?<a>[\d-x]+)", "1-x", "a=1-x");
    check(r"(?<a>[a-c-e]+)", "b-ed", "a=b-e");
    check(r"(?<a>[-a]+)(?<b>[a-]+)", "-a-", "a=-a b=-");
    check(r"(?<a>[[:alpha:]]+)", "né1", r"a=n\xc3\xa9");
    check(r"(?<a>[[:^alpha:]]+)", "né1", "a=1");
    check(r"(?<a>\w+)", "né1", "a=n");
    check(r"(?<a>(?u:\w+))", "né1", r"a=n\xc3\xa91");
    check(r"(?<a>(?a:[[:alpha:]]+))", "né1", "a=n");
    check(r"(?<a>\p{Greek}+)(?<b>\p{^Greek})(?<c>\P{Greek})", "αβcd", r"a=\xce\xb1\xce\xb2 b=c c=d");
    check(r"(?<a>[z-a])", "a", "refused at byte 6 of the pattern: this range ends before it begins");
    check(r"(?<a>[])", "a", "refused at byte 5 of the pattern: this class is empty");
    check(r"(?<a>[\b])", "\x08", r"a=\x08");
    check("(?<a>(?i)[k-l]+)", "KLk", "a=KLk");
}

#[test]
fn repeats() {
    check("(?<a>^{\"log\")", "{\"log\"", "a={\\\"log\\\"");
    check("(?<a>x{,2})y", "xxxy", "a=xx");
    check("(?<a>x{,})y", "x{,}y", "a=x{,}");
    check("(?<a>x{2}?)y", "xxxy", "a=xx");
    check("(?<a>x{2}?)", "x", "a=");
    check("^(?<a>a*+)ab", "aaab", "-");
    check("^(?<a>a{1,2}+)ab", "aab", "a=a");
    check("^(?<a>a+?)(?<b>a*)", "aaa", "a=a b=aa");
    check("^(?<a>(?:ab)++)abc", "ababc", "-");
    check("(?<a>*)", "", "refused at byte 5 of the pattern: there is nothing to repeat");
    check("(?<a>a{3,2})", "", "refused at byte 6 of the pattern: the least number of turns is more than the most");
    check("(?<a>(?:(?:a{0,9}b){1000}){1000})", "", "refused at byte 0 of the pattern: its counted repeats make it too large");
    check("(?<a>(a*)*)b", "aab", "a=aa");
    check("(?<a>a*)+b", "aab", "a=");
    check("(?<a>(?:|a)*)", "aa", "a=");
}

#[test]
fn names() {
    check("(?<a>x)|(?<a>y)", "y", "a=y");
    check("(?<a>x)(?<a>y?)", "x", "a=x");
    check("(?'a'x)", "x", "a=x");
    check("(?P<a>x)", "x", "a=x");
    check("(x)(?<a>y)", "xy", "a=y");
    check("(foo)(bar)", "foobar", "");
    check("(?<1>x)", "x", "refused at byte 3 of the pattern: a group's name begins with a letter");
    check("(?<a>x)(?#c\\)omment)+", "xx", "a=x");
}

#[test]
fn what_needs_back_tracking() {
    check("^(?!ab)(?<a>.*)", "abc", "-");
    check("(?<a>b(?=c))", "bbc", "a=b");
    check("(?<a>(?<=b|ac)c)", "acc", "a=c");
    check("(?<a>(?<!b)c)", "bcc", "a=c");
    check("(?<a>(?<=b+)c)", "", "refused at byte 0 of the pattern: what it looks back at has no fixed length");
    check("(?<a>(?>a|ab)c)", "abc", "-");
    check(r"(?<q>[yx]).\k<q>", "xyay", "q=y");
    check(r"(?<q>[a])\k'q'", "aa", "q=a");
    check(r"(?i)(?<q>é)\k<q>", "éÉ", r"q=\xc3\xa9");
    check(r"(a)(b)\2\k<-1>", "abbb", "");
    check(r"(?<a>x)\1", "xx", "refused at byte 7 of the pattern: groups have no numbers where some have names");
    check(r"(?<n>\d+)\.\g<n>", "10.20", "n=20");
    check(r"(?<p>\((?:[^()]|\g<p>)*\))", "x(a(b)c)d", "p=(a(b)c)");
    check(r"(?<p>\g<p>x)", "xx", "limit");
    check(r"/\*(?<c>(?~\*/))\*/", "/* hi */ t */", "c= hi ");
    check(r"(?<c>(?~))", "", "-");
    check("(?<o><)?(?<b>b)(?(<o>)>|-)", "<b>b-", "o=< b=b");
    check("^(?<o><)?(?<b>b)(?(<o>)>|-)", "<b-", "-");
    check("(a)?b(?(1)c|d)", "bd", "");
    engine("(?<a>a)(?=b)", Engine::Backtracking);
    engine("(?<a>[a-z]+) .*$", Engine::Linear);
}

#[test]
fn lines_within_a_line() {
    check("^(?<a>b.*)$", "a\nbc\nd", "a=bc");
    check(r"\A(?<a>b)", "a\nb", "-");
    check("(?<a>^)$", "a\n", "-");
    check(r"\b(?<a>é+)\b", "aé é", r"a=\xc3\xa9");
}

#[test]
fn bytes_that_are_no_utf8() {
    let seen = |pattern: &str, line: &[u8]| fields(pattern, line);
    assert_eq!(seen("^(?<a>[^ ]*) (?<b>.*)$", b"\xff\xc3 \xa9x"), r"a=\xff\xc3 b=\xa9x");
    assert_eq!(seen("^(?<a>.)(?<b>.)(?<c>.)$", b"\xff\xc3\xa9\xc3"), r"a=\xff b=\xc3\xa9 c=\xc3");
    assert_eq!(seen("^(?<a>.{2})$", "éé".as_bytes()), r"a=\xc3\xa9\xc3\xa9");
    assert_eq!(seen("^(?<a>[^ ]*)(?<b>.)$", "né".as_bytes()), r"a=n b=\xc3\xa9");
    assert_eq!(seen("(?<a>[[:alpha:]\\w]+)", b"\xff\xc3n"), "a=n");
}

#[test]
fn mistakes_have_a_place() {
    check("(?<a>x", "", "refused at byte 0 of the pattern: this `(` has no `)`");
    check("(?<a>x))", "", "refused at byte 7 of the pattern: this `)` closes nothing");
    check("(?<a>[x)", "", "refused at byte 5 of the pattern: this `[` has no `]`");
    check("(?<a>x\\", "", "refused at byte 6 of the pattern: the pattern ends in a backslash");
    check("(?<a>\\p{Nix})", "", "refused at byte 5 of the pattern: no property of characters is called `Nix`");
    check(&"(".repeat(101), "", "refused at byte 101 of the pattern: groups are nested too deeply");
}

#[test]
fn the_deepest_pattern_fits_the_stack() {
    let deep = |open: &str, close: &str| format!("{}x{}", open.repeat(100), close.repeat(100));
    for (open, close) in [("(?:", ")"), ("(?:a|", "b)*+?"), ("(?:", ")++"), ("(?=", ")"), ("(?:", ")*+?*+?*+?")] {
        let pattern = Pattern::new(&deep(open, close)).map(|pattern| pattern.find(b"xxx", &mut Vec::new()));
        assert!(pattern.is_ok() || open.len() > 3, "{open} {pattern:?}");
    }
}

#[test]
fn patterns_may_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Pattern>();
    shared::<Sieve>();
}

#[test]
fn a_sieve_tells_the_first_that_may_match() {
    let texts = ["^a (?<x>needle) b", "(?<x>thread|needle)", "^(?<x>.*)needle$", "(?<x>xyz)"];
    let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::new(text).expect("a good pattern")).collect();
    let sieve = Sieve::new(&patterns).expect("all have outlines");
    let mut states = States::default();
    let mut sift = |line: &str| sieve.sift(line.as_bytes(), &mut states);
    assert_eq!(sift("a needle b"), Sifted::First(0));
    assert_eq!(sift("xyz thread"), Sifted::First(1));
    assert_eq!(sift("xyz"), Sifted::First(3));
    assert_eq!(sift("x"), Sifted::None);
}

#[test]
fn a_report_says_what_became_of_a_pattern() {
    let pattern = Pattern::new(r"/^\<(?<pri>\d+)\> (x)\h{,2}$/i").expect("a good pattern");
    expect![[r#"
        Report {
            engine: Linear,
            rewrites: [
                "slashes around the pattern",
                "^ and $ stand at lines",
                "\\< and \\> are < and >",
                "\\d, \\w and \\s are ASCII",
                "groups without a name keep nothing",
                "\\h is a hex digit",
                "{,n} is {0,n}",
            ],
            translated: Some(
                "(?m:^)<([0-9]+)> [Xx][0-9A-Fa-f]{0,2}(?m:$)",
            ),
            has_no_fields: false,
            required: "> ",
        }
    "#]]
    .assert_debug_eq(pattern.report());
}
