//! Who used devices how well: rows by tenant, service and model, made of usage facts.
//!
//! In: facts in any order ([`Used`]). Out: [`Efficiency`]: what each owner held, computed, left idle and took of energy and
//! memory; tokens per joule and per GPU-second. Devices that several share are divided as a bill divides them (section 4.4), hour by
//! hour and device by device: shared ones by SM time (the rest is idle), MIG by slices, a server of several tenants by the tokens of
//! its service. All rows together are exactly what the devices were held and took. Money is the bill's. Memory: linear in
//! (hour, device, mode, owner); nothing is copied otherwise.

use crate::facts::{Fact, Meter, apportion};
use std::collections::{BTreeMap, BTreeSet};

/// The platform's target for mean SM use of held devices, in percent.
pub const TARGET_PERCENT: u32 = 55;
const MS_PER_HOUR: i64 = 3_600_000;

/// A usage fact, as far as a report looks at it. Facts of `gpu_*` and of the meter of tokens; others say nothing here.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// As in `gpu_held`; anything else is tokens.
    pub meter: &'a str,
    pub tenant: &'a str,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// Empty for tokens.
    pub device: &'a str,
    pub mode: &'a str,
    pub service: &'a str,
    pub model: &'a str,
    /// ms, mJ, `GPU-ms`, `MiB-ms`, `Slices-ms`, tokens.
    pub amount: u128,
}

impl<'a> Used<'a> {
    pub fn of(fact: &'a Fact) -> Used<'a> {
        Used {
            meter: fact.meter.name(),
            tenant: &fact.tenant,
            time_ms: fact.time_ms,
            device: fact.dim("device"),
            mode: fact.dim("mode"),
            service: fact.dim("service"),
            model: fact.dim("model"),
            amount: fact.amount(),
        }
    }
}

/// Whose row it is; nobody's is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    pub tenant: String,
    pub service: String,
    pub model: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub who: Who,
    /// Device time that is this owner's.
    pub held_ms: u128,
    /// Of it, on devices whose SM time the driver tells: not under MIG, and not where nobody looked.
    pub measured_ms: u128,
    pub sm_ms: u128,
    /// Of `measured_ms` what no kernel ran in; of devices that are free, and of slices nobody has, all.
    pub idle_ms: u128,
    pub energy_mj: u128,
    pub memory_mib_ms: u128,
    pub tokens: u128,
}

impl Row {
    /// SM time of 100 % of the time held, where it is measured.
    pub fn utilisation_percent(&self) -> Option<f64> {
        ratio(self.sm_ms * 100, self.measured_ms)
    }

    pub fn tokens_per_joule(&self) -> Option<f64> {
        ratio(self.tokens * 1_000, self.energy_mj).filter(|_| self.tokens > 0)
    }

    pub fn tokens_per_gpu_second(&self) -> Option<f64> {
        ratio(self.tokens * 1_000, self.held_ms).filter(|_| self.tokens > 0)
    }

    fn add(&mut self, other: &Row) {
        self.held_ms += other.held_ms;
        self.measured_ms += other.measured_ms;
        self.sm_ms += other.sm_ms;
        self.idle_ms += other.idle_ms;
        self.energy_mj += other.energy_mj;
        self.memory_mib_ms += other.memory_mib_ms;
        self.tokens += other.tokens;
    }
}

fn ratio(part: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A server whose device was divided by tokens: both views, which agree if nothing was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    pub service: String,
    pub tokens: u128,
    /// As the devices tell it.
    pub device_ms: u128,
    pub device_mj: u128,
    /// As its tenants' parts add up.
    pub parts_ms: u128,
    pub parts_mj: u128,
}

