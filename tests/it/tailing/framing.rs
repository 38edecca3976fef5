//! Line framing: scenarios 21 to 31. Where a record begins and ends, across writes, files, restarts and encodings.

use super::scene::{Scene, Setup, at_once, cri, slow, with_both_hubs};
use crate::harness::wait_until;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// A source of this format that joins for a short time only.
const CRI: &str = ", format: cri";
const CRI_SHORT: &str = ", format: cri, join: { age: 300ms }";

/// Two halves of a line, cut at a character.
fn halves(line: &str) -> (&str, &str) {
    line.split_at(line.len() / 2)
}

/// Happens: The last line is only half written when the agent stops.
/// Weir: Waits for its newline, over a restart or a kill too; the record comes out once and whole.
/// Lost by: FB#11265; FB suite
#[test]
fn s21_a_partial_last_line_at_shutdown_comes_out_once_and_whole() {
    with_both_hubs(|hub| {
        at_once(&[true, false], |kill| {
            let mut scene = Scene::of(Setup { hub, ..Setup::default() });
            for _ in 0..3 {
                let whole = scene.text("a", 20);
                let line = scene.line("a");
                let (head, tail) = halves(&line);
                scene.append("a.log", whole + head);
                scene.start();
                scene.wait();
                if *kill {
                    scene.kill()
                } else {
                    scene.stop();
                }
                scene.append("a.log", format!("{tail}\n"));
                scene.expect("a", line.as_bytes());
            }
            scene.start();
            scene.finish();
        });
    });
}

/// Happens: The rotated file ends within a line; the next file begins with a line of its own.
/// Weir: What has no newline when its file is over is a record by itself, noted `unterminated`; the next file's first bytes are nobody's rest.
/// Lost by: V#20914; FB#5382
#[test]
fn s22_a_partial_line_at_the_end_of_a_rotated_file() {
    with_both_hubs(|hub| {
        at_once(&[true, false], |down| {
            let mut scene = Scene::of(Setup { hub, ..Setup::default() });
            scene.put("a.log", "a", 10);
            scene.start();
            scene.wait();
            if *down {
                scene.stop();
            }
            let line = scene.line("a");
            scene.append("a.log", &line); // whole JSON, but no newline
            scene.expect("a", line.as_bytes());
            scene.expect_note("unterminated", 1);
            scene.rename("a.log", "a.log.1");
            scene.put("a.log", "a", 10);
            if *down {
                scene.start();
            }
            scene.finish();
        });
    });
}

#[test]
fn s22_the_line_is_ended_in_the_rotated_file_by_a_writer_that_still_has_it() {
    let mut scene = Scene::new();
    scene.put("a.log", "a", 10);
    scene.start();
    scene.wait();
    let line = scene.line("a");
    let (head, tail) = halves(&line);
    scene.append("a.log", head);
    scene.rename("a.log", "a.log.1");
    scene.append("a.log.1", format!("{tail}\n"));
    scene.expect("a", line.as_bytes());
    scene.put("a.log", "a", 10);
    scene.finish();
}

/// A record of one tenant in CRI lines: `P` parts and an `F`.
fn parts(output: &str, record: &str, pieces: usize) -> Vec<String> {
    let size = record.len().div_ceil(pieces);
    let texts: Vec<&str> = (0..pieces).map(|n| &record[(n * size).min(record.len())..((n + 1) * size).min(record.len())]).collect();
    texts.iter().enumerate().map(|(n, text)| cri(output, if n + 1 == pieces { "F" } else { "P" }, text)).collect()
}

