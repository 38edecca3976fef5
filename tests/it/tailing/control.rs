//! Time and control: scenarios 58 to 60.

use super::scene::{Scene, Setup, with_both_hubs};
use crate::harness::wait_until;
use rustix::process::Signal;
use std::time::{Duration, Instant, SystemTime};

/// Happens: Clocks jump: files from 1970 and from 2099, modification times that go backwards, records from any time.
/// Weir: No decision about reading rests on a clock: live files are never taken for old ones, and order among rotated files follows their names and identities where times are equal.
/// Lost by: rsyslog#1290; systemd#12042, #43805; syslog-ng#2836; `ignore_older` of many
#[test]
fn s58_modification_times_of_1970_and_2099() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        let day = Duration::from_secs(86_400);
        let times = [SystemTime::UNIX_EPOCH + day, SystemTime::UNIX_EPOCH + day * 365 * 129, SystemTime::UNIX_EPOCH + day * 365 * 50];
        let touch = |scene: &Scene, file: &str, n: usize| {
            let opened = std::fs::File::options().append(true).open(scene.path(file)).expect("opened");
            opened.set_modified(times[n % 3]).expect("it is ours");
        };
        for n in 0..6 {
            scene.put(&format!("{n}.log"), &format!("t{n}"), 20);
            touch(&scene, &format!("{n}.log"), n);
        }
        scene.start();
        scene.wait();
        for round in 1..4 {
            for n in 0..6 {
                let file = format!("{n}.log");
                scene.put(&file, &format!("t{n}"), 10);
                touch(&scene, &file, n + round);
                if round == 2 {
                    scene.rename(&file, &format!("{file}.1"));
                    scene.put(&file, &format!("t{n}"), 10);
                    touch(&scene, &file, n); // the new file may look older than the old one
                }
            }
            scene.wait();
            if round == 1 {
                scene.kill();
                scene.start();
            }
        }
        // Records of all times, and of none.
        let odd = "{\"ts\":\"1970-01-01T00:00:00Z\",\"tenant\":\"odd\"}\n{\"ts\":\"2099-12-31T23:59:59Z\",\"tenant\":\"odd\"}\n";
        scene.append("odd.log", odd);
        odd.lines().for_each(|line| scene.expect("odd", line));
        scene.expect_note("arrival_time", 1); // 1970 is no time of a record
        scene.finish();
    });
}

/// Happens: The configuration is changed under load: others lose, hang or crash in a reload.
/// Weir: SIGHUP opens archives anew and takes over changed steps, each record decided by one version; a file that changes more is refused whole, and takes effect by a restart, which goes on at the position of each file. Under load, without a loss.
/// Lost by: V#24125; FB#9354, FB#10670, FB#8457, FB#11183
/// Limit: only `steps`, `rates` and `memory` change without a restart
#[test]
fn s59_sighup_and_restarts_under_load() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        scene.put("a.log", "a", 500);
        scene.start();
        scene.wait();
        let pipeline = scene.place.path("pipeline.yaml");
        // Replaces the line that begins with this key.
        let change = |key: &str, line: String| {
            let text = std::fs::read_to_string(&pipeline).expect("readable");
            let text: String = text.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
            std::fs::write(pipeline.with_extension("next"), text + &line).expect("written");
            std::fs::rename(pipeline.with_extension("next"), &pipeline).expect("renamed");
        };
        for round in 0..6 {
            for n in 0..20 {
                scene.put("a.log", "a", 50);
                change("steps", format!("steps: [drop: {{ when: 'no_{round} == {n}' }}]\n"));
                scene.running().signal(Signal::HUP);
            }
            if round % 2 == 1 {
                // Another config each time: what was read stays read.
                change("labels", format!("labels: {{ round: \"{round}\" }}\n"));
                scene.stop();
                scene.put("a.log", "a", 50);
                scene.start();
            }
        }
        scene.finish();
    });
}

/// Happens: SIGTERM while a sink is down and the buffer part-full; a second SIGTERM; a container's grace of 30 s.
/// Weir: The first drains as far as it goes, the second ends at once; what was not delivered stays in the hub or is read again, and the next start delivers it, once.
/// Lost by: V#10398; a limit of 60 s against a grace of 30 s
#[test]
fn s60_sigterm_with_a_sink_down_a_second_one_and_a_new_start() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, sinks: ", out: { stdout: {} }", ..Setup::default() });
        scene.put("a.log", "a", 20_000);
        let blocked = scene.start_blocked();
        scene.wait_ledger("the hub is part-full", |l| l.received() > 0 && l.sink("out", "buffered") > 0);
        let mut running = scene.take();
        running.signal_answered(Signal::TERM);
        assert!(running.is_running(), "it had nothing to wait for");
        let since = Instant::now();
        running.signal(Signal::TERM);
        let status = running.wait();
        assert!(since.elapsed() < Duration::from_secs(10), "at once was {:?}", since.elapsed());
        assert_ne!(status.code(), Some(0), "what was not delivered is no success");
        drop(blocked);
        scene.put("a.log", "a", 10);
        let reader = scene.start_blocked().read();
        scene.wait_ledger("everything is delivered", |l| l.sink("out", "buffered") == 0);
        scene.finish();
        let (got, wanted) = (reader.join().expect("it reads"), scene.wanted("a"));
        assert!(wanted.ends_with(&got) && got.len() > 10, "standard output goes on in order: {} lines", got.len());
    });
}

#[test]
fn s60_a_drain_ends_by_itself_within_its_limit() {
    if !super::scene::slow() {
        return; // the limit is 60 s
    }
    let mut scene = Scene::of(Setup { sinks: ", out: { stdout: {} }", ..Setup::default() });
    scene.put("a.log", "a", 20_000);
    let blocked = scene.start_blocked();
    scene.wait_ledger("the hub is part-full", |l| l.received() > 0 && l.sink("out", "buffered") > 0);
    scene.running().signal(Signal::TERM);
    let since = Instant::now();
    while scene.running().is_running() {
        assert!(since.elapsed() < Duration::from_secs(75), "it drains for ever");
        std::thread::sleep(Duration::from_millis(100)); // this test measures time
    }
    drop(blocked);
    let mut ended = scene.take();
    assert_ne!(ended.wait().code(), Some(0), "what was not delivered is no success");
    let reader = scene.start_blocked().read();
    scene.finish();
    assert!(scene.wanted("a").ends_with(&reader.join().expect("it reads")));
}

/// A kill while the drain goes on is no worse than any other.
#[test]
fn s60_killed_while_it_drains() {
    with_both_hubs(|hub| {
        let mut scene = Scene::of(Setup { hub, ..Setup::default() });
        for _ in 0..5 {
            scene.put("a.log", "a", 5000);
            scene.start();
            scene.wait_ledger("it reads", |l| l.received() > 0);
            scene.running().signal(Signal::TERM);
            scene.running().signal(Signal::KILL);
            let mut ended = scene.take();
            ended.wait();
        }
        scene.start();
        scene.wait();
        wait_until("and the lake", || scene.place.ledger().sink("store", "buffered") == 0);
        scene.finish();
    });
}
