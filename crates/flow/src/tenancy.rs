//! Tenancy: who pays for a record.
//!
//! Reads the spans of the tenant fields, writes the column `tenant`. The first of the configured fields that
//! a record has names its tenant; a record without, or with the name twice, belongs to the unknown tenant,
//! never to another one. What is known of the whole log (`Batch::payer`) goes over what records say. Names
//! are bytes and never normalised (rule R19): no case, no accents, no blanks. Where the field holds a header that the far side wrote
//! (`read_as: header`), reading it comes before: blanks around it are no part of its value, and what is no name (too long, no
//! UTF-8, control characters) is the overflow tenant's (EB 5.3). Memory: `tenants_max` names of at most 256 bytes; a new name
//! beyond that is counted as unknown and noted. Names that are not allowed are the overflow tenant's.

use crate::batch::{Batch, Payer};
use crate::event::Note;
use crate::fields::{Kind, Span};
use crate::labels::clean;
use crate::word;
use hashbrown::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Longest tenant name, in bytes; a longer one is unknown.
pub const TENANT_BYTES_MAX: usize = 256;

/// Numbers for tenant names, one table for all lanes. Number 0 is the unknown tenant.
#[derive(Debug)]
pub struct Tenants {
    names: Mutex<Names>,
    tenants_max: usize,
    allowed: Option<Allowed>,
    /// Names are read as headers; the number of the tenant of what is no name.
    header: Option<u32>,
}

/// The only names there may be, and the number of the tenant of all others.
#[derive(Debug)]
struct Allowed {
    names: HashSet<Box<[u8]>>,
    overflow: u32,
}

#[derive(Debug)]
struct Names {
    numbers: HashMap<Arc<[u8]>, u32>,
    list: Vec<Arc<[u8]>>,
}

/// Number of the unknown tenant.
pub const UNKNOWN: u32 = 0;

impl Tenants {
    pub fn new(unknown: &str, tenants_max: usize) -> Tenants {
        let unknown: Arc<[u8]> = unknown.as_bytes().into();
        let numbers = HashMap::from_iter([(Arc::clone(&unknown), UNKNOWN)]);
        Tenants { names: Mutex::new(Names { numbers, list: vec![unknown] }), tenants_max, allowed: None, header: None }
    }

    /// Only these names, and the unknown one, are tenants; all others together are `overflow`.
    #[must_use]
    pub fn allow(mut self, names: &[String], overflow: &str) -> Tenants {
        let unknown = self.name(UNKNOWN);
        let names = names.iter().map(|name| name.as_bytes().into()).chain([unknown.as_ref().into(), overflow.as_bytes().into()]);
        let names = names.collect();
        let overflow = self.number(overflow.as_bytes()).unwrap_or(UNKNOWN);
        self.allowed = Some(Allowed { names, overflow });
        self
    }

    /// Names are what headers say; what is no name is `overflow`'s.
    #[must_use]
    pub fn read_headers(mut self, overflow: &str) -> Tenants {
        self.header = Some(self.number(overflow.as_bytes()).unwrap_or(UNKNOWN));
        self
    }

    /// The number of the tenant that this name belongs to, where it may be no tenant's.
    fn overflow(&self, name: &[u8]) -> Option<u32> {
        self.allowed.as_ref().filter(|allowed| !allowed.names.contains(name)).map(|allowed| allowed.overflow)
    }

    /// Number of a name; `None` when it is new and the table is full.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        if let Some(overflow) = self.overflow(name) {
            return Some(overflow);
        }
        let mut names = self.lock();
        if let Some(number) = names.numbers.get(name) {
            return Some(*number);
        }
        if names.list.len() > self.tenants_max {
            return None;
        }
        let number = names.list.len() as u32;
        let name: Arc<[u8]> = name.into();
        names.list.push(Arc::clone(&name));
        names.numbers.insert(name, number);
        Some(number)
    }

    /// How many there are, the unknown one included.
    #[expect(clippy::len_without_is_empty, reason = "the unknown tenant is always there")]
    pub fn len(&self) -> u32 {
        self.lock().list.len() as u32
    }

    pub fn name(&self, number: u32) -> Arc<[u8]> {
        Arc::clone(&self.lock().list[number as usize])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().expect("nobody panics while holding the names")
    }
}

