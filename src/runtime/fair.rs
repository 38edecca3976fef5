//! Whose turn it is in a lane: tenants take turns by bytes, and who was idle goes first.
//!
//! In: logs that have something to read, each with the flow it belongs to, and what each turn cost. Out: the log whose turn it
//! is. Deficit round robin with a list of its own for flows that come from idleness (DRR++ as in FQ-CoDel, RFC 8290; Høiland-
//! Jørgensen 2018): a tenant with a hundred logs gets no more than one with a single log, and one that was idle waits for
//! nobody until it has had one quantum. Logs of one flow take turns in the order they came.
//! A log of many tenants keeps its order, so they cannot be told apart: it counts as that of the tenant it is mostly of.
//! Bound: one line per flow that has logs waiting or had some a round ago.

use std::collections::{HashMap, VecDeque};

/// What a flow may cost in one round, and one that was idle before others: one chunk.
const QUANTUM: i64 = super::tail::CHUNK_BYTES as i64;
/// A turn costs at least so much: also a look that finds nothing takes its time.
const TURN_COST: i64 = 4 << 10;
/// Records of a batch that are asked whose they are.
const ASKED: usize = 64;

/// Who takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// Everybody: logs take turns in the order they came.
    All,
    /// A tenant of a pipeline, by their numbers.
    Tenant(usize, u32),
    /// A log of which nobody knows yet whose it is.
    Log(u64),
}

#[derive(Default)]
pub struct Turns {
    lines: HashMap<Flow, Line>,
    /// Flows that were idle, then all others.
    fresh: VecDeque<Flow>,
    others: VecDeque<Flow>,
    logs: usize,
}

struct Line {
    logs: VecDeque<u64>,
    /// What it may still cost in this round; below 0 it is in debt.
    credit: i64,
}

impl Turns {
    pub fn is_empty(&self) -> bool {
        self.logs == 0
    }

    /// A log waits for its turn.
    pub fn put(&mut self, log: u64, flow: Flow) {
        self.line(flow).logs.push_back(log);
    }

    /// A log goes on before all others of its flow.
    pub fn put_first(&mut self, log: u64, flow: Flow) {
        self.line(flow).logs.push_front(log);
    }

    fn line(&mut self, flow: Flow) -> &mut Line {
        self.logs += 1;
        let fresh = &mut self.fresh;
        self.lines.entry(flow).or_insert_with(|| {
            fresh.push_back(flow);
            Line { logs: VecDeque::new(), credit: QUANTUM }
        })
    }

    /// The log whose turn it is.
    pub fn take(&mut self) -> Option<u64> {
        if self.logs == 0 {
            return None;
        }
        loop {
            let is_fresh = !self.fresh.is_empty();
            let list = if is_fresh { &mut self.fresh } else { &mut self.others };
            let flow = *list.front().expect("a log waits in a line, and each line stands in a list");
            let line = self.lines.get_mut(&flow).expect("what stands in a list has a line");
            if line.credit <= 0 {
                line.credit += QUANTUM;
            } else if let Some(log) = line.logs.pop_front() {
                self.logs -= 1;
                return Some(log);
            } else if !is_fresh {
                self.lines.remove(&flow);
                self.others.pop_front();
                continue;
            }
            // Its turn is over; one that is idle again goes through the others once, or a short rest would make it fresh.
            list.pop_front();
            self.others.push_back(flow);
        }
    }

    /// A turn has cost so many bytes.
    pub fn charge(&mut self, flow: Flow, bytes: u64) {
        if let Some(line) = self.lines.get_mut(&flow) {
            line.credit -= i64::try_from(bytes).unwrap_or(i64::MAX / 2).max(TURN_COST);
        }
    }
}