/// Happens: A container's record is split over two files by rotation; the agent may be killed between them.
/// Weir: Joins per container and output, over files, stops and kills: one record.
/// Lost by: V#24981; FB#11602, FB#10041; K#107943
#[test]
fn s23_a_record_split_over_two_files_and_a_kill_between_them_is_one_record() {
    with_both_hubs(|hub| {
        at_once(&["kill", "stop", "run", "gz"], |how| {
            let mut scene = Scene::of(Setup { hub, source: CRI, include: r#""$DIR/in/*.log""#, ..Setup::default() });
            for round in 0..3 {
                let whole: String = (0..10)
                    .flat_map(|_| {
                        let r = scene.line("a");
                        scene.expect("a", r.as_bytes());
                        parts("stdout", &r, 1)
                    })
                    .collect();
                let (out, err) = (scene.line("a"), scene.line("b"));
                let (o, e) = (parts("stdout", &out, 4), parts("stderr", &err, 2));
                scene.append("0.log", whole + &o[0] + &e[0] + &o[1]);
                if round == 0 || *how == "stop" || *how == "kill" || *how == "gz" {
                    scene.start();
                }
                scene.wait();
                match *how {
                    "kill" => scene.kill(),
                    "stop" | "gz" => {
                        scene.stop();
                    }
                    _ => {}
                }
                let old = format!("0.log.20261123-03000{round}");
                scene.rename("0.log", &old);
                if *how == "gz" {
                    scene.gzip(&old);
                }
                scene.append("0.log", format!("{}{}{}", o[2], o[3], e[1]));
                scene.expect("a", out.as_bytes());
                scene.expect("b", err.as_bytes());
            }
            if *how != "run" {
                scene.start();
            }
            scene.finish();
        });
    });
}

#[test]
fn s23_a_record_split_over_two_rotations_while_nobody_looks() {
    let mut scene = Scene::of(Setup { source: CRI, ..Setup::default() });
    let (first, record, last) = (scene.line("a"), scene.line("a"), scene.line("a"));
    let split = parts("stdout", &record, 3);
    scene.append("0.log", parts("stdout", &first, 1).concat());
    scene.expect("a", first.as_bytes());
    scene.start();
    scene.wait();
    scene.freeze();
    scene.append("0.log", &split[0]);
    scene.rename("0.log", "0.log.1");
    scene.append("0.log", &split[1]);
    scene.rename("0.log.1", "0.log.2");
    scene.rename("0.log", "0.log.1");
    scene.append("0.log", format!("{}{}", split[2], cri("stdout", "F", &last)));
    scene.expect("a", record.as_bytes());
    scene.expect("a", last.as_bytes());
    scene.thaw();
    scene.finish();
}

/// A line of docker's json-file driver.
fn docker(output: &str, text: &str) -> String {
    let log = serde_json::to_string(text).expect("text");
    format!("{{\"log\":{log},\"stream\":\"{output}\",\"time\":\"2026-11-23T03:00:00.00000001Z\"}}\n")
}

/// Happens: Parts of records on standard output and error alternate; docker splits at 16 KiB.
/// Weir: Joins each output by itself; a docker line without a final newline in `log` is a part. Both formats may stand in one file (`container`).
/// Lost by: moby#36777; BT#8203
#[test]
fn s24_parts_of_two_outputs_alternate_in_cri_and_docker() {
    at_once(&["cri", "docker", "container"], |format| {
        let source = match *format {
            "cri" => ", format: cri",
            "docker" => ", format: docker",
            _ => ", format: container",
        };
        let mut scene = Scene::of(Setup { source, ..Setup::default() });
        let mut text = String::new();
        for n in 0..60 {
            let long = format!(
                "{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"a\",\"n\":{n},\"pad\":\"{}\"}}",
                "é\\\"\u{7}".replace('\u{7}', "\\u0007").repeat(5000)
            );
            let (out, err) = (long, scene.line("b"));
            let is_docker = *format == "docker" || (*format == "container" && n % 2 == 1);
            let cuts: Vec<String> = if is_docker {
                let mut at = 16 << 10;
                while !out.is_char_boundary(at) {
                    at -= 1;
                }
                vec![
                    docker("stdout", &out[..at]),
                    docker("stderr", &err[..9]),
                    docker("stdout", &format!("{}\n", &out[at..])),
                    docker("stderr", &format!("{}\n", &err[9..])),
                ]
            } else {
                let mut at = 16 << 10;
                while !out.is_char_boundary(at) {
                    at -= 1;
                }
                vec![
                    cri("stdout", "P", &out[..at]),
                    cri("stderr", "P", &err[..9]),
                    cri("stdout", "F", &out[at..]),
                    cri("stderr", "F", &err[9..]),
                ]
            };
            text += &cuts.concat();
            scene.expect("a", out.into_bytes());
            scene.expect("b", err.as_bytes());
        }
        scene.start();
        // In pieces that end anywhere.
        for piece in text.as_bytes().chunks(100_001) {
            scene.append("c.log", piece);
        }
        scene.finish();
    });
}

/// Happens: The last part of a record never comes, because its pod died.
/// Weir: After `join.age` (30s by default) what there is is a record, noted `partial`; once, over a kill too.
/// Lost by: records held for ever, or lost at the end
#[test]
fn s25_a_last_part_that_never_comes_is_given_up_after_its_age() {
    with_both_hubs(|hub| {
        at_once(&[true, false], |kill| {
            let mut scene = Scene::of(Setup { hub, source: CRI_SHORT, ..Setup::default() });
            let line = scene.line("a");
            scene.append("0.log", cri("stdout", "F", &line) + &cri("stdout", "P", "{\"tenant\":\"a\",\"half\":"));
            scene.expect("a", line.as_bytes());
            scene.start();
            if *kill {
                scene.wait();
                scene.kill();
                scene.start();
            }
            scene.expect("unassigned", "{\"tenant\":\"a\",\"half\":"); // no JSON, so no tenant
            scene.expect_note("partial", 1);
            scene.expect_note("not_json", 1);
            scene.wait();
            if *kill {
                scene.kill();
                scene.start();
            }
            // The container lives after all: its next record is one of its own.
            let line = scene.line("a");
            scene.append("0.log", cri("stdout", "F", &line));
            scene.expect("a", line.as_bytes());
            scene.finish();
        });
    });
}

/// Happens: A line of many mebibytes, or one that never ends.
/// Weir: Keeps the first `line_bytes_max` bytes, noted `truncated`, counts the rest as skipped; its neighbours and the memory bound hold.
/// Lost by: V#11657, V#16743, V#262; FB skips the file
#[test]
fn s26_a_very_long_line_is_cut_and_counted_within_memory() {
    let mut scene = Scene::of(Setup { source: ", format: text, line_bytes_max: 64KiB", more: "memory: 96MiB", ..Setup::default() });
    let size: u64 = if slow() { 1 << 30 } else { 64 << 20 };
    scene.append("a.log", "before\n");
    scene.expect("unassigned", "before");
    scene.start();
    scene.wait();
    let mut file = OpenOptions::new().append(true).open(scene.path("a.log")).expect("opened");
    let piece = vec![b'y'; 1 << 20];
    for _ in 0..size >> 20 {
        file.write_all(&piece).expect("written");
    }
    scene.append("b.log", "beside\n");
    scene.expect("unassigned", "beside");
    scene.wait(); // the line has no end yet
    file.write_all(b"\nafter\n").expect("written");
    scene.expect("unassigned", vec![b'y'; 64 << 10]);
    scene.expect("unassigned", "after");
    scene.expect_note("truncated", 1);
    scene.wait();
    let peak = scene.running().peak_bytes();
    scene.stop();
    let ledger = scene.check_order(false);
    assert_eq!(ledger.0["streams"]["skipped"]["line_too_long"], size - (64 << 10), "{}", ledger.0["streams"]);
    assert!(peak < 128 << 20, "{} MiB resident", peak >> 20);
}

#[test]
fn s26_a_long_line_is_read_on_after_a_kill_in_its_middle() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, source: ", format: text, line_bytes_max: 64KiB", ..Setup::default() });
        scene.append("a.log", "before\n");
        scene.append("a.log", vec![b'y'; 1 << 20]);
        scene.expect("unassigned", "before");
        scene.start();
        scene.wait();
        scene.kill();
        scene.append("a.log", vec![b'y'; 1 << 20]);
        scene.start();
        scene.wait();
        scene.stop();
        scene.append("a.log", b"\nafter\n");
        scene.expect("unassigned", vec![b'y'; 64 << 10]);
        scene.expect("unassigned", "after");
        scene.expect_note("truncated", 1);
        scene.start();
        let ledger = scene.finish();
        assert_eq!(ledger.0["streams"]["skipped"]["line_too_long"], (2 << 20) - (64 << 10), "{}", ledger.0["streams"]);
    });
}

