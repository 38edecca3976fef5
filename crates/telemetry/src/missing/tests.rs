//! What `missing` promises: tables of cases, and replays.

use super::*;
use crate::selector::NAME;
use flow::units::NANOS_PER_SECOND as SEC;
use proptest::prelude::*;

const STEP: i64 = 15 * SEC;

fn at(seconds: i64) -> UnixNanos {
    UnixNanos(1_764_291_600 * SEC + seconds * SEC)
}

fn rule(expected: Expected) -> Rule {
    Rule::missing_from("latency", Selector::parse("latency_bucket{job=\"infer\"}").unwrap(), &["model"], expected, STEP)
}

fn inventory(members: &[&str]) -> Expected {
    Expected::Inventory(members.iter().map(|member| vec![member.to_string()]).collect())
}

fn series(metric: &str, model: &str) -> Labels {
    vec![(NAME.into(), metric.into()), ("job".into(), "infer".into()), ("le".into(), "0.1".into()), ("model".into(), model.into())]
}

fn show(alerts: &[Alert]) -> Vec<String> {
    let state = |state| match state {
        State::Firing => "firing".to_string(),
        State::Resolved(reason) => reason.name().to_string(),
    };
    alerts.iter().map(|alert| format!("{} {}", alert.member_text(), state(alert.state))).collect()
}

/// A script: `observe member@taken` at a moment, `remove member`, or a tick and what it must give.
#[track_caller]
fn check(expected: Expected, script: &[(i64, &str, &[&str])]) {
    let mut watch = Watch::new(rule(expected), at(0), 10).unwrap();
    for (second, what, want) in script {
        match what.split_once(' ') {
            Some(("see", members)) => {
                for member in members.split(' ') {
                    let (name, taken) = member.split_once('@').map_or((member, *second), |(name, taken)| (name, taken.parse().unwrap()));
                    watch.observe(&[name], at(taken), at(*second));
                }
            }
            Some(("remove", member)) => watch.remove(&[member], at(*second)),
            Some(("inventory", members)) => {
                let members = members.split(' ').map(|member| vec![member.to_string()]).collect();
                watch.set_inventory(members, at(*second)).unwrap();
            }
            _ => assert_eq!(show(&watch.tick(at(*second))), *want, "at {second}s"),
        }
    }
}

#[test]
fn of_32_models_the_one_that_loses_its_histogram_is_named_within_two_intervals() {
    for by_inventory in [true, false] {
        let models: Vec<String> = (0..32).map(|n| format!("m{n}")).collect();
        let expected = match by_inventory {
            true => Expected::Inventory(models.iter().map(|model| vec![model.clone()]).collect()),
            false => Expected::Preceding(10 * STEP),
        };
        let mut missing = Watch::new(rule(expected), at(0), MEMBERS_MAX).unwrap();
        let query = Query::parse("absent(latency_bucket{job=\"infer\"})").unwrap();
        let mut absent = Watch::new(Rule::absent("gone", &query, STEP).unwrap(), at(0), MEMBERS_MAX).unwrap();
        let (lost, back) = (40, 132); // 92 scrapes: 23 minutes
        let mut told = Vec::new();
        for scrape in 0..160 {
            let now = at(scrape * 15);
            for model in &models {
                // The exporter answers still; the path of one model has no histogram.
                let metric = if model == "m7" && (lost..back).contains(&scrape) { "up" } else { "latency_bucket" };
                missing.sample(&series(metric, model), now, 1.0, now);
                absent.sample(&series(metric, model), now, 1.0, now);
            }
            told.extend(missing.tick(now).into_iter().map(|alert| (scrape, alert)));
            assert!(absent.tick(now).is_empty(), "the others hide the loss from absent");
        }
        let (fired, ended) = (&told[0], &told[1]);
        assert_eq!((told.len(), fired.1.member_text().as_str(), fired.1.state), (2, "m7", State::Firing));
        assert!(fired.0 - (lost - 1) <= 2, "two intervals after its last sample at most, it was {}", fired.0);
        assert_eq!((ended.0, ended.1.state), (back, State::Resolved(Reason::SeenAgain)));
        assert_eq!(fired.1.since, at((lost - 1) * 15));
    }
}

