//! Many patterns that wait for the lines of one stream: the first in order that a line may match, in one pass.
//!
//! In: the outlines of patterns (see `outline`); then lines without a newline. Out: the first whose outline holds the line. No
//! earlier one matches; that one nearly always does. One automaton for all, whose states are made as lines need them.
//! Memory: [`STATES_BYTES_MAX`] per lane. Lines that need ever new states are answered by "unknown" for a while, which then
//! costs nothing: the pause doubles each time.

use super::Pattern;
use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::{Anchored, Input, MatchKind};
use std::sync::atomic::{AtomicU64, Ordering};

const STATES_BYTES_MAX: usize = 4 << 20; // some 5000 states of fifty patterns
const OUTLINES_BYTES_MAX: usize = 4 << 20; // of all patterns together, compiled
/// A new state takes some 5 µs: less than this and they cost more than 20 ns per byte.
const BYTES_PER_STATE_MIN: usize = 250;
const PAUSE_LINES_MIN: u32 = 1 << 10;
const PAUSE_LINES_MAX: u32 = 1 << 20;
/// A lane's memory is for so many sieves; beyond, the oldest is forgotten.
const SIEVES_MAX: usize = 16;

pub struct Sieve {
    automaton: DFA,
    /// Tells whose states a memory holds.
    id: u64,
}

/// What a line may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sifted {
    /// This one, by its place in the order, or a later one.
    First(usize),
    None,
    Unknown,
}

/// The states that lines needed so far; one per lane, for any number of sieves.
#[derive(Default)]
pub struct States(Vec<Known>);

struct Known {
    id: u64,
    cache: Cache,
    /// Lines that are not looked at.
    pause: u32,
    next_pause: u32,
}

impl Sieve {
    /// `None`: a pattern has no outline, or together they are too large.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p Pattern>) -> Option<Sieve> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let outlines: Vec<_> = patterns.into_iter().map(Pattern::outline).collect::<Option<_>>()?;
        let compiled = thompson::Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(OUTLINES_BYTES_MAX));
        let nfa = thompson::Compiler::new().configure(compiled).build_many_from_hir(&outlines).ok()?;
        let config = Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .cache_capacity(STATES_BYTES_MAX)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(0))
            .minimum_bytes_per_state(Some(BYTES_PER_STATE_MIN));
        let automaton = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
        Some(Sieve { automaton, id: NEXT_ID.fetch_add(1, Ordering::Relaxed) })
    }

    pub fn sift(&self, line: &[u8], states: &mut States) -> Sifted {
        let known = states.of(self);
        if known.pause > 0 {
            known.pause -= 1;
            return Sifted::Unknown;
        }
        let input = Input::new(line).anchored(Anchored::Yes);
        match self.automaton.try_search_fwd(&mut known.cache, &input) {
            Ok(Some(found)) => Sifted::First(found.pattern().as_usize()),
            Ok(None) => Sifted::None,
            Err(_) => {
                known.cache.reset(&self.automaton);
                known.pause = known.next_pause;
                known.next_pause = (known.next_pause * 2).min(PAUSE_LINES_MAX);
                Sifted::Unknown
            }
        }
    }
}

impl States {
    fn of(&mut self, sieve: &Sieve) -> &mut Known {
        let at = match self.0.iter().position(|known| known.id == sieve.id) {
            Some(at) => at,
            None => {
                if self.0.len() == SIEVES_MAX {
                    self.0.remove(0);
                }
                self.0.push(Known { id: sieve.id, cache: sieve.automaton.create_cache(), pause: 0, next_pause: PAUSE_LINES_MIN });
                self.0.len() - 1
            }
        };
        &mut self.0[at]
    }
}
