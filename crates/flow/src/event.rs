//! The words that cross crate borders: streams, reasons, flags, usage facts.

/// One file identity, partition or connection. Stable over restarts and machines: a hash of the source's
/// name, the path it was first seen under and the head of its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the records of a stream are, as OpenTelemetry names it: which table of a store they belong into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Signal {
    #[default]
    Logs = 0,
    /// Samples: one value of one series at one time.
    Metrics = 1,
    /// Spans.
    Traces = 2,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Logs, Signal::Metrics, Signal::Traces];

    pub fn name(self) -> &'static str {
        match self {
            Signal::Logs => "logs",
            Signal::Metrics => "metrics",
            Signal::Traces => "traces",
        }
    }

    pub fn from_code(code: u8) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| *signal as u8 == code)
    }
}

/// How far a stream was read. Records are numbered by the offset at which they were complete, so one
/// number says which are done; parts of a record that is not complete yet lie from `resume` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Start of the oldest unfinished part, in bytes: read again from here after a restart.
    pub resume: u64,
    /// Every record that was complete at or before this offset is decided.
    pub done: u64,
    /// Hash of up to 256 bytes of the stream before `done`, so that a file that was written anew is told from one that
    /// grew; 0 where nobody knows.
    pub before: u64,
}

/// Why a record was dropped. The first step that drops it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A `drop` step matched, or a `keep` step did not.
    Filtered = 1,
    /// No JSON object, or not a line of the format; only where config says `malformed: drop`.
    Malformed = 2,
    /// A copy of a record seen before.
    Duplicate = 3,
    /// A sampler left it out: its cost counts, its bytes do not travel.
    Sampled = 4,
    /// The tenant's quota is used up.
    OverQuota = 5,
    /// Its key was seen before with other content (`dedup` with `conflict: drop`).
    Conflict = 6,
}

/// Two kinds of reason: a record that is not ours to bill, and one dropped only to save volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonClass {
    NotOurs,
    Volume,
}

impl Reason {
    pub const ALL: [Reason; 6] =
        [Reason::Filtered, Reason::Malformed, Reason::Duplicate, Reason::Sampled, Reason::OverQuota, Reason::Conflict];

    pub fn name(self) -> &'static str {
        match self {
            Reason::Filtered => "filtered",
            Reason::Malformed => "malformed",
            Reason::Duplicate => "duplicate",
            Reason::Sampled => "sampled",
            Reason::OverQuota => "over_quota",
            Reason::Conflict => "conflict",
        }
    }

    pub fn class(self) -> ReasonClass {
        match self {
            Reason::Filtered | Reason::Malformed | Reason::Duplicate | Reason::Conflict => ReasonClass::NotOurs,
            Reason::Sampled | Reason::OverQuota => ReasonClass::Volume,
        }
    }

    pub fn from_code(code: u8) -> Option<Reason> {
        Reason::ALL.into_iter().find(|r| *r as u8 == code)
    }
}

/// What became of a record: its code is 0 for kept, 255 for created, else the reason's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Kept,
    Dropped(Reason),
    /// Kept, and made by weir itself: a summary of what a sampler left out.
    Created,
}

impl Outcome {
    pub fn code(self) -> u8 {
        match self {
            Outcome::Kept => 0,
            Outcome::Dropped(reason) => reason as u8,
            Outcome::Created => CREATED,
        }
    }

    pub fn from_code(code: u8) -> Option<Outcome> {
        match code {
            0 => Some(Outcome::Kept),
            CREATED => Some(Outcome::Created),
            code => Reason::from_code(code).map(Outcome::Dropped),
        }
    }
}

const CREATED: u8 = 255;

/// Bytes of a stream that belong to no record, by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Skip {
    /// A line of nothing but white space.
    Blank = 1,
    /// What a line holds beyond `line_bytes_max`.
    LineTooLong = 2,
    /// A byte order mark at the start of a stream.
    ByteOrderMark = 3,
    /// Zero bytes between lines: a hole after a truncation or a power loss, or space taken in advance.
    Nul = 4,
    /// Bytes of a compressed file that could not be decompressed.
    Undecodable = 5,
}

impl Skip {
    pub const ALL: [Skip; 5] = [Skip::Blank, Skip::LineTooLong, Skip::ByteOrderMark, Skip::Nul, Skip::Undecodable];

