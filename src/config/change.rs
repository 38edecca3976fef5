//! What may change while pipelines run.
//!
//! In: the pipelines in force, and the same files loaded again. Out: what a reload changes in each, or a mistake with its place
//! for each key that needs a restart. Steps are told apart by their config alone: one that has only moved goes on.

use super::locate::{Found, Path, Tree};
use super::report::Mistake;
use super::{Config, Loaded, SHARED, lanes, process};
use flow::step::{StepConfig, TailConfig};
use serde::Serialize;
use serde_json::Value;

/// Top-level keys that take effect by a reload; `memory` is what `check` holds a plan against, `tests` are for `weir test`. All others
/// need a restart.
const MAY_CHANGE: [&str; 4] = ["steps", "rates", "memory", "tests"];

/// What a reload changes in one pipeline.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Steps that start anew, as in `steps[1].quota`: the place in the file now.
    pub new: Vec<String>,
    /// Steps of the same place and kind whose config is another: they start anew.
    pub changed: Vec<String>,
    /// Steps that are no longer there: their place before.
    pub gone: Vec<String>,
    /// Steps that go on at another place: before and now.
    pub moved: Vec<(String, String)>,
    /// Other keys.
    pub keys: Vec<&'static str>,
}

impl Changes {
    pub fn between(before: &Loaded, after: &Loaded) -> Changes {
        let mut changes = Changes::of_steps(&before.config, &after.config);
        let card = |loaded: &Loaded| loaded.rates.as_ref().map(|card| card.text.clone());
        if card(before) != card(after) {
            changes.keys.push("rates");
        }
        if before.config.memory != after.config.memory {
            changes.keys.push("memory");
        }
        changes
    }

    fn of_steps(before: &Config, after: &Config) -> Changes {
        let mut changes = Changes::default();
        let after = steps(after);
        let mut left: Vec<Option<(String, Value)>> = steps(before).into_iter().map(Some).collect();
        let mut others = Vec::new();
        for (name, step) in after {
            let equal = left.iter_mut().find(|old| old.as_ref().is_some_and(|old| old.1 == step));
            match equal.and_then(Option::take) {
                Some((before, _)) if before == name => {}
                Some((before, _)) => changes.moved.push((before, name)),
                None => others.push(name),
            }
        }
        for name in others {
            match left.iter_mut().find(|old| old.as_ref().is_some_and(|old| old.0 == name)) {
                Some(old) => {
                    *old = None;
                    changes.changed.push(name);
                }
                None => changes.new.push(name),
            }
        }
        changes.gone = left.into_iter().flatten().map(|(name, _)| name).collect();
        changes
    }

    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// The steps by place and kind, and what each says.
fn steps(config: &Config) -> Vec<(String, Value)> {
    let json = |(number, step)| {
        let value = serde_json::to_value(step).expect("a config is plain data");
        let kind = value.as_object().and_then(|choice| choice.keys().next()).cloned().unwrap_or_default();
        (format!("steps[{number}].{kind}"), value)
    };
    config.steps.iter().enumerate().map(json).collect()
}

/// A mistake for each key that differs and needs a restart. `data_is_given`: the command line says where data lies, so files may
/// say what they like.
pub fn restart_needed(before: &[Loaded], after: &[Loaded], data_is_given: bool) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (before, after) in before.iter().zip(after) {
        let mut paths = Vec::new();
        if before.name != after.name {
            paths.push(Path::default().key("name"));
        }
        differ(&own(&before.config), &own(&after.config), &Path::default(), &mut paths);
        if before.config.library != after.config.library {
            paths.push(Path::default().key("parser_files"));
        }
        // What waits for its verdict was marked by the one that runs.
        let (old, new) = (tail(&before.config), tail(&after.config));
        if old.map(|tail| tail.1) != new.map(|tail| tail.1) {
            let steps = Path::default().key("steps");
            paths.push(new.map_or(steps.clone(), |(number, _)| steps.index(number).key("tail")));
        }
        mistakes.extend(paths.iter().filter_map(|path| needs_restart(after, path)));
    }
    let (old, new) = (process(before), process(after));
    for (key, differs) in [
        ("data", !data_is_given && old.data != new.data),
        ("lanes", lanes(&old) != lanes(&new)),
        ("admin", old.admin != new.admin),
        ("telemetry", old.telemetry != new.telemetry),
        ("query", old.query != new.query),
    ] {
        let owner = after.iter().find(|loaded| loaded.written.contains(&key)).or(after.first());
        mistakes.extend(owner.filter(|_| differs).and_then(|owner| needs_restart(owner, &Path::default().key(key))));
    }
    mistakes
}

