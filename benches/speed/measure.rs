//! Runs a command as a process of its own and tells what it cost.
//!
//! In: a command. Out: its CPU time (user and system, of all its threads), wall time and output. The CPU time is the
//! one the kernel accounts to the finished child, as bash's `time` prints it: exact to a millisecond, without
//! unsafe code. Bound: output is read whole; a command that fails is an error with what it said.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Times the command in its arguments into the file that `$0` names; standard error stays the command's own.
const SCRIPT: &str = r#"TIMEFORMAT='%3U %3S %3R'; exec 3>&2; { time "$@" 2>&3 3>&-; } 2>"$0""#;

#[derive(Clone, Debug)]
pub struct Cost {
    pub cpu: Duration,
    pub wall: Duration,
    pub output: Vec<u8>,
}

/// `scratch`: a folder for the times. `env`: variables for the command.
pub fn run(scratch: &Path, env: &[(&str, &Path)], command: &[&OsStr]) -> anyhow::Result<Cost> {
    let times = scratch.join("times");
    let mut bash = Command::new("bash");
    bash.args([OsStr::new("-c"), OsStr::new(SCRIPT), times.as_os_str()]).args(command).envs(env.iter().copied()).env("LC_ALL", "C");
    let said = bash.output().context("cannot start bash, which takes the time")?;
    if !said.status.success() {
        let command: Vec<_> = command.iter().map(|part| part.to_string_lossy()).collect();
        bail!("{} ended with {}:\n{}", command.join(" "), said.status, String::from_utf8_lossy(&said.stderr));
    }
    let text = std::fs::read_to_string(&times).context("bash wrote no times")?;
    let seconds: Vec<f64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, system, wall] = seconds[..] else { bail!("bash wrote no times but {text:?}") };
    Ok(Cost { cpu: Duration::from_secs_f64(user + system), wall: Duration::from_secs_f64(wall), output: said.stdout })
}

/// What a warm-up and `runs` runs cost, cheapest first. `before` is done before each of them and costs nothing.
pub fn repeat(
    runs: usize,
    mut before: impl FnMut() -> anyhow::Result<()>,
    mut run: impl FnMut() -> anyhow::Result<Cost>,
) -> anyhow::Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for n in 0..=runs {
        before()?;
        let cost = run()?;
        if n > 0 {
            costs.push(cost);
        }
    }
    costs.sort_by_key(|cost| cost.cpu);
    Ok(costs)
}
