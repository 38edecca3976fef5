//! Rotation and truncation: scenarios 1 to 15.
//!
//! The rotator is the test: it renames, copies, truncates and compresses as logrotate, kubelet and applications do, while the
//! program runs, stands still (`freeze`), is stopped or was killed.

use super::scene::{Scene, Setup, at_once, gzip, with_both_hubs};
use std::fs::OpenOptions;
use std::io::Write;

/// Every name of a log and of what was rotated away from it.
const ALL: &str = r#""$DIR/in/*.log*""#;
/// The log's own name only.
const ONE: &str = r#""$DIR/in/*.log""#;

fn of(hub: &'static str, include: &'static str) -> Scene {
    Scene::of(Setup { hub, include, ..Setup::default() })
}

/// Happens: A log is renamed and created anew; the agent restarts in the middle of it, while the writer still has the old file open.
/// Weir: Reads the renamed file to its end, found by its identity whatever its name, then the new one, in order.
/// Lost by: V#22954, V#23076, V#17305; FB#2110
#[test]
fn s01_rename_and_create_with_a_kill_in_the_middle() {
    with_both_hubs(|hub| {
        let mut scene = of(hub, ONE);
        scene.put("a.log", "a", 100);
        scene.start();
        scene.wait();
        scene.put("a.log", "a", 50);
        scene.rename("a.log", "a.log.1");
        scene.put("a.log.1", "a", 50);
        scene.kill();
        scene.put("a.log.1", "a", 50);
        scene.put("a.log", "a", 100);
        scene.start();
        scene.wait();
        scene.put("a.log", "a", 10);
        scene.finish();
    });
}

#[test]
fn s01_the_old_file_moves_to_another_folder() {
    let mut scene = of("journal: {}", ONE);
    std::fs::create_dir(scene.path("old")).expect("folder made");
    scene.put("a.log", "a", 100);
    scene.start();
    scene.wait();
    scene.put("a.log", "a", 50);
    scene.rename("a.log", "old/a.log.1");
    scene.put("a.log", "a", 50);
    scene.finish();
}

/// Happens: A chain of renames uses the names again: a to a.1, a.1 to a.2, again and again.
/// Weir: Knows files by what they are and not by their names; each is read once, oldest first.
/// Lost by: V#20512
#[test]
fn s02_a_chain_of_renames_reuses_names() {
    at_once(&[ALL, ONE], |include| {
        let mut scene = of("journal: {}", include);
        scene.put("a.log", "a", 40);
        scene.start();
        scene.wait();
        for n in 1..=4 {
            scene.put("a.log", "a", 40);
            for old in (1..n).rev() {
                scene.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
            }
            scene.rename("a.log", "a.log.1");
            scene.put("a.log", "a", 40);
            scene.wait();
        }
        scene.finish();
    });
}

/// Happens: Two rotations between two looks: the file in the middle never had the log's name while anybody looked.
/// Weir: Finds it beside the log by its name, also where no pattern matches that name, and reads it in its place.
/// Lost by: FB#1108; OCC#35137; fluentd#4693
#[test]
fn s03_two_rotations_while_nobody_looks() {
    at_once(&[(ALL, "journal: {}"), (ONE, "journal: {}"), (ONE, "memory: {}")], |(include, hub)| {
        let mut scene = of(hub, include);
        scene.put("a.log", "a", 40);
        scene.start();
        scene.wait();
        scene.freeze();
        scene.put("a.log", "a", 40);
        scene.rename("a.log", "a.log.1");
        scene.put("a.log", "a", 40);
        scene.rename("a.log.1", "a.log.2");
        scene.rename("a.log", "a.log.1");
        scene.put("a.log", "a", 40);
        scene.thaw();
        scene.finish();
    });
}

/// Happens: The log is rotated while the agent is down, once or several times, and old files may be compressed.
/// Weir: Goes on in the renamed file where it stopped, reads what was rotated in between, then the new file.
/// Lost by: FB#1330, FB#5024; V#22954
#[test]
fn s04_rotated_while_the_agent_is_down() {
    with_both_hubs(|hub| {
        at_once(&[1, 3], |rotations| {
            let mut scene = of(hub, ONE);
            scene.put("a.log", "a", 100);
            scene.start();
            scene.wait();
            scene.stop();
            for n in 1..=*rotations {
                scene.put("a.log", "a", 30);
                for old in (1..n).rev() {
                    scene.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
                }
                scene.rename("a.log", "a.log.1");
            }
            scene.put("a.log", "a", 30);
            scene.start();
            scene.finish();
        });
    });
}