/// The tail sampler, and its place.
fn tail(config: &Config) -> Option<(usize, &TailConfig)> {
    config.steps.iter().enumerate().find_map(|(number, step)| if let StepConfig::Tail(tail) = step { Some((number, tail)) } else { None })
}

/// What a pipeline has to itself and cannot change.
fn own(config: &Config) -> Value {
    let mut value = serde_json::to_value(config).expect("a config is plain data");
    if let Some(keys) = value.as_object_mut() {
        keys.retain(|key, _| key != "name" && !MAY_CHANGE.contains(&key.as_str()) && !SHARED.contains(&key.as_str()));
    }
    value
}

/// The deepest paths at which two values differ.
fn differ(before: &Value, after: &Value, path: &Path, paths: &mut Vec<Path>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let gone = before.keys().filter(|key| !after.contains_key(*key));
            for key in after.keys().chain(gone) {
                let side = |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or(Value::Null);
                differ(&side(before), &side(after), &path.key(key), paths);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).enumerate().for_each(|(i, (before, after))| differ(before, after, &path.index(i), paths));
        }
        _ if before == after => {}
        _ => paths.push(path.clone()),
    }
}

fn needs_restart(loaded: &Loaded, path: &Path) -> Option<Mistake> {
    let message =
        "is not what runs; only `steps` (but `tail`), `rates` and `memory` may change while weir runs; restart weir, or undo this";
    let mut ignored = Vec::new();
    let file = loaded.path.display().to_string();
    let tree = Tree::parse(&file, &loaded.text, &|_| Some(String::new()), &mut ignored)?;
    let spot = match tree.find(path) {
        Found::Node(id) => tree.spot(id),
        Found::Above(id) => tree.spot(tree.key_of(id)),
        Found::Lost => tree.spot(tree.root),
    };
    Some(tree.mistake(spot, path.to_string(), message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const BEFORE: &str = "\
sources:
  app: { file: { include: [\"/logs/*.log\"] } }
steps:
  - drop: { when: 'level == \"debug\"' }
  - sample: { levels: { info: { first: 10, thereafter: 0, tick: 1m } } }
  - quota: { records_per_day: 5 }
sinks:
  files: { archive: { path: all.log } }
lanes: 2
";

    fn load(folder: &std::path::Path, text: &str) -> Vec<Loaded> {
        let path = folder.join("p.yaml");
        std::fs::write(&path, text).unwrap();
        crate::config::load(&[path], &|_| None).unwrap_or_else(|report| panic!("{report}"))
    }

    /// What the change of one text to another is: `+` new, `~` changed, `-` gone, `a > b` moved, and what is refused.
    #[track_caller]
    fn check(data_is_given: bool, change: impl Fn(String) -> String, want: Expect) {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (load(folder.path(), BEFORE), load(folder.path(), &change(BEFORE.into())));
        let changes = Changes::between(&before[0], &after[0]);
        let mut lines = Vec::new();
        lines.extend(changes.new.iter().map(|step| format!("+ {step}")));
        lines.extend(changes.changed.iter().map(|step| format!("~ {step}")));
        lines.extend(changes.gone.iter().map(|step| format!("- {step}")));
        lines.extend(changes.moved.iter().map(|(before, now)| format!("{before} > {now}")));
        lines.extend(changes.keys.iter().map(|key| key.to_string()));
        for mistake in restart_needed(&before, &after, data_is_given) {
            lines.push(format!("{}:{} {} {}", mistake.line, mistake.column, mistake.path, mistake.message));
        }
        want.assert_eq(&lines.join("\n"));
    }

    fn put(from: &'static str, to: &'static str) -> impl Fn(String) -> String {
        move |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        }
    }

    #[test]
    fn steps_may_change_and_a_step_that_only_moves_goes_on() {
        check(false, |text| text, expect![""]);
        check(false, |text| format!("# as before\n{text}"), expect![""]);
        check(false, put("first: 10", "first: 20"), expect!["~ steps[1].sample"]);
        check(
            false,
            put("  - drop: { when: 'level == \"debug\"' }\n", ""),
            expect![[r#"
            - steps[0].drop
            steps[1].sample > steps[0].sample
            steps[2].quota > steps[1].quota"#]],
        );
        check(false, put("  - quota: { records_per_day: 5 }\n", ""), expect!["- steps[2].quota"]);
        check(
            false,
            put("steps:\n", "steps:\n  - quota: { records_per_day: 6 }\n"),
            expect![[r#"
            + steps[0].quota
            steps[0].drop > steps[1].drop
            steps[1].sample > steps[2].sample
            steps[2].quota > steps[3].quota"#]],
        );
        check(
            false,
            put("steps:\n", "steps:\n  - quota: { records_per_day: 5 }\n"),
            expect![[r#"
            + steps[3].quota
            steps[2].quota > steps[0].quota
            steps[0].drop > steps[1].drop
            steps[1].sample > steps[2].sample"#]],
        );
        check(false, put("sinks:", "  - meter: { name: lines }\nsinks:"), expect!["+ steps[3].meter"]);
        check(
            false,
            |text| text[..text.find("steps").unwrap()].to_string() + &text[text.find("sinks").unwrap()..],
            expect![[r#"
            - steps[0].drop
            - steps[1].sample
            - steps[2].quota"#]],
        );
        check(false, put("sources:", "memory: 300MiB\nsources:"), expect!["memory"]);
    }

    #[test]
    fn everything_else_needs_a_restart_and_is_named_with_its_place() {
        check(false, put("/logs/*.log", "/other/*.log"), expect!["2:28 sources.app.file.include[0] is not what runs"]);
        check(
            false,
            put("include: [\"/logs/*.log\"]", "include: [\"/logs/*.log\"], line_bytes_max: 1KiB"),
            expect!["2:60 sources.app.file.line_bytes_max is not what runs"],
        );
        check(false, put("sinks:", "sinks:\n  out: { stdout: {} }"), expect!["8:8 sinks.out is not what runs"]);
        check(
            false,
            put("files: { archive: { path: all.log } }", "out: { stdout: {} }"),
            expect![[r#"
            8:8 sinks.out is not what runs
            7:1 sinks.files is not what runs"#]],
        );
        check(
            false,
            put("sources:", "name: other\nlabels: { env: prod }\nhub: { memory: {} }\nsources:"),
            expect![[r#"
            1:7 name is not what runs
            3:16 hub.memory is not what runs
            3:1 hub.journal is not what runs
            2:16 labels.env is not what runs"#]],
        );
        check(
            false,
            put("sources:", "tenancy: { from: [who] }\nfields: { message: [text] }\nsources:"),
            expect![[r#"
            2:20 fields.message is not what runs
            1:18 tenancy.from is not what runs"#]],
        );
        check(
            false,
            put("lanes: 2", "data: there\nlanes: 3\nadmin: { listen: \"127.0.0.1:0\" }"),
            expect![[r#"
            9:7 data is not what runs
            10:8 lanes is not what runs
            11:8 admin is not what runs"#]],
        );
        check(true, put("sources:", "data: there\nsources:"), expect![""]);
        check(
            false,
            |text| put("first: 10", "first: 20")(put("sources:", "data: there\nsources:")(text)),
            expect![[r#"
            ~ steps[1].sample
            1:7 data is not what runs"#]],
        );
    }
}