#[test]
fn a_member_of_the_inventory_is_missing_after_two_intervals_of_silence_and_not_before() {
    check(
        inventory(&["a", "b", "never"]),
        &[
            (0, "see a b", &[]),
            (0, "tick", &[]),
            (15, "see a b", &[]),
            (29, "tick", &[]),
            (30, "tick", &["never firing"]),
            (30, "see a", &[]),
            (44, "tick", &[]),
            (45, "tick", &["b firing"]),
            (50, "tick", &[]),
            (51, "see b c", &[]),
            (51, "tick", &["b seen_again"]),
            (60, "inventory a b d", &[]),
            (60, "tick", &["a firing", "never removed"]),
            (81, "tick", &["b firing"]),
            (89, "tick", &[]),
            (90, "tick", &["d firing"]),
            (91, "remove a", &[]),
            (91, "see a", &[]),
            (92, "tick", &["a removed"]),
            (300, "tick", &[]),
        ],
    );
}

#[test]
fn a_window_fires_after_it_was_whole_once_and_forgets_whom_it_no_longer_holds() {
    check(
        Expected::Preceding(60 * SEC),
        &[
            (0, "see a b", &[]),
            (30, "see a", &[]),
            (45, "see a", &[]),
            (59, "tick", &[]),
            (60, "see a", &[]),
            (60, "tick", &["b firing"]),
            (90, "tick", &["a firing"]),
            (91, "see a", &[]),
            (91, "tick", &["a seen_again"]),
            // An alert outlives the window: an incident does not end because nobody looked.
            (1000, "tick", &["a firing"]),
            (1001, "remove a", &[]),
            (1002, "see a@1000", &[]),
            (1002, "tick", &["a removed"]),
            (1100, "tick", &[]),
            (86_401, "tick", &["b forgotten"]),
            (86_402, "see a b", &[]),
            (86_432, "tick", &["a firing", "b firing"]),
        ],
    );
}

#[test]
fn late_samples_and_wrong_clocks_neither_end_nor_begin_an_alert() {
    check(
        inventory(&["late", "ahead", "behind", "queued"]),
        &[
            (0, "see late ahead@3600 behind@-3600 queued", &[]),
            (15, "see late ahead@3615 behind@-3585 queued", &[]),
            (30, "see ahead@3630 behind@-3570", &[]),
            (45, "see ahead@3645 behind@-3555", &[]),
            (45, "tick", &["late firing", "queued firing"]),
            // Sent again, and out of order: no sign of life.
            (46, "see late@15 late@14 late@-100", &[]),
            (46, "tick", &[]),
            // Newer, but from a queue that empties: it was alive then, and is not known to be now.
            (200, "see queued@30 queued@45 ahead@3800 behind@-3400", &[]),
            (200, "tick", &[]),
            (201, "see queued@200", &[]),
            (201, "tick", &["queued seen_again"]),
            (230, "tick", &["ahead firing", "behind firing", "queued firing"]),
        ],
    );
}

#[test]
fn our_own_clock_may_step_back_and_ends_no_alert() {
    check(
        inventory(&["a", "never"]),
        &[
            (0, "see a", &[]),
            (45, "tick", &["a firing", "never firing"]),
            (20, "tick", &[]),
            (21, "see a", &[]),
            (21, "tick", &["a seen_again"]),
            (60, "tick", &["a firing"]),
        ],
    );
}

#[test]
fn a_watch_has_room_for_so_many_members() {
    let mut watch = Watch::new(rule(Expected::Preceding(60 * SEC)), at(0), 2).unwrap();
    for member in ["a", "b", "c", "", &"x".repeat(MEMBER_BYTES_MAX + 1)] {
        watch.observe(&[member], at(1), at(1));
    }
    watch.observe(&["a"], at(0), at(1));
    assert_eq!((watch.members(), watch.counts), (2, Counts { untracked: 1, late: 1, nameless: 2 }));
    // Who is forgotten makes room.
    assert_eq!(show(&watch.tick(at(100))), ["a firing", "b firing"]);
    watch.observe(&["b"], at(80_000), at(80_000));
    assert_eq!(show(&watch.tick(at(86_402))), ["a forgotten"]);
    watch.observe(&["c"], at(86_403), at(86_403));
    assert_eq!((watch.members(), watch.counts.untracked), (2, 1));
}