/// What kubelet does: the log is renamed by time; the next time the earlier one is compressed first.
#[test]
fn s04_two_kubelet_rotations_while_the_agent_is_down() {
    at_once(&[ALL, ONE], |include| {
        let mut scene = of("journal: {}", include);
        scene.put("0.log", "a", 100);
        scene.start();
        scene.wait();
        scene.stop();
        scene.put("0.log", "a", 50);
        scene.rename("0.log", "0.log.20261123-030000");
        scene.put("0.log", "a", 50);
        scene.gzip("0.log.20261123-030000");
        scene.rename("0.log", "0.log.20261123-030010");
        scene.put("0.log", "a", 50);
        scene.start();
        scene.finish();
    });
}

/// Happens: copytruncate: the log is copied, then cut to nothing, and the writer goes on appending.
/// Weir: Sees the cut, reads what it had not read from the copy that lies beside the log, then the log from its start. The copy is nobody's new log.
/// Lost by: OCC#43693; BT#39731, BT#45300; K#64760; FB#375; VL#1720
/// Limit: what the writer appends between the copy and the cut is gone before anybody can read it; where there is no copy, the truncation is counted (`weir_source_truncations_total`) and told with the last known size
#[test]
fn s05_copytruncate_with_a_writer_that_goes_on() {
    with_both_hubs(|hub| {
        at_once(&[ALL, ONE], |include| {
            let mut scene = of(hub, include);
            scene.put("a.log", "a", 100);
            scene.start();
            for n in 1..=3 {
                scene.wait();
                scene.copy_truncate("a.log", &format!("a.log.{n}"));
                scene.put("a.log", "a", 60);
            }
            assert!(scene.finish().received() > 0);
        });
    });
}

#[test]
fn s05_what_was_not_read_before_the_cut_is_read_from_the_copy() {
    with_both_hubs(|hub| {
        at_once(&[ALL, ONE], |include| {
            let mut scene = of(hub, include);
            scene.put("a.log", "a", 100);
            scene.start();
            scene.wait();
            scene.freeze();
            scene.put("a.log", "a", 70);
            scene.copy_truncate("a.log", "a.log.1");
            scene.put("a.log", "a", 20);
            scene.thaw();
            scene.finish();
        });
    });
}

#[test]
fn s05_a_cut_without_a_copy_is_counted_and_told() {
    let mut scene = Scene::new();
    scene.put("a.log", "a", 100);
    scene.start();
    scene.wait();
    scene.truncate("a.log", 0);
    scene.put("a.log", "a", 20);
    scene.wait();
    assert_eq!(scene.metric("weir_source_truncations_total", ""), 1);
    let said = scene.stderr();
    assert!(said.contains("trunc") && said.contains("a.log"), "{said}");
    scene.finish();
}

/// Happens: copytruncate while the agent is down; the log has grown again, to less or to more than was read of it.
/// Weir: Knows by the bytes before its position that the log is another one, reads the rest of the old one from the copy and the new one whole.
/// Lost by: FB suite of April 2026 (PR 11691), two scenarios
#[test]
fn s06_copytruncate_while_the_agent_is_down() {
    with_both_hubs(|hub| {
        at_once(&[(ALL, 20), (ALL, 300), (ONE, 20), (ONE, 300)], |(include, regrown)| {
            let mut scene = of(hub, include);
            scene.put("a.log", "a", 100);
            scene.start();
            scene.wait();
            scene.stop();
            scene.put("a.log", "a", 50);
            scene.copy_truncate("a.log", "a.log.1");
            scene.put("a.log", "a", *regrown);
            scene.start();
            scene.finish();
        });
    });
}