/// The tenant that a batch is mostly of, by a sample of its records; none where it has none.
pub fn majority(tenants: &[u32]) -> Option<u32> {
    let step = tenants.len().div_ceil(ASKED).max(1);
    let mut winner = (None, 0);
    for tenant in tenants.iter().step_by(step) {
        match winner {
            (_, 0) => winner = (Some(*tenant), 1),
            (Some(same), votes) if same == *tenant => winner.1 = votes + 1,
            (_, votes) => winner.1 = votes - 1,
        }
    }
    winner.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = QUANTUM as u64;

    /// Runs turns of logs that never end, (log, tenant, bytes a turn); which log had how many bytes of the first `bytes`.
    fn shares(logs: &[(u64, u32, u64)], bytes: u64) -> Vec<u64> {
        let mut turns = Turns::default();
        logs.iter().for_each(|(log, tenant, _)| turns.put(*log, Flow::Tenant(0, *tenant)));
        let mut had = vec![0; logs.len()];
        while had.iter().sum::<u64>() < bytes {
            let log = turns.take().expect("none ends");
            let (i, (_, tenant, cost)) = logs.iter().enumerate().find(|(_, l)| l.0 == log).expect("one of them");
            had[i] += cost;
            turns.charge(Flow::Tenant(0, *tenant), *cost);
            turns.put(log, Flow::Tenant(0, *tenant));
        }
        had
    }

    #[test]
    fn a_tenant_gets_no_more_for_having_more_logs_or_longer_turns() {
        let many: Vec<(u64, u32, u64)> = (0..100).map(|log| (log, 1, CHUNK)).chain([(100, 2, CHUNK)]).collect();
        let had = shares(&many, 1000 * CHUNK);
        assert!(had[100].abs_diff(500 * CHUNK) <= CHUNK, "{}", had[100] / CHUNK);
        assert!(had[..100].iter().all(|bytes| bytes.abs_diff(5 * CHUNK) <= CHUNK), "its own logs share");
        let long = shares(&[(1, 1, 40 * CHUNK), (2, 2, 10_000)], 4000 * CHUNK);
        assert!(long[1].abs_diff(long[0]) <= 80 * CHUNK, "{long:?}");
    }

    #[test]
    fn who_was_idle_waits_for_one_turn_at_most_and_only_for_a_quantum() {
        let mut turns = Turns::default();
        let (noisy, quiet) = (Flow::Tenant(0, 1), Flow::Tenant(0, 2));
        (0..100).for_each(|log| turns.put(log, noisy));
        for _ in 0..300 {
            let log = turns.take().unwrap();
            turns.charge(noisy, CHUNK);
            turns.put(log, noisy);
        }
        turns.put(777, quiet);
        assert_eq!(turns.take(), Some(777));
        turns.charge(quiet, 100);
        // At once again: still before others, until its quantum is used up; then they take turns. Looks cost, too.
        let mut others_at = None;
        for n in 0..3 * CHUNK / 4096 {
            turns.put(777, quiet);
            match turns.take().unwrap() {
                777 => turns.charge(quiet, 1),
                log => {
                    turns.charge(noisy, CHUNK);
                    turns.put(log, noisy);
                    others_at = others_at.or(Some(n));
                }
            }
        }
        let others_at = others_at.expect("nobody waits for ever");
        assert!((CHUNK / 4096 - 2..=2 * CHUNK / 4096).contains(&others_at), "{others_at}");
    }

    #[test]
    fn a_short_rest_makes_nobody_fresh() {
        let mut turns = Turns::default();
        let (a, b) = (Flow::Tenant(0, 1), Flow::Tenant(0, 2));
        turns.put(1, a);
        turns.put(2, b);
        let mut had = [0u64; 3];
        // Tenant 2 hands in its log again only after it was asked for and missing.
        let mut rests = false;
        for _ in 0..1000 {
            let log = turns.take().unwrap();
            had[log as usize] += CHUNK;
            turns.charge(if log == 1 { a } else { b }, CHUNK);
            match log {
                1 => turns.put(1, a),
                _ => rests = true,
            }
            if log == 1 && std::mem::take(&mut rests) {
                turns.put(2, b);
            }
        }
        assert!(had[2] <= had[1] + CHUNK, "{had:?}");
    }

    #[test]
    fn logs_of_one_flow_keep_their_order_and_a_flow_without_logs_is_forgotten() {
        let mut turns = Turns::default();
        [3, 1, 2].into_iter().for_each(|log| turns.put(log, Flow::All));
        assert_eq!(turns.take(), Some(3));
        turns.charge(Flow::All, 99 * CHUNK);
        turns.put_first(3, Flow::All);
        assert_eq!([turns.take(), turns.take(), turns.take(), turns.take()], [Some(3), Some(1), Some(2), None]);
        (0..1000).for_each(|log| turns.put(log, Flow::Log(log)));
        while turns.take().is_some() {}
        turns.put(5, Flow::All);
        turns.put(6, Flow::All);
        turns.charge(Flow::All, 2 * CHUNK);
        turns.take();
        assert!(turns.lines.len() <= 2 && turns.others.len() + turns.fresh.len() == turns.lines.len(), "{}", turns.lines.len());
    }

    #[test]
    fn a_batch_is_its_majoritys() {
        assert_eq!(majority(&[]), None);
        assert_eq!(majority(&[7]), Some(7));
        let mostly: Vec<u32> = (0..5000).map(|i| if i % 5 == 0 || i == 4999 { 3 } else { 8 }).collect();
        assert_eq!(majority(&mostly), Some(8));
    }
}