/// Happens: A multi-byte character lies across two reads or at the size limit; bytes that are no UTF-8.
/// Weir: Bytes travel as they are; what is no UTF-8 is noted, the rest of the line is kept; a cut falls before a character, not into it.
/// Lost by: FB#5035, FB#2142, FB#6130
#[test]
fn s27_characters_across_reads_and_invalid_bytes() {
    let mut scene = Scene::new();
    scene.start();
    let mut text = Vec::new();
    let mut invalid = 0;
    for n in 0..3000 {
        let mut line = format!(
            "{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"a\",\"n\":{n},\"pad\":\"{}",
            ["é", "漢", "🦀", "x"][n % 4].repeat(n % 97)
        )
        .into_bytes();
        if n % 100 == 7 {
            line.extend(b"\xff\xfe\xc3\x28 and the rest");
            invalid += 1;
        }
        line.extend(b"\"}");
        scene.expect("a", line.clone());
        text.extend(line);
        text.push(b'\n');
    }
    scene.expect_note("invalid_utf8", invalid);
    for piece in text.chunks(4099) {
        scene.append("a.log", piece);
    }
    scene.finish();
}

#[test]
fn s27_a_cut_at_the_size_limit_falls_between_characters() {
    let mut scene = Scene::of(Setup { source: ", format: text, line_bytes_max: 1KiB", ..Setup::default() });
    for pad in 0..4 {
        let line = "x".repeat(pad) + &"漢".repeat(400);
        let cut = (0..=1024).rev().find(|at| line.is_char_boundary(*at)).expect("0 is one");
        scene.append("a.log", format!("{line}\n"));
        scene.expect("unassigned", &line.as_bytes()[..cut]);
    }
    scene.expect_note("truncated", 4);
    scene.start();
    scene.finish();
}