impl Server {
    /// Device view minus token view, in ms and mJ: both are 0.
    pub fn difference(&self) -> (i128, i128) {
        (self.device_ms as i128 - self.parts_ms as i128, self.device_mj as i128 - self.parts_mj as i128)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Efficiency {
    /// By tenant, service and model; nobody's comes first.
    pub rows: Vec<Row>,
    pub total: Row,
    pub servers: Vec<Server>,
}

impl Efficiency {
    /// Is the mean use of what was held at least the target? `None`: nothing was measured.
    pub fn meets_target(&self) -> Option<bool> {
        (self.total.measured_ms > 0).then_some(self.total.sm_ms * 100 >= self.total.measured_ms * u128::from(TARGET_PERCENT))
    }
}

/// Collects facts; see the head of the file.
#[derive(Clone, Debug, Default)]
pub struct Collect {
    groups: BTreeMap<(i64, String, String), Group>,
    /// By hour and service.
    tokens: BTreeMap<(i64, String), BTreeMap<Who, u128>>,
}

/// One device in one mode in one hour.
#[derive(Clone, Debug, Default)]
struct Group {
    held: BTreeMap<Who, u128>,
    energy: BTreeMap<Who, u128>,
    sm: BTreeMap<Who, u128>,
    memory: BTreeMap<Who, u128>,
    slices: BTreeMap<Who, u128>,
}

type Rows = BTreeMap<Who, Row>;

impl Collect {
    /// An amount beyond 2^64 is no amount of a fact: it counts as so much.
    pub fn add(&mut self, used: &Used<'_>) {
        let amount = used.amount.min(u128::from(u64::MAX));
        let who = Who { tenant: used.tenant.into(), service: used.service.into(), model: used.model.into() };
        let hour = used.time_ms.div_euclid(MS_PER_HOUR);
        let Some(meter) = Meter::ALL.into_iter().find(|meter| meter.name() == used.meter) else {
            let of_service = self.tokens.entry((hour, used.service.into())).or_default();
            *of_service.entry(who).or_default() += amount;
            return;
        };
        let group = self.groups.entry((hour, used.device.into(), used.mode.into())).or_default();
        let sums = match meter {
            Meter::Held => &mut group.held,
            Meter::SmTime => &mut group.sm,
            Meter::Energy => &mut group.energy,
            Meter::MemoryTime => &mut group.memory,
            Meter::Slices => &mut group.slices,
        };
        *sums.entry(who).or_default() += amount;
    }

    /// `slices_of`: compute slices of a device by its uuid (7 on A100, H100, H200 and B200, 4 on A30).
    pub fn report(&self, slices_of: &dyn Fn(&str) -> u32) -> Efficiency {
        let mut rows = Rows::new();
        let mut servers: BTreeMap<&str, Server> = BTreeMap::new();
        let mut had_server: BTreeSet<&(i64, String)> = BTreeSet::new();
        for ((hour, device, mode), group) in &self.groups {
            for (who, mib_ms) in &group.memory {
                row(&mut rows, who).memory_mib_ms += mib_ms;
            }
            match mode.as_str() {
                "exclusive" => {
                    for part in group.alone() {
                        match self.tokens.get_key_value(&(*hour, part.who.service.clone())).filter(|_| !part.who.service.is_empty()) {
                            Some((place, tokens)) => {
                                divide_by_tokens(&part, tokens, &mut rows, servers.entry(&place.1).or_default());
                                had_server.insert(place);
                            }
                            None => row(&mut rows, &part.who.clone()).add(&part),
                        }
                    }
                }
                "shared" => group.by_weight(&group.sm, 1, true, &mut rows),
                "mig" => group.by_weight(&group.slices, u128::from(slices_of(device)), false, &mut rows),
                _ => group.nobodys(&mut rows),
            }
        }
        for (place, tokens) in &self.tokens {
            tokens.iter().for_each(|(who, count)| row(&mut rows, who).tokens += count);
            if had_server.contains(place)
                && let Some(server) = servers.get_mut(place.1.as_str())
            {
                server.service.clone_from(&place.1);
                server.tokens += tokens.values().sum::<u128>();
            }
        }
        let mut total = Row::default();
        rows.values().for_each(|row| total.add(row));
        Efficiency { rows: rows.into_values().collect(), total, servers: servers.into_values().collect() }
    }
}

impl Group {
    /// Each holder's own: all that was computed while he held it counts as use of his device.
    fn alone(&self) -> Vec<Row> {
        let holders: Vec<&Who> = self.held.keys().chain(self.energy.keys()).collect::<BTreeSet<_>>().into_iter().collect();
        let (own, others): (Vec<_>, Vec<_>) = self.sm.iter().partition(|(who, _)| holders.contains(who));
        let own: BTreeMap<&Who, u128> = own.into_iter().map(|(who, ms)| (who, *ms)).collect();
        let weights: Vec<u128> = holders.iter().map(|who| self.held.get(who).copied().unwrap_or(0)).collect();
        let strangers = apportion(others.iter().map(|(_, ms)| **ms).sum(), &weights);
        let part = |(n, who): (usize, &&Who)| {
            let held_ms = weights[n];
            let sm_ms = own.get(who).copied().unwrap_or(0) + strangers[n];
            let energy_mj = self.energy.get(who).copied().unwrap_or(0);
            let idle_ms = held_ms.saturating_sub(sm_ms);
            Row { who: (*who).clone(), held_ms, measured_ms: held_ms, sm_ms, idle_ms, energy_mj, ..Row::default() }
        };
        holders.iter().enumerate().map(part).collect()
    }

    /// What nobody has alone: by weight, of a capacity of the time held so many times; the rest is nobody's and idle. Energy has no
    /// capacity: all of it goes to those who have weight.
    fn by_weight(&self, weights: &BTreeMap<Who, u128>, times: u128, is_measured: bool, rows: &mut Rows) {
        let (held, energy): (u128, u128) = (self.held.values().sum(), self.energy.values().sum());
        let used: u128 = weights.values().sum();
        let idle = (held * times).saturating_sub(used);
        let all: Vec<u128> = weights.values().copied().chain([if used + idle == 0 { 1 } else { idle }]).collect();
        let parts = apportion(held, &all);
        let energies = apportion(energy, if used > 0 { &all[..all.len() - 1] } else { &all });
        for (n, (who, weight)) in weights.iter().enumerate() {
            let row = row(rows, who);
            row.held_ms += parts[n];
            row.energy_mj += if used > 0 { energies[n] } else { 0 };
            if is_measured {
                row.measured_ms += parts[n];
                row.sm_ms += weight;
            }
        }
        let rest = row(rows, &Who::default());
        let idle_ms = parts.last().copied().unwrap_or(0);
        rest.held_ms += idle_ms;
        rest.idle_ms += idle_ms;
        rest.measured_ms += if is_measured { idle_ms } else { 0 };
        rest.energy_mj += if used > 0 { 0 } else { energy };
    }

    fn nobodys(&self, rows: &mut Rows) {
        let rest = row(rows, &Who::default());
        let held: u128 = self.held.values().sum();
        rest.held_ms += held;
        rest.idle_ms += held;
        rest.energy_mj += self.energy.values().sum::<u128>();
    }
}

fn row<'a>(rows: &'a mut Rows, who: &Who) -> &'a mut Row {
    if !rows.contains_key(who) {
        rows.insert(who.clone(), Row { who: who.clone(), ..Row::default() });
    }
    rows.get_mut(who).expect("it is there")
}