#[test]
fn a_stale_marker_is_no_sign_of_life() {
    let mut watch = Watch::new(rule(inventory(&["a"])), at(0), 10).unwrap();
    let labels = series("latency_bucket", "a");
    assert!(watch.sample(&labels, at(0), 1.0, at(0)));
    assert!(watch.sample(&labels, at(15), f64::from_bits(STALE), at(15)));
    assert!(!watch.sample(&series("other", "a"), at(30), 1.0, at(30)));
    assert_eq!(watch.next(), Some(at(30)));
    assert_eq!(show(&watch.tick(at(30))), ["a firing"]);
    assert_eq!(watch.next(), None);
}

#[test]
fn absent_fires_when_nothing_is_selected_and_has_the_labels_of_equality_matchers() {
    for (query, labels) in [
        ("absent(x{job=\"a\",i=~\".*\"})", vec![("job", "a")]),
        ("x{job=\"a\"}", vec![("job", "a")]),
        ("absent(sum(x{job=\"a\"}))", vec![]),
    ] {
        let rule = Rule::absent("gone", &Query::parse(query).unwrap(), STEP).unwrap();
        let mut watch = Watch::new(rule, at(0), 1).unwrap();
        let one = |i: &str| vec![(NAME.to_string(), "x".to_string()), ("i".into(), i.into()), ("job".into(), "a".into())];
        assert!(watch.tick(at(29)).is_empty(), "warming up");
        let fired = watch.tick(at(30));
        assert_eq!(fired[0].member.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), labels);
        watch.sample(&one("0"), at(40), 1.0, at(40));
        assert_eq!(watch.tick(at(40))[0].state, State::Resolved(Reason::SeenAgain));
        assert_eq!(watch.next(), Some(at(340)));
        assert!(watch.tick(at(339)).is_empty());
        let fired = watch.tick(at(340));
        assert_eq!((fired[0].state, fired[0].since), (State::Firing, at(40)));
        // A clock that is ahead makes nothing absent.
        watch.sample(&one("0"), at(9000), 1.0, at(341));
        assert_eq!(watch.tick(at(341)).len(), 1);
        assert_eq!((watch.tick(at(640)).len(), watch.tick(at(641)).len()), (0, 1));
        // A stale marker ends it at once; one series that is left keeps it silent.
        for second in [750, 751] {
            watch.sample(&one("0"), at(second), 1.0, at(second));
            watch.tick(at(second));
        }
        watch.sample(&one("0"), at(752), f64::from_bits(STALE), at(752));
        assert_eq!(watch.tick(at(752))[0].state, State::Firing);
        watch.sample(&one("0"), at(753), 1.0, at(753));
        watch.sample(&one("no room"), at(753), 1.0, at(753));
        watch.sample(&one("0"), at(754), f64::from_bits(STALE), at(754));
        assert_eq!(show(&watch.tick(at(754))).len(), 1);
        assert!(watch.firing().is_empty());
    }
    for query in ["rate(x[5m])", "absent(rate(x[5m]))", "x offset 5m", "absent(absent(x))"] {
        assert!(Rule::absent("gone", &Query::parse(query).unwrap(), STEP).is_none(), "{query}");
    }
}