/// Happens: A log is truncated and written anew from its start, as `> file` and many applications do.
/// Weir: Reads the new content once from its start, and never the old one again.
/// Lost by: V#23619; BT#38070; rsyslog#511
#[test]
fn s07_truncated_and_rewritten() {
    with_both_hubs(|hub| {
        let mut scene = of(hub, ONE);
        for round in 0..4 {
            let text = scene.text("a", 30 + 10 * (round % 2));
            scene.write("a.log", text); // O_TRUNC, the same inode
            if round == 0 {
                scene.start();
            }
            scene.wait();
        }
        scene.finish();
    });
}

/// Happens: A log is truncated and grows to the same or a larger size before anybody looks again.
/// Weir: Compares the bytes before its position: other bytes are another log, read from its start.
/// Lost by: all that compare sizes only
#[test]
fn s08_truncated_and_grown_to_the_same_or_a_larger_size_between_two_looks() {
    with_both_hubs(|hub| {
        at_once(&[(true, 1), (true, 2), (false, 1), (false, 2)], |(running, times)| {
            let mut scene = of(hub, ONE);
            // The same length for every line, so that the new content is as long as the old one to the byte.
            let lines = |scene: &mut Scene, from: usize, count: usize| {
                let all: Vec<String> = (from..from + count)
                    .map(|n| format!("{{\"tenant\":\"a\",\"id\":\"{n:06}\",\"ts\":\"2026-11-23T03:00:00Z\"}}"))
                    .collect();
                all.iter().for_each(|line| scene.expect("a", line.as_bytes()));
                all.join("\n") + "\n"
            };
            let text = lines(&mut scene, 0, 100);
            scene.write("a.log", &text);
            scene.start();
            scene.wait();
            if *running {
                scene.freeze()
            } else {
                scene.stop();
            }
            let new = lines(&mut scene, 100, 100 * times);
            assert_eq!(new.len(), text.len() * times);
            scene.write("a.log", new);
            if *running {
                scene.thaw()
            } else {
                scene.start()
            }
            scene.finish();
        });
    });
}

/// Happens: All logs begin with the same line, as a banner or a header does, also after a truncation; some are empty.
/// Weir: Files are told apart by device, inode and birth, contents by the bytes before the position; empty files are nobody.
/// Lost by: V#25079, V#5833, V#643; OCC PR 19766
#[test]
fn s09_the_same_first_line_everywhere() {
    with_both_hubs(|hub| {
        let mut scene = of(hub, ONE);
        let banner = |tenant: &str| {
            format!("{{\"ts\":\"2026-11-23T03:00:00Z\",\"tenant\":\"same\",\"banner\":\"{}\"}}\n", ["v1", tenant][0].repeat(300))
        };
        let head = |scene: &mut Scene| {
            let line = banner("");
            scene.expect("same", line.trim_end().as_bytes());
            line
        };
        for n in 0..5 {
            let text = head(&mut scene) + &scene.text(&format!("t{n}"), 20);
            scene.write(&format!("f{n}.log"), text);
            scene.write(&format!("empty{n}.log"), "");
        }
        scene.start();
        scene.wait();
        // Truncated, the same banner, and less, as much or more behind it than before.
        for (n, count) in [(0, 3), (1, 20), (2, 90)] {
            scene.freeze();
            let text = head(&mut scene) + &scene.text(&format!("t{n}"), count);
            scene.write(&format!("f{n}.log"), text);
            scene.thaw();
            scene.wait();
        }
        let text = head(&mut scene) + &scene.text("late", 5);
        scene.append("empty3.log", text);
        scene.finish();
    });
}

/// Happens: A file is shorter than a fingerprint.
/// Weir: A line is taken as soon as it has its newline, however short the file is.
/// Lost by: Filebeat waits for 1,024 bytes
#[test]
fn s10_a_file_of_one_short_line_is_read_at_once() {
    let mut scene = Scene::of(Setup { source: ", format: text", ..Setup::default() });
    scene.start();
    for n in 0..3 {
        scene.append(&format!("{n}.log"), "same\n"); // three files, one content
        scene.expect("unassigned", "same");
    }
    scene.wait();
    for byte in ["a", "b", "\n"] {
        scene.append("0.log", byte);
    }
    scene.expect("unassigned", "ab");
    scene.finish();
}