/// UTF-16 with its mark.
fn utf16(text: &str, big: bool) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

/// Happens: A file in UTF-16, or with a byte order mark.
/// Weir: Tells the encoding by the mark, or as configured; records come out as UTF-8, positions count the file's own bytes; the mark is framing.
/// Lost by: FB#7497, FB#7789
#[test]
fn s28_utf16_and_byte_order_marks() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        let record = |n: usize, tenant: &str| {
            format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"{tenant}\",\"n\":{n},\"pad\":\"é漢🦀 \u{100a}\u{0a0d}\"}}")
        };
        let mut files = Vec::new();
        for (tenant, kind) in [("le", 0), ("be", 1), ("bom", 2)] {
            let text: String = (0..200).map(|n| record(n, tenant) + if n % 2 == 0 { "\n" } else { "\r\n" }).collect();
            (0..200).for_each(|n| scene.expect(tenant, record(n, tenant).into_bytes()));
            files.push((
                tenant,
                match kind {
                    0 => utf16(&text, false),
                    1 => utf16(&text, true),
                    _ => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
                },
            ));
        }
        scene.start();
        // In odd pieces: a unit, a surrogate pair and a mark lie across writes, and across a kill.
        for round in 0..3 {
            for (tenant, bytes) in &files {
                let cut = |n: usize| if n == 3 { bytes.len() } else { (bytes.len() / 3 * n) | 1 };
                let from = if round == 0 { 0 } else { cut(round) };
                scene.append(&format!("{tenant}.log"), &bytes[from..from + 1]);
                scene.append(&format!("{tenant}.log"), &bytes[from + 1..cut(round + 1)]);
            }
            if round < 2 {
                scene.wait_ledger("some of it", |l| l.received() > 150 * (round as u64 + 1));
                if round == 0 {
                    scene.kill()
                } else {
                    scene.stop();
                }
                scene.start();
            }
        }
        scene.finish();
    });
}