#[test]
fn a_rule_that_cannot_work_is_refused() {
    let two = |by: &[&str]| Rule::missing_from("r", Selector::parse("x").unwrap(), by, inventory(&["a"]), STEP);
    for (rule, want) in [
        (two(&[]), "`by` names the labels"),
        (two(&["a", "a"]), "`by` names the labels"),
        (two(&["a", "b"]), "is no member"),
        (rule(Expected::Preceding(SEC)), "the window is shorter than 2 intervals"),
        (rule(inventory(&["a", "b", "c"])), "at most 2 are watched"),
        (Rule { interval: 0, ..rule(inventory(&["a"])) }, "the interval is 0"),
        (Rule { within: 0, ..rule(inventory(&["a"])) }, "the interval is 0"),
        (Rule { name: " ".into(), ..rule(inventory(&["a"])) }, "has no name"),
    ] {
        let error = Watch::new(rule, at(0), 2).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    let mut watch = Watch::new(rule(Expected::Preceding(60 * SEC)), at(0), 2).unwrap();
    assert!(watch.set_inventory(vec![], at(0)).is_err());
}

#[test]
fn an_alert_looks_like_this() {
    let mut watch = Watch::new(rule(inventory(&["m\"7"])), at(0), 2).unwrap();
    let fired = watch.tick(at(45));
    let mut out = Vec::new();
    put_event(&mut out, &fired[0]);
    put_firing(&mut out, &watch, at(45));
    watch.observe(&["m\"7"], at(60), at(60));
    let ended = watch.tick(at(60));
    put_event(&mut out, &ended[0]);
    put_change(&mut out, &ended[0]);
    let want = r#"{"timestamp":"2025-11-28T01:00:45Z","event":"missing","rule":"latency","member":"m\"7","state":"firing","since":"2025-11-28T01:00:00Z","message":"m\"7: not seen for 45s","labels":{"model":"m\"7"}}
{"metric":"weir_missing","type":"gauge","labels":{"member":"m\"7","model":"m\"7","rule":"latency"},"timestamp":"2025-11-28T01:00:45Z","value":1.0}
{"metric":"ALERTS","type":"gauge","labels":{"alertname":"latency","alertstate":"firing","model":"m\"7"},"timestamp":"2025-11-28T01:00:45Z","value":1.0}
{"timestamp":"2025-11-28T01:01:00Z","event":"missing","rule":"latency","member":"m\"7","state":"resolved","reason":"seen_again","since":"2025-11-28T01:01:00Z","message":"m\"7: no longer missing: seen again","labels":{"model":"m\"7"}}
{"metric":"weir_missing","type":"gauge","labels":{"member":"m\"7","model":"m\"7","rule":"latency"},"timestamp":"2025-11-28T01:01:00Z","value":"stale"}
{"metric":"ALERTS","type":"gauge","labels":{"alertname":"latency","alertstate":"firing","model":"m\"7"},"timestamp":"2025-11-28T01:01:00Z","value":"stale"}
"#;
    assert_eq!(String::from_utf8(out).unwrap(), want);
}

proptest! {
    /// Law: who fires is who has been silent for two intervals, found anew from the whole history; each alert begins once and ends once.
    #[test]
    fn alerts_tell_who_is_silent(script in prop::collection::vec((0i64..10, 0usize..4, 0i64..40), 1..80)) {
        let mut watch = Watch::new(rule(inventory(&["0", "1", "2"])), at(0), 10).unwrap();
        let (mut now, mut history, mut firing) = (0, Vec::new(), std::collections::BTreeSet::new());
        for (pause, who, delay) in script {
            now += pause;
            if who < 3 {
                watch.observe(&[&who.to_string()], at(now - delay), at(now));
                history.push((who, now - delay, now));
                continue;
            }
            for alert in watch.tick(at(now)) {
                let name = alert.member_text();
                let fits = if alert.state == State::Firing { firing.insert(name) } else { firing.remove(&name) };
                prop_assert!(fits);
            }
            for member in 0..3 {
                // Of samples that were newer than all before, the last one, as its clock is late.
                let mut newest = i64::MIN;
                let counted: Vec<_> = history.iter().filter(|(who, taken, _)| *who == member && *taken > newest && { newest = *taken; true }).collect();
                let seen = counted.last().map_or(0, |last| last.1 + counted.iter().map(|(_, taken, came)| came - taken).min().unwrap());
                let is_silent = now - seen >= 30 && now >= 30;
                prop_assert_eq!(is_silent, firing.contains(&member.to_string()), "{} at {}", member, now);
            }
        }
    }
}