    pub fn name(self) -> &'static str {
        match self {
            Skip::Blank => "blank",
            Skip::LineTooLong => "line_too_long",
            Skip::ByteOrderMark => "byte_order_mark",
            Skip::Nul => "nul",
            Skip::Undecodable => "undecodable",
        }
    }

    pub fn from_code(code: u8) -> Option<Skip> {
        Skip::ALL.into_iter().find(|r| *r as u8 == code)
    }
}

/// What was noticed about a record, kept or not: counted per tenant, never a reason to lose it by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Note {
    /// The line is no JSON object; it is kept as it is (`malformed: keep`).
    NotJson = 0,
    /// Nested deeper than the limit.
    TooDeep = 1,
    /// A key that names the tenant occurs twice: nobody can tell who pays, so nobody is guessed.
    DuplicateTenant = 2,
    /// A key that a meter reads occurs twice: it is not metered.
    DuplicateMetered = 3,
    /// Another key that a rule reads occurs twice: the last one counts.
    DuplicateKey = 4,
    /// A string holds bytes that are no UTF-8; they travel as they are, and read as U+FFFD. In a source that is
    /// decoded (UTF-16, escapes of docker) they become U+FFFD at once.
    InvalidUtf8 = 5,
    /// Cut at `line_bytes_max`, or by a `shape` step.
    Truncated = 6,
    /// No usable time in the record: arrival time is used.
    ArrivalTime = 7,
    /// A joined record that is not whole: its last part never came, or a limit cut it.
    Partial = 8,
    /// A metered quantity is negative, no whole number, or too large: not metered.
    BadQuantity = 9,
    /// A part of a quantity is larger than the whole (cached tokens above input): not metered.
    PartAboveWhole = 10,
    /// The tenant is new and `tenants_max` is reached: counted as unknown.
    TenantOverLimit = 11,
    /// The last line of a stream has no newline.
    Unterminated = 12,
    /// Not a line of the container runtime's format (CRI or docker); kept as it is.
    NotCri = 13,
    /// What is known about the record's pod did not come in time; it went without.
    MetadataMissing = 14,
    /// A CRI line whose first tag is neither `P` nor `F`; it counts as a whole line.
    UnknownTag = 15,
    /// Its key was seen before with other content (`dedup`): kept, and no meter counts it.
    Conflict = 16,
    /// An expression of a `shape` step had no value: a field was missing, or of a type it does not take; its field stays as it was.
    NotSet = 17,
    /// No parser of its source matched the line; it is kept whole (`parse_error`).
    ParseError = 18,
    /// A pattern of its source needs more steps for this line than it is given; it is kept whole (`parse_limit`).
    ParseLimit = 19,
    /// A meter names a key and the record has none of its fields: it counts, but nobody can tell a copy of it.
    NoKey = 20,
    /// Its time is of a year after 2100, or a meter found it more than 5 minutes ahead of its receipt (rule R13): not metered.
    Future = 21,
}

impl Note {
    pub const ALL: [Note; 22] = [
        Note::NotJson,
        Note::TooDeep,
        Note::DuplicateTenant,
        Note::DuplicateMetered,
        Note::DuplicateKey,
        Note::InvalidUtf8,
        Note::Truncated,
        Note::ArrivalTime,
        Note::Partial,
        Note::BadQuantity,
        Note::PartAboveWhole,
        Note::TenantOverLimit,
        Note::Unterminated,
        Note::NotCri,
        Note::MetadataMissing,
        Note::UnknownTag,
        Note::Conflict,
        Note::NotSet,
        Note::ParseError,
        Note::ParseLimit,
        Note::NoKey,
        Note::Future,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Note::NotJson => "not_json",
            Note::TooDeep => "too_deep",
            Note::DuplicateTenant => "duplicate_tenant",
            Note::DuplicateMetered => "duplicate_metered",
            Note::DuplicateKey => "duplicate_key",
            Note::InvalidUtf8 => "invalid_utf8",
            Note::Truncated => "truncated",
            Note::ArrivalTime => "arrival_time",
            Note::Partial => "partial",
            Note::BadQuantity => "bad_quantity",
            Note::PartAboveWhole => "part_above_whole",
            Note::TenantOverLimit => "tenant_over_limit",
            Note::Unterminated => "unterminated",
            Note::NotCri => "not_cri",
            Note::MetadataMissing => "metadata_missing",
            Note::UnknownTag => "unknown_tag",
            Note::Conflict => "conflict",
            Note::NotSet => "not_set",
            Note::ParseError => "parse_error",
            Note::ParseLimit => "parse_limit",
            Note::NoKey => "no_key",
            Note::Future => "future",
        }
    }

    /// The bit of this note in a record's notes.
    pub fn bit(self) -> u32 {
        1 << self as u16
    }
}