/// One lane's view of the tenants: asks the shared table only for names it has not met.
#[derive(Debug)]
pub struct Tenancy {
    /// Fields that may name the tenant, first present wins.
    fields: Vec<usize>,
    tenants: Arc<Tenants>,
    met: HashMap<Box<[u8]>, u32>,
    /// The last of the met whose hash falls on each place, names of at most 16 bytes: most records find theirs here.
    recent: [Recent; RECENT],
}

/// A name of at most 16 bytes, as its length and two words.
#[derive(Clone, Copy, Debug)]
struct Recent {
    length: usize,
    words: (u64, u64),
    number: u32,
}

const RECENT: usize = 64; // 2 KiB

impl Tenancy {
    pub fn new(fields: Vec<usize>, tenants: Arc<Tenants>) -> Tenancy {
        let nobody = Recent { length: usize::MAX, words: (0, 0), number: UNKNOWN };
        Tenancy { fields, tenants, met: HashMap::new(), recent: [nobody; RECENT] }
    }

    pub fn apply(&mut self, batch: &mut Batch) {
        batch.tenant.clear();
        let other = match std::mem::take(&mut batch.payer) {
            Payer::Record => UNKNOWN,
            Payer::RecordOr(name) => self.number(batch, &name),
            Payer::Named(name) => {
                let number = name.map_or(UNKNOWN, |name| self.number(batch, &name));
                return batch.tenant.resize(batch.len(), number);
            }
        };
        for i in 0..batch.len() {
            let number = self.tenant(batch, i, other);
            batch.tenant.push(number);
        }
    }

    /// Number of a tenant that is not named by the records; noted on each if there is no room for it.
    fn number(&mut self, batch: &mut Batch, name: &[u8]) -> u32 {
        if let Some(number) = self.met.get(name) {
            return *number;
        }
        if name.is_empty() || name.len() > TENANT_BYTES_MAX {
            return UNKNOWN;
        }
        match self.tenants.number(name) {
            Some(number) => {
                self.meet(name, number);
                number
            }
            None => {
                (0..batch.len()).for_each(|i| batch.note(i, Note::TenantOverLimit));
                UNKNOWN
            }
        }
    }

    /// Remembers a name, unless it is one of those without bound that overflow.
    fn meet(&mut self, name: &[u8], number: u32) {
        if self.tenants.overflow(name).is_none() {
            self.met.insert(name.into(), number);
        }
    }

    #[inline(always)]
    fn tenant(&mut self, batch: &mut Batch, i: usize, other: u32) -> u32 {
        if batch.notes[i] & Note::DuplicateTenant.bit() != 0 {
            return UNKNOWN;
        }
        let Some(span) = batch.first_present(i, &self.fields) else { return other };
        let record = batch.record(i);
        let raw = span.raw(record);
        if span.kind == Kind::Escaped || raw.len() > 16 {
            return self.tenant_met(batch, i, span);
        }
        let words = word::words(raw);
        let place = word::hash(raw, 0) as usize % RECENT;
        let recent = &self.recent[place];
        if recent.length == raw.len() && recent.words == words {
            return recent.number;
        }
        let length = raw.len();
        let number = self.tenant_met(batch, i, span);
        if number != UNKNOWN {
            self.recent[place] = Recent { length, words, number };
        }
        number
    }