/// Divides what a server held among its tenants.
fn divide_by_tokens(whole: &Row, tokens: &BTreeMap<Who, u128>, rows: &mut Rows, server: &mut Server) {
    let weights: Vec<u128> = tokens.values().copied().collect();
    let [held, measured, sm, idle, energy] =
        [whole.held_ms, whole.measured_ms, whole.sm_ms, whole.idle_ms, whole.energy_mj].map(|amount| apportion(amount, &weights));
    server.device_ms += whole.held_ms;
    server.device_mj += whole.energy_mj;
    for (n, who) in tokens.keys().enumerate() {
        server.parts_ms += held[n];
        server.parts_mj += energy[n];
        let part =
            Row { held_ms: held[n], measured_ms: measured[n], sm_ms: sm[n], idle_ms: idle[n], energy_mj: energy[n], ..Row::default() };
        row(rows, who).add(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `meter tenant device mode service amount`, `-` for what is empty.
    fn collect(lines: &[&str]) -> Collect {
        let mut found = Collect::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').map(|word| word.trim_matches('-')).collect();
            let amount = words[5].parse().unwrap();
            let (meter, model) = (words[0], "");
            found.add(&Used { meter, tenant: words[1], time_ms: 5, device: words[2], mode: words[3], service: words[4], model, amount });
        }
        found
    }

    /// `tenant service held/measured sm idle mJ MiB-ms tokens`
    fn rows(report: &Efficiency) -> Vec<String> {
        let name = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
        let line = |row: &Row| {
            format!(
                "{} {} {}/{} {} {} {} {} {}",
                name(&row.who.tenant),
                name(&row.who.service),
                row.held_ms,
                row.measured_ms,
                row.sm_ms,
                row.idle_ms,
                row.energy_mj,
                row.memory_mib_ms,
                row.tokens
            )
        };
        report.rows.iter().map(line).collect()
    }

    #[test]
    fn every_mode_is_divided_as_a_bill_divides_it() {
        let report = collect(&[
            "gpu_held a 1 exclusive - 1000",
            "gpu_sm_time a 1 exclusive - 600",
            "gpu_sm_time spy 1 exclusive - 50",
            "gpu_energy a 1 exclusive - 90",
            "gpu_memory_time a 1 exclusive - 7",
            "gpu_held - 2 shared - 1000",
            "gpu_sm_time a 2 shared - 250",
            "gpu_sm_time b 2 shared - 500",
            "gpu_energy - 2 shared - 30",
            "gpu_held - 3 mig - 700",
            "gpu_slices b 3 mig - 1400",
            "gpu_slices c 3 mig - 2100",
            "gpu_energy - 3 mig - 5",
            "gpu_held - 4 free - 100",
            "gpu_energy - 4 unseen - 1",
        ])
        .report(&|_| 7);
        let want = ["- - 550/250 0 550 1 0 0", "a - 1250/1250 900 350 100 7 0", "b - 700/500 500 0 22 0 0", "c - 300/0 0 0 3 0 0"];
        assert_eq!(rows(&report), want);
        assert_eq!((report.total.held_ms, report.total.energy_mj), (2_800, 126));
        assert_eq!((report.rows[1].utilisation_percent(), report.rows[3].utilisation_percent()), (Some(72.0), None));
        assert_eq!(report.meets_target(), Some(true), "1,400 of 2,000 ms");
    }

    #[test]
    fn a_server_is_divided_by_tokens_and_both_views_agree() {
        let report = collect(&[
            "gpu_held platform 1 exclusive chat 1000",
            "gpu_sm_time platform 1 exclusive chat 401",
            "gpu_energy platform 1 exclusive chat 10",
            "gpu_held platform 2 exclusive idle 100",
            "tokens_out a - - chat 200",
            "tokens_out b - - chat 100",
            "tokens_out b - - elsewhere 7",
        ])
        .report(&|_| 7);
        let want = [
            "a chat 667/667 267 399 7 0 200",
            "b chat 333/333 134 200 3 0 100",
            "b elsewhere 0/0 0 0 0 0 7",
            "platform idle 100/100 0 100 0 0 0",
        ];
        assert_eq!(rows(&report), want);
        let server = &report.servers[0];
        assert_eq!((report.servers.len(), server.service.as_str(), server.tokens, server.difference()), (1, "chat", 300, (0, 0)));
        assert_eq!((server.device_ms, server.parts_mj), (1_000, 10));
        assert_eq!(report.rows[0].tokens_per_joule(), Some(200_000.0 / 7.0));
        assert_eq!((report.rows[3].tokens_per_joule(), report.meets_target()), (None, Some(false)));
        assert_eq!(Collect::default().report(&|_| 7).meets_target(), None);
    }

    proptest! {
        #[test]
        fn rows_are_all_that_devices_held_and_took(facts in proptest::collection::vec((0usize..6, 0usize..4, 0usize..3, 0usize..5, 0u32..100_000), 0..60), slices in 0u32..8) {
            let (meters, modes) = (["gpu_held", "gpu_sm_time", "gpu_energy", "gpu_slices", "gpu_memory_time", "tokens"], ["exclusive", "shared", "mig", "free", "unseen"]);
            let mut collect = Collect::default();
            let mut want = [0u128; 2];
            for (meter, tenant, device, mode, amount) in facts {
                let tenant = ["", "a", "b", "c"][tenant];
                let service = if tenant == "a" { "chat" } else { "" };
                let amount = u128::from(amount);
                want[0] += if meter == 0 { amount } else { 0 };
                want[1] += if meter == 2 { amount } else { 0 };
                let (meter, mode, device) = (meters[meter], modes[mode], ["1", "2", "3"][device]);
                collect.add(&Used { meter, tenant, time_ms: 0, device, mode, service, model: "", amount });
            }
            let report = collect.report(&|_| slices);
            prop_assert_eq!([report.total.held_ms, report.total.energy_mj], want);
            prop_assert!(report.servers.iter().all(|server| server.difference() == (0, 0)));
        }
    }
}
