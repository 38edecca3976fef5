//! Whether a condition says the same of every record: then whoever wrote it meant something else.
//!
//! In: a parsed condition. Out: `Some` where it is plain that it always holds or never does: by `true` and `false`, or by two
//! claims about one field that no value can meet. `None` says nothing: it may still be the same for every record there is.

use super::{Condition, Node, Number, Op, TextTest, compare_numbers};
use std::cmp::Ordering::{self, Equal, Greater, Less};

impl Condition {
    /// What it says of every record, if that is plain.
    pub fn always(&self) -> Option<bool> {
        always(&self.root)
    }
}

fn always(node: &Node) -> Option<bool> {
    match node {
        Node::Const(holds) => Some(*holds),
        Node::Not(node) => always(node).map(|holds| !holds),
        Node::All(nodes) if nodes.iter().any(|node| always(node) == Some(false)) || contradict(nodes) => Some(false),
        Node::All(nodes) => nodes.iter().all(|node| always(node) == Some(true)).then_some(true),
        Node::Any(nodes) if nodes.iter().any(|node| always(node) == Some(true)) => Some(true),
        Node::Any(nodes) => nodes.iter().all(|node| always(node) == Some(false)).then_some(false),
        _ => None,
    }
}

/// What a node asks of the value of one field.
enum Claim<'a> {
    Null,
    True,
    Text(&'a [u8]),
    Starts(&'a [u8]),
    Number(Op, &'a Number),
}

fn contradict(nodes: &[Node]) -> bool {
    let claims: Vec<(usize, Claim)> = nodes.iter().filter_map(claim).collect();
    let excludes = |(n, (field, claim)): (usize, &(usize, Claim))| {
        claims[n + 1..].iter().any(|(other, second)| other == field && (exclude(claim, second) || exclude(second, claim)))
    };
    claims.iter().enumerate().any(excludes)
}

fn claim(node: &Node) -> Option<(usize, Claim<'_>)> {
    Some(match node {
        Node::IsTrue(field) => (*field, Claim::True),
        Node::IsNull { field, wanted: true } => (*field, Claim::Null),
        Node::Equal { field, text, wanted: true } => (*field, Claim::Text(text)),
        Node::Text { field, test: TextTest::StartsWith(start) } => (*field, Claim::Starts(start)),
        Node::Against { field, op, number } if *op != Op::Ne => (*field, Claim::Number(*op, number)),
        _ => return None,
    })
}

/// Whether no value meets both. Asked both ways round.
fn exclude(one: &Claim, other: &Claim) -> bool {
    match (one, other) {
        (Claim::Text(a), Claim::Text(b)) => a != b,
        (Claim::Text(a), Claim::Starts(b)) => !a.starts_with(b),
        (Claim::Starts(a), Claim::Starts(b)) => !a.starts_with(b) && !b.starts_with(a),
        (Claim::Number(a, x), Claim::Number(b, y)) => compare_numbers(x.numeric(), y.numeric()).is_some_and(|order| apart(*a, *b, order)),
        (Claim::Null, Claim::Null) | (Claim::True, Claim::True) | (Claim::Starts(_), Claim::Text(_)) => false,
        _ => true,
    }
}

/// Whether no number is `one` to a first bound and `other` to a second; `order`: of the first to the second.
fn apart(one: Op, other: Op, order: Ordering) -> bool {
    // A number below both, at each, between them, and above both: how it compares to the first and to the second.
    let places: &[(Ordering, Ordering)] = match order {
        Less => &[(Less, Less), (Equal, Less), (Greater, Less), (Greater, Equal), (Greater, Greater)],
        Equal => &[(Less, Less), (Equal, Equal), (Greater, Greater)],
        Greater => &[(Less, Less), (Less, Equal), (Less, Greater), (Equal, Greater), (Greater, Greater)],
    };
    !places.iter().any(|(first, second)| one.allows(*first) && other.allows(*second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<bool>) {
        let mut fields: Vec<String> = Vec::new();
        let mut number = |field: &str| match fields.iter().position(|f| f == field) {
            Some(at) => at,
            None => {
                fields.push(field.to_string());
                fields.len() - 1
            }
        };
        assert_eq!(Condition::parse(text, &mut number).expect("a condition").always(), want, "{text}");
    }

    #[test]
    fn what_no_record_or_every_record_meets_is_known() {
        check("true", Some(true));
        check("!true", Some(false));
        check("level == 'a' && false", Some(false));
        check("level == 'a' || true", Some(true));
        check("level == 'a' && level == 'b'", Some(false));
        check("level == 'a' && (x == 1 && (level == 'b' && y == 2))", None);
        check("status >= 500 && status < 500", Some(false));
        check("status >= 500 && status <= 500", None);
        check("status > 500 && status < 501", None);
        check("status == 3 && status == 3.0", None);
        check("status == 3 && status > 3", Some(false));
        check("status < 3 && status > 1e2", Some(false));
        check("status == 3 && status == 'a'", Some(false));
        check("status == null && status > 3", Some(false));
        check("path.startsWith('/a') && path.startsWith('/b')", Some(false));
        check("path.startsWith('/a') && path == '/ab'", None);
        check("path == '/b' && path.startsWith('/a')", Some(false));
        check("(a == 'x' && a == 'y') || (b == 1 && b == 2)", Some(false));
        check("!(a == 'x' && a == 'y')", Some(true));
        check("a == 'x' && b == 'y' && a != 'x'", None);
        check("level == 'a' && other == 'b'", None);
    }
}
