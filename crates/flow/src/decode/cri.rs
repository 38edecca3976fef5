//! A line of the container runtime interface: `TIME STREAM TAGS CONTENT`.
//!
//! In: one line. Out: which stream it is of, whether its record goes on in that stream's next line, where its
//! content starts. The time has any number of fraction digits and any zone; tags are divided by `:` and only the
//! first counts: `P` goes on, `F` does not, another one is taken for `F` and noted. Content may be empty or hold
//! anything. A line of another shape is the caller's to keep raw. Nothing is held or allocated here.

/// One parsed line.
pub(super) struct Parts {
    /// 0 stdout, 1 stderr.
    pub stream: usize,
    /// The time, the stream and a blank behind each take this many bytes.
    pub time_len: usize,
    /// The record goes on with the next line of the stream.
    pub partial: bool,
    /// The tag is neither `P` nor `F`.
    pub unknown_tag: bool,
    /// Where the content starts.
    pub content: usize,
}

/// Longest time: nine digits of fraction and a numeric zone take 35 bytes; some writers have more digits.
const TIME_BYTES_MAX: usize = 64;

/// Finds the parts of a line; `None` for a line of another shape.
#[inline(always)]
pub(super) fn split(line: &[u8]) -> Option<Parts> {
    // Nanoseconds and `Z` far more often than not: look there first.
    let time = if line.get(30) == Some(&b' ') { 30 } else { memchr::memchr(b' ', &line[..line.len().min(TIME_BYTES_MAX)])? };
    if time < 20 || !is_time(&line[..time]) {
        return None;
    }
    let stream = match line.get(time + 1..time + 8)? {
        b"stdout " => 0,
        b"stderr " => 1,
        _ => return None,
    };
    let tags_at = time + 8;
    let tags_len = if line.get(tags_at + 1) == Some(&b' ') { 1 } else { memchr::memchr(b' ', &line[tags_at..])? };
    let tags = &line[tags_at..tags_at + tags_len];
    let first = match tags {
        [_] => tags,
        _ => &tags[..memchr::memchr(b':', tags).unwrap_or(tags.len())],
    };
    if first.is_empty() {
        return None;
    }
    let partial = first == b"P";
    Some(Parts { stream, time_len: time + 8, partial, unknown_tag: !partial && first != b"F", content: tags_at + tags_len + 1 })
}

/// RFC 3339 to the second at least, recognised by its punctuation, its first digit and its end.
#[inline(always)]
fn is_time(time: &[u8]) -> bool {
    let marks = time[4] == b'-' && time[7] == b'-' && time[10] | 0x20 == b't' && time[13] == b':' && time[16] == b':';
    let end = time[time.len() - 1];
    marks && time[0].is_ascii_digit() && (end | 0x20 == b'z' || end.is_ascii_digit()) && memchr::memchr(b' ', time).is_none()
}