/// Happens: A rotated file is compressed: another inode, other bytes, the same records.
/// Weir: Knows it by its content: what was read is not read again, what was not is read on from the decompressed offset. Gzip and zstd.
/// Lost by: OCC#40523, OCC#46105; V#24295; AL#3193
#[test]
fn s11_a_compressed_rotated_file_is_not_a_new_log() {
    with_both_hubs(|hub| {
        at_once(&[(ALL, true), (ONE, true), (ALL, false), (ONE, false)], |(include, gz)| {
            let mut scene = of(hub, include);
            let pack = |scene: &Scene, file: &str| if *gz { scene.gzip(file) } else { scene.zstd(file) };
            scene.put("a.log", "a", 100);
            scene.start();
            scene.wait();
            scene.rename("a.log", "a.log.1");
            scene.put("a.log", "a", 50);
            scene.wait();
            pack(&scene, "a.log.1");
            scene.put("a.log", "a", 50);
            scene.wait();
            scene.stop();
            scene.put("a.log", "a", 50);
            scene.start();
            scene.finish();
        });
    });
}

#[test]
fn s11_reading_goes_on_inside_the_compressed_file() {
    with_both_hubs(|hub| {
        at_once(&[(ALL, true), (ONE, true), (ALL, false), (ONE, false)], |(include, gz)| {
            let mut scene = of(hub, include);
            scene.put("a.log", "a", 100);
            scene.start();
            scene.wait();
            scene.stop();
            scene.put("a.log", "a", 100);
            scene.rename("a.log", "a.log.1");
            if *gz {
                scene.gzip("a.log.1")
            } else {
                scene.zstd("a.log.1")
            }
            scene.put("a.log", "a", 50);
            scene.start();
            scene.finish();
        });
    });
}

#[test]
fn s11_a_compressed_file_that_was_never_read_plain_is_read_whole() {
    at_once(&[true, false], |once| {
        let mut scene = of("journal: {}", ALL);
        scene.put("a.log.2", "a", 1000);
        scene.gzip("a.log.2");
        scene.put("a.log.1", "a", 1000);
        scene.zstd("a.log.1");
        scene.put("a.log", "a", 10);
        if *once {
            scene.once();
            scene.once(); // and once only
            scene.check();
        } else {
            scene.start();
            scene.wait();
            scene.kill();
            scene.start();
            scene.finish();
        }
    });
}

/// Happens: A compressed file has several members, or is still being written.
/// Weir: Reads all members; waits at the end of what is there and goes on when more comes.
/// Lost by: V PR 25614; BT PR 47893
#[test]
fn s12_concatenated_members_are_all_read() {
    let mut scene = of("journal: {}", ALL);
    let mut gz = Vec::new();
    let mut zst = Vec::new();
    for _ in 0..5 {
        gz.extend(gzip(scene.text("gz", 100).as_bytes()));
        gz.extend(gzip(b"")); // an empty member is one
        zst.extend(zstd::encode_all(scene.text("zst", 100).as_bytes(), 3).expect("packed"));
    }
    // A line may lie in two members.
    let line = scene.text("gz", 1);
    gz.extend(gzip(&line.as_bytes()[..20]));
    gz.extend(gzip(&line.as_bytes()[20..]));
    scene.write("a.log.1.gz", gz);
    scene.write("b.log.1.zst", zst);
    scene.start();
    scene.finish();
}

#[test]
fn s12_a_gzip_file_that_is_still_being_written() {
    at_once(&[false, true], |kill| {
        let mut scene = of("journal: {}", ALL);
        let all = scene.text("a", 3000);
        let packed = gzip(all.as_bytes());
        assert!(packed.len() > 3000, "too small to be cut in pieces");
        scene.start();
        // Cut anywhere, also in the header and in the trailer.
        let cuts = [0, 5, 700, packed.len() / 2, packed.len() - 1000, packed.len() - 3, packed.len()];
        for (n, pair) in cuts.windows(2).enumerate() {
            scene.append("a.log.1.gz", &packed[pair[0]..pair[1]]);
            scene.put("beat.log", "beat", 1);
            scene.wait_ledger("the program goes on beside it", |l| l.kept_by_tenant().get("beat") == Some(&(n as u64 + 1)));
            if *kill && n % 2 == 1 {
                scene.kill();
                scene.start();
            }
        }
        scene.finish();
    });
}

