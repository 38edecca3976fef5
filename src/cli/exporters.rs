//! `weir check exporters DIR`: finds scrapes that will not find their metrics, in manifests, before they are rolled out.
//!
//! In: a folder of YAML files, or files. Out: findings with file, line and column; with `--probe-at` what the endpoints answer, too.
//! Exit 0 if nothing is wrong, 1 for a mismatch, 2 where a file cannot be read. Nothing but the probes leaves this machine. Bound:
//! [`FILES_MAX`] files of [`FILE_BYTES_MAX`], [`PROBE_BYTES_MAX`] of an answer.

use super::Mistake;
use anyhow::Context;
use serde_json::json;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use telemetry::exporters::{Answer, Finding, Report, Severity, Target, check, judge};

const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 16 << 20;
const PROBE_BYTES_MAX: u64 = 16 << 20;
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Options {
    pub paths: Vec<PathBuf>,
    /// Host and port that stand for every service: a port that was forwarded, or a test.
    pub probe_at: Option<String>,
    pub json: bool,
}

pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for path in &options.paths {
        gather(path, &mut found)?;
    }
    found.sort();
    let mut files = Vec::new();
    for path in &found {
        let len = std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?.len();
        if len > FILE_BYTES_MAX {
            return Err(Mistake(format!("{} has {len} bytes; a manifest has at most {FILE_BYTES_MAX}", path.display())).into());
        }
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    if files.is_empty() {
        return Err(Mistake("there is no .yaml or .yml file; name a folder with manifests".into()).into());
    }
    let mut report = check(&files);
    if let Some(address) = &options.probe_at {
        let probed: Vec<Finding> = report.targets.iter().flat_map(|target| probe(address, target)).collect();
        report.findings.extend(probed);
    }
    print(&report, files.len(), options.json)?;
    Ok(ExitCode::from(report.exit_code()))
}

/// Files of YAML below a path; a file that is named is taken whatever it is called.
fn gather(path: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return Err(Mistake(format!("cannot read {}: {error}", path.display())).into()),
    };
    if !meta.is_dir() {
        found.push(path.to_path_buf());
        return Ok(());
    }
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let (path, kind) = (entry.path(), entry.file_type().with_context(|| format!("cannot look at {}", folder.display()))?);
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
            match () {
                () if kind.is_dir() && !is_hidden => folders.push(path),
                () if kind.is_file() && is_yaml => found.push(path),
                () => {}
            }
            if found.len() > FILES_MAX {
                return Err(Mistake(format!("more than {FILES_MAX} files of YAML; check folders one by one")).into());
            }
        }
    }
    Ok(())
}

fn probe(address: &str, target: &Target) -> Vec<Finding> {
    let url = format!("http://{address}{}", target.path);
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PROBE_TIMEOUT)).max_redirects(0).proxy(None);
    let agent = ureq::Agent::from(config.build());
    let name = format!("{} by {}, {url}", target.of, target.by);
    let answer = agent.get(&url).header("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5").call();
    let failed = |what: String| Finding {
        severity: Severity::Error,
        file: name.clone(),
        line: 0,
        column: 0,
        what,
        rule: "probe_failed",
        help: "see whether it runs, and what it listens on".into(),
    };
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return vec![failed(format!("did not answer: {error}"))],
    };
    let status = answer.status().as_u16();
    let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = Vec::new();
    match answer.body_mut().as_reader().take(PROBE_BYTES_MAX).read_to_end(&mut body) {
        Ok(_) => judge(&name, Answer { status, content_type: content_type.as_deref(), body: &body }, &target.required),
        Err(error) => vec![failed(format!("its answer was cut off: {error}"))],
    }
}

fn print(report: &Report, files: usize, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let finding = |finding: &Finding| {
            json!({
                "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
                "file": finding.file, "line": finding.line, "column": finding.column,
                "what": finding.what, "rule": finding.rule, "help": finding.help,
            })
        };
        let findings: Vec<_> = report.findings.iter().map(finding).collect();
        writeln!(
            out,
            "{}",
            json!({ "files": files, "workloads": report.workloads, "scrapes": report.targets.len(), "findings": findings })
        )?;
        return Ok(());
    }
    for finding in &report.findings {
        writeln!(out, "{}", finding.show())?;
    }
    let (workloads, scrapes) = (report.workloads, report.targets.len());
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    writeln!(
        out,
        "{files} files, {workloads} workloads, {scrapes} scrapes that reach one: {errors} errors, {} warnings",
        report.findings.len() - errors
    )?;
    Ok(())
}