/// A quantity one tenant consumed in one minute of event time, as one frame saw it.
///
/// Facts are added up per (tenant, meter, dimensions, minute) before anything is priced, so the number of
/// frames cannot show in a bill. Source of the idea: DESIGN D7.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageFact {
    /// Bytes as they were received, never normalised (rule R19).
    pub tenant: Vec<u8>,
    pub meter: String,
    /// Unit of `quantity`, as in `Tokens`.
    pub unit: String,
    /// (name, value) in the order of the meter's `by`; a record without the field has an empty value.
    pub dims: Vec<(String, Vec<u8>)>,
    /// Minutes since 1970-01-01T00:00Z, event time.
    pub minute: i64,
    pub quantity: i128,
    /// Records behind the quantity.
    pub events: u64,
    pub stream: StreamId,
    /// The records lie in this range of the stream, by the offset at which they were complete: (from, to].
    pub from: u64,
    pub to: u64,
    pub received: crate::units::UnixNanos,
    /// One event with a time and a name of its own; `None`: a sum, of which only the minute is known.
    pub event: Option<Box<UsageEvent>>,
}

/// What is known of a fact that is one event: of a meter with a key, of an interval, of a sample.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageEvent {
    pub kind: EventKind,
    /// Event time, exact. An interval: its start.
    pub at: crate::units::UnixNanos,
    /// An interval's end, which is not part of it; else `at`.
    pub end: crate::units::UnixNanos,
    /// Values of the meter's key fields, joined by 0x1f: two facts of one meter with the same key are the same event
    /// (rule R7). Empty: the event has no key and is never a copy. `Refused`: the text that is no quantity, cut.
    pub key: Vec<u8>,
    /// Offset in the stream at which its record was complete: with the stream, the record's name for ever.
    pub position: u64,
}

/// How the quantity of an event is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// The quantity was used at `at`.
    Point = 0,
    /// The quantity was held from `at` to `end`; what is priced is quantity times milliseconds (rules R4, R5).
    Interval = 1,
    /// The quantity is a level seen at `at`, which holds until the next sample of the same tenant, meter and dimensions;
    /// what is priced is its integral over milliseconds.
    Sample = 2,
    /// Not a quantity (negative, no whole number, a part above its whole ...): costs nothing, and is listed in quarantine.
    BadQuantity = 3,
    /// Its time is more than 5 minutes ahead of its receipt (rule R13): costs nothing, and is listed in quarantine.
    Future = 4,
    /// A part above its whole (rule R10), found in one record.
    PartAboveWhole = 5,
}

impl EventKind {
    pub const ALL: [EventKind; 6] =
        [EventKind::Point, EventKind::Interval, EventKind::Sample, EventKind::BadQuantity, EventKind::Future, EventKind::PartAboveWhole];

    pub fn name(self) -> &'static str {
        match self {
            EventKind::Point => "point",
            EventKind::Interval => "interval",
            EventKind::Sample => "sample",
            EventKind::BadQuantity => "bad_quantity",
            EventKind::Future => "future",
            EventKind::PartAboveWhole => "part_above_whole",
        }
    }

    pub fn from_code(code: u8) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    pub fn from_name(name: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Listed in quarantine and never priced.
    pub fn is_refused(self) -> bool {
        matches!(self, EventKind::BadQuantity | EventKind::Future | EventKind::PartAboveWhole)
    }
}

/// Severity number of OpenTelemetry: 0 unknown, 1-4 trace, 5-8 debug, 9-12 info, 13-16 warn, 17-20 error, 21-24 fatal.
pub type Severity = u8;