#[test]
fn s12_a_gzip_file_that_ends_too_early_or_is_damaged_is_named_and_its_readable_part_is_taken() {
    let mut scene = of("journal: {}", ALL);
    let mut packed = gzip(scene.text("a", 2000).as_bytes());
    let end = packed.len();
    packed[end - 6] ^= 1; // the checksum
    scene.write("a.log.1.gz", &packed);
    scene.put("b.log", "b", 10);
    scene.start();
    scene.wait();
    scene.wait_refused("a.log.1.gz", "damaged");
    scene.finish();
}

/// Happens: The application writes files named by date and moves a symlink to the newest.
/// Weir: Follows the link: the old target is read to its end, then the new one.
/// Lost by: OCC#2946; FB suite
#[test]
fn s13_a_symlink_is_switched_to_the_next_file() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, include: r#""$DIR/in/current""#, ..Setup::default() });
        for day in 1..=4 {
            let file = format!("app-2026-11-{day:02}.txt");
            scene.put(&file, "a", 20);
            std::os::unix::fs::symlink(&file, scene.path("next")).expect("linked");
            scene.rename("next", "current"); // as `ln -sfn` and mv do it, in one step
            if day == 1 {
                scene.start();
            }
            scene.put(&file, "a", 20);
            scene.wait();
        }
        scene.finish();
    });
}

#[test]
fn s13_what_the_old_target_still_gets_is_read() {
    let mut scene = Scene::of(Setup { include: r#""$DIR/in/current""#, ..Setup::default() });
    scene.put("1.txt", "a", 20);
    std::os::unix::fs::symlink("1.txt", scene.path("current")).expect("linked");
    scene.start();
    scene.wait();
    scene.freeze();
    scene.put("1.txt", "a", 20); // not read yet when the link moves on
    scene.put("2.txt", "a", 20);
    std::os::unix::fs::symlink("2.txt", scene.path("next")).expect("linked");
    scene.rename("next", "current");
    scene.thaw();
    scene.finish();
}

/// Happens: A log is deleted and created anew under the same name.
/// Weir: The new file is another one, also if it got the inode of the old one; the old one is read to its end from its open descriptor.
/// Lost by: FB suite
#[test]
fn s14_deleted_and_created_under_the_same_name() {
    with_both_hubs(|hub| {
        let mut scene = of(hub, ONE);
        scene.put("a.log", "a", 50);
        scene.start();
        scene.wait();
        for round in 0..4 {
            if round % 2 == 1 {
                scene.freeze();
                scene.put("a.log", "a", 10); // written and deleted before anybody looked, but open
            }
            scene.remove("a.log");
            scene.put("a.log", "a", 50);
            if round % 2 == 1 {
                scene.thaw();
            }
            scene.wait();
        }
        scene.finish();
    });
}

/// Happens: A rotated file grows later, because its writer kept the descriptor.
/// Weir: Reads what comes, however late; it is watched as long as it is there.
/// Lost by: vlagent exits; FB `rotate_wait` ends too early
#[test]
fn s15_a_rotated_file_that_grows_later() {
    at_once(&[(ALL, false), (ONE, false), (ALL, true), (ONE, true)], |(include, restart)| {
        let mut scene = of("journal: {}", include);
        scene.put("a.log", "a", 50);
        scene.start();
        scene.wait();
        let mut writer = OpenOptions::new().append(true).open(scene.path("a.log")).expect("opened");
        scene.rename("a.log", "a.log.1");
        scene.put("a.log", "a", 50);
        scene.wait(); // the rotated file was read to its end, and the next one too
        if *restart {
            scene.stop();
            scene.start();
            scene.put("a.log", "a", 5);
            scene.wait();
        }
        for _ in 0..3 {
            writer.write_all(scene.text("late", 10).as_bytes()).expect("written");
            scene.put("a.log", "a", 10);
            scene.wait();
        }
        scene.finish();
    });
}