    fn tenant_met(&mut self, batch: &mut Batch, i: usize, span: Span) -> u32 {
        let Some(name) = span.text(batch.record(i)) else { return UNKNOWN };
        let name = match self.tenants.header.map(|overflow| (overflow, clean(&name, TENANT_BYTES_MAX))) {
            None => name,
            Some((_, Ok(name))) => name.as_bytes().to_vec().into(),
            Some((overflow, Err(_))) => return overflow,
        };
        if let Some(number) = self.met.get(name.as_ref()) {
            return *number;
        }
        if name.is_empty() || name.len() > TENANT_BYTES_MAX {
            return UNKNOWN;
        }
        match self.tenants.number(&name) {
            Some(number) => {
                self.meet(&name, number);
                number
            }
            None => {
                batch.note(i, Note::TenantOverLimit);
                UNKNOWN
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{FieldSet, Scanner};

    /// The tenants of lines, by name.
    fn tenants_of(tenants: Tenants, lines: &[&[u8]], payer: Payer) -> Vec<String> {
        let tenants = Arc::new(tenants);
        let mut batch = Batch { fields: 1, is_json: true, payer, ..Batch::default() };
        let mut scanner = Scanner::new(Arc::new(FieldSet::new(&["tenant"])));
        for line in lines {
            let start = batch.arena.len();
            batch.arena.extend_from_slice(line);
            batch.push(start, batch.arena.len(), 1, line.len(), 0);
            let mut spans = [Span::default()];
            scanner.scan(line, &mut spans);
            batch.spans.extend(spans);
        }
        Tenancy::new(vec![0], Arc::clone(&tenants)).apply(&mut batch);
        batch.tenant.iter().map(|number| String::from_utf8_lossy(&tenants.name(*number)).into_owned()).collect()
    }

    #[test]
    fn eb_5_3_a_header_is_read_before_it_is_a_name_and_a_name_is_never_normalised() {
        let long = format!(r#"{{"tenant":"{}"}}"#, "x".repeat(TENANT_BYTES_MAX + 1));
        let lines: [&[u8]; 10] = [
            br#"{"tenant":"acme"}"#,
            br#"{"tenant":"  acme "}"#,
            br#"{"tenant":"\tacme\u00a0"}"#,
            br#"{"tenant":"Acme"}"#,
            br#"{"tenant":" \t "}"#,
            br#"{"tenant":"ac\u0000me"}"#,
            b"{\"tenant\":\"ac\xffme\"}",
            long.as_bytes(),
            br#"{"tenant":null}"#,
            br#"{"tenant":42}"#,
        ];
        let header = || Tenants::new("nobody", 100).read_headers("__other__");
        let want = ["acme", "acme", "acme", "Acme", "nobody", "__other__", "__other__", "__other__", "nobody", "42"];
        assert_eq!(tenants_of(header(), &lines, Payer::Record), want);
        let bytes = tenants_of(Tenants::new("nobody", 100), &lines, Payer::Record);
        assert_eq!(bytes[..4], ["acme", "  acme ", "\tacme\u{a0}", "Acme"], "as received they are four");
        let listed = header().allow(&["acme".into()], "__other__");
        assert_eq!(tenants_of(listed, &lines[..4], Payer::Record), ["acme", "acme", "acme", "__other__"]);
        // Who is known otherwise is not asked.
        let pod = Payer::Named(Some(b"globex"[..].into()));
        assert_eq!(tenants_of(header(), &lines[..2], pod), ["globex", "globex"]);
        assert_eq!(tenants_of(header(), &lines[..1], Payer::Named(None)), ["nobody"]);
    }

    #[test]
    fn eb_5_3_a_tenant_that_is_not_allowed_overflows() {
        let tenants = Tenants::new("unassigned", 2).allow(&["acme".into(), "globex".into()], "__other__");
        let name = |name: &str| tenants.number(name.as_bytes()).map(|number| String::from_utf8(tenants.name(number).to_vec()).unwrap());
        for stranger in ["initech", "Acme", "acme ", "", "\u{0}"] {
            assert_eq!(name(stranger).as_deref(), Some("__other__"), "{stranger:?}");
        }
        assert_eq!(name("acme").as_deref(), Some("acme"));
        assert_eq!(name("unassigned").as_deref(), Some("unassigned"));
        assert_eq!(name("globex"), None, "the bound on names holds for allowed ones too");
        let mut tenancy = Tenancy::new(vec![0], Arc::new(tenants));
        let mut batch = Batch::default();
        for n in 0..1000 {
            assert_eq!(tenancy.number(&mut batch, format!("stranger {n}").as_bytes()), 1);
        }
        assert!(tenancy.met.is_empty(), "names of strangers are not remembered");
    }
}