/// Happens: CRLF, a lone CR, no newline at the end, NUL bytes within a line.
/// Weir: CR before LF is framing, any other CR and a NUL within a line belong to the record; a last line without newline waits, with `--once` it is a record noted `unterminated`.
/// Lost by: records with a stray CR, lost last lines
#[test]
fn s29_line_ends_of_all_kinds() {
    at_once(&[true, false], |once| {
        let mut scene = Scene::of(Setup { source: ", format: text", ..Setup::default() });
        scene.append("a.log", b"crlf\r\nlone\rcr\nnul\0inside\n\r\n\n  \nlast");
        for record in [&b"crlf"[..], b"lone\rcr", b"nul\0inside"] {
            scene.expect("unassigned", record);
        }
        if *once {
            scene.expect("unassigned", "last");
            scene.expect_note("unterminated", 1);
            scene.once();
            scene.check();
        } else {
            scene.start();
            scene.wait();
            scene.append("a.log", "\r"); // its LF comes later
            scene.append("a.log", "\n");
            scene.expect("unassigned", "last");
            scene.finish();
        }
    });
}

const JAVA: &str = ", format: text, multiline: { preset: java, age: 60s }";
const JAVA_SHORT: &str = ", format: text, multiline: { preset: java, age: 300ms }";

fn trace(n: usize) -> [String; 4] {
    [
        format!("2026-11-23 03:00:{:02},000 ERROR [main] Failed request {n}", n % 60),
        format!("java.lang.IllegalStateException: number {n}"),
        "\tat com.example.Worker.run(Worker.java:42)".to_string(),
        "Caused by: java.io.IOException: gone".to_string(),
    ]
}

/// Happens: A stack trace of many lines meets a rotation, a restart, a kill; other logs are written at the same time.
/// Weir: State is per file and output: one record with its newlines, whatever comes in between; flushed by time, by a drain only where it is complete.
/// Lost by: traces torn at every read, rotation and restart
#[test]
fn s30_a_stack_trace_over_rotation_restart_and_beside_other_logs() {
    with_both_hubs(|hub| {
        at_once(&["rotate", "stop", "kill", "rotate and kill"], |how| {
            let mut scene = Scene::of(Setup { hub, source: JAVA, ..Setup::default() });
            scene.start();
            let mut records = Vec::new();
            for n in 0..12 {
                let lines = trace(n);
                let (head, tail) = (lines[..2].join("\n") + "\n", lines[2..].join("\n") + "\n");
                scene.append("a.log", &head);
                scene.append("b.log", trace(1000 + n)[..3].join("\n") + "\n");
                if n % 4 == 3 {
                    // Both have records before this one that are complete.
                    scene.wait_ledger("the records before", |l| l.received() >= 2 * n as u64);
                    if how.contains("kill") {
                        scene.kill();
                    } else if *how == "stop" {
                        scene.stop();
                    }
                    if how.contains("rotate") {
                        scene.rename("a.log", &format!("a.log.{}", 20 - n)); // the higher the older
                    }
                    if *how != "rotate" {
                        scene.start();
                    }
                }
                scene.append("a.log", &tail);
                // As Fluent Bit's parser has it: a trace begins with the line that names the exception.
                records.extend([lines[0].clone(), lines[1..].join("\n")]);
            }
            // What ends the last ones.
            scene.append("a.log", trace(99)[0].clone() + "\n");
            scene.append("b.log", trace(99)[0].clone() + "\n");
            records.iter().for_each(|record| scene.expect("unassigned", record.as_bytes()));
            for n in 0..12 {
                let lines = trace(1000 + n);
                scene.expect("unassigned", lines[0].as_bytes());
                scene.expect("unassigned", lines[1..3].join("\n"));
            }
            scene.wait();
            scene.stop();
            // The last two are held: a restart keeps them, and `--once` ends them.
            for _ in 0..2 {
                scene.expect("unassigned", trace(99)[0].as_bytes());
            }
            scene.once();
            scene.check_order(false);
        });
    });
}

