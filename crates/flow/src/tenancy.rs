//! Tenancy: who pays for a record.
//!
//! Reads the spans of the tenant fields, writes the column `tenant`. The first of the configured fields that
//! a record has names its tenant; a record without, or with the name twice, belongs to the unknown tenant,
//! never to another one. Names are bytes and never normalised (rule R19). Memory: `tenants_max` names of at
//! most 256 bytes; a new name beyond that is counted as unknown and noted.

use crate::batch::Batch;
use crate::event::Note;
use hashbrown::HashMap;
use std::sync::{Arc, Mutex};

/// Longest tenant name, in bytes; a longer one is unknown.
pub const TENANT_BYTES_MAX: usize = 256;

/// Numbers for tenant names, one table for all lanes. Number 0 is the unknown tenant.
#[derive(Debug)]
pub struct Tenants {
    names: Mutex<Names>,
    tenants_max: usize,
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
        Tenants { names: Mutex::new(Names { numbers, list: vec![unknown] }), tenants_max }
    }

    /// Number of a name; `None` when it is new and the table is full.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
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
}

impl Tenancy {
    pub fn new(fields: Vec<usize>, tenants: Arc<Tenants>) -> Tenancy {
        Tenancy { fields, tenants, met: HashMap::new() }
    }

    pub fn apply(&mut self, batch: &mut Batch) {
        batch.tenant.clear();
        for i in 0..batch.len() {
            let number = self.tenant(batch, i);
            batch.tenant.push(number);
        }
    }

    #[inline(always)]
    fn tenant(&mut self, batch: &mut Batch, i: usize) -> u32 {
        if batch.notes[i] & Note::DuplicateTenant.bit() != 0 {
            return UNKNOWN;
        }
        let Some(span) = batch.first_present(i, &self.fields) else { return UNKNOWN };
        let record = batch.record(i);
        let Some(name) = span.text(record) else { return UNKNOWN };
        if let Some(number) = self.met.get(name.as_ref()) {
            return *number;
        }
        if name.is_empty() || name.len() > TENANT_BYTES_MAX {
            return UNKNOWN;
        }
        match self.tenants.number(&name) {
            Some(number) => {
                self.met.insert(name.as_ref().into(), number);
                number
            }
            None => {
                batch.note(i, Note::TenantOverLimit);
                UNKNOWN
            }
        }
    }
}
