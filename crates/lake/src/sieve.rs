//! Reads along: the rows of frames that answer a query, as they come.
//!
//! In: frames, in the order of the hub; out: hits, in the order of their frames. Nothing is kept and nothing is sorted: a row
//! comes out when its frame was published. Each row is judged by the matcher that judges rows of files.

use crate::Fields;
use crate::matcher::{Matcher, Row};
use crate::query::Query;
use crate::search::{Hit, tenant_of};
use flow::event::Signal;
use hub::frame::Frame;
use std::ops::ControlFlow;

/// One query, over whatever comes.
pub struct Sieve {
    matcher: Matcher,
    tenant: Option<Vec<u8>>,
}

impl Sieve {
    /// `fields`: which are text and ids. `tenant`: only its rows come out. Refuses a query that names too many fields.
    pub fn new(query: &Query, fields: &Fields, tenant: Option<&str>) -> anyhow::Result<Sieve> {
        Ok(Sieve { matcher: Matcher::new(query, fields)?, tenant: tenant.map(|name| name.as_bytes().to_vec()) })
    }

    /// Hands the rows of a frame that answer to `hit`, until it breaks.
    pub fn each(&mut self, frame: &Frame, hit: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> ControlFlow<()> {
        let rows = &frame.rows;
        for part in frame.parts.iter().filter(|part| part.signal == Signal::Logs) {
            for row in part.rows.clone() {
                let row = row as usize;
                let tenant = tenant_of(frame, row);
                if self.tenant.as_ref().is_some_and(|want| want.as_slice() != tenant) {
                    continue;
                }
                let line = rows.row(row);
                if self.matcher.matches(Row { line, tenant: Some(tenant), severity: Some(rows.severity[row]) }) {
                    hit(Hit::of_frame(frame, part, row))?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}