#[test]
fn s30_a_last_trace_is_flushed_by_time_and_once() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, source: JAVA_SHORT, ..Setup::default() });
        scene.append("a.log", trace(1).join("\n") + "\n");
        scene.expect("unassigned", trace(1)[0].as_bytes());
        scene.expect("unassigned", trace(1)[1..].join("\n"));
        scene.start();
        scene.wait();
        scene.kill();
        scene.start();
        scene.append("a.log", trace(2).join("\n") + "\n");
        scene.expect("unassigned", trace(2)[0].as_bytes());
        scene.expect("unassigned", trace(2)[1..].join("\n"));
        scene.finish();
    });
}

/// Happens: Many processes append to one file, some of them with several writes a line.
/// Weir: Takes the lines that the file holds, each once, in the file's order, however the writes came.
/// Lost by: shippers that take a write for a line
/// Limit: lines that writers mixed within the file are mixed
#[test]
fn s31_many_processes_append_to_one_file() {
    let mut scene = Scene::of(Setup { source: ", format: text", ..Setup::default() });
    scene.append("a.log", "");
    scene.start();
    let path = scene.path("a.log");
    let script = r#"i=0; while [ $i -lt 150 ]; do printf 'writer %s line %s of many\n' "$1" "$i"; printf 'half %s ' "$1"; printf 'and half %s\n' "$i"; i=$((i+1)); done"#;
    let writers: Vec<_> = (0..6)
        .map(|n| {
            let file = OpenOptions::new().append(true).open(&path).expect("opened");
            std::process::Command::new("sh").args(["-c", script, "sh", &n.to_string()]).stdout(file).spawn().expect("sh is everywhere")
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().expect("it ends").success());
    }
    for line in crate::harness::lines(&std::fs::read(&path).expect("readable")) {
        if !line.is_empty() {
            scene.expect("unassigned", line);
        }
    }
    assert!(scene.expected() >= 1700);
    scene.finish();
}

/// A writer at offsets of its own: the bytes before are there later than those behind.
#[test]
fn s31_a_hole_that_is_filled_later_is_waited_for() {
    let mut scene = Scene::of(Setup { source: ", format: text", ..Setup::default() });
    scene.append("a.log", "one\n");
    scene.start();
    scene.expect("unassigned", "one");
    scene.wait();
    let file = OpenOptions::new().write(true).open(scene.path("a.log")).expect("opened");
    file.write_all_at(b"ee\n", 6).expect("written"); // `thr` is missing at 4..
    let size = scene.size("a.log");
    wait_until("it was looked at", || scene.source()["files"][0]["size"] == size);
    file.write_all_at(b"th", 4).expect("written");
    // Either the whole line, or, if the hole was passed over by then, what was behind it: never the hole itself as a record.
    scene.wait_ledger("a second record", |l| l.received() == 2);
    scene.stop();
    let lines = crate::stores::archive_lines(&scene.place.data(), "files");
    assert!(lines.len() == 2 && !lines[1].contains(&0) && lines[1].ends_with(b"ee"), "{lines:?}");
    assert_eq!(scene.place.ledger().residual(), 0);
}
