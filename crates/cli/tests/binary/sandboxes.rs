//! `skep sandbox`: sealed workspaces that outlive a command.

use std::fs;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Ran, leaks};

use crate::world::{DEADLINE, World};

fn world() -> World {
    World::simple().env("SKEP", env!("CARGO_BIN_EXE_skep"))
}

/// Makes one; its id. A test that fails leaves none for long.
fn create(world: &World, more: &[&str]) -> String {
    let args = [&["sandbox", "create", "--for", "10m"], more].concat();
    let ran = world.skep(&args).expect_code(0);
    assert!(!ran.left_open, "its holder holds no output");
    ran.stdout.trim().to_owned()
}

fn exec(world: &World, id: &str, script: &str) -> Ran {
    world.skep(&["sandbox", "exec", id, "--", "sh", "-c", script])
}

fn json(world: &World, args: &[&str]) -> Value {
    let ran = world.skep(&[&["sandbox", "--json"], args].concat());
    ran.expect_code(0).json_lines().remove(0)
}

#[test]
fn a_sandbox_stays_until_it_is_destroyed_and_commands_in_it_are_as_on_the_host() {
    let world = world();
    let secret = world.home.root().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let id = create(&world, &["--name", "try"]);
    assert!(id.starts_with("x-"), "{id}");

    let ran = exec(
        &world,
        "try",
        "pwd; echo err >&2; echo 42 > answer.txt; exit 7",
    )
    .expect_code(7);
    assert!(ran.stdout.starts_with("/workspace/"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "err\n");
    let ran = exec(&world, &id, "cat answer.txt; kill -9 $$").expect_code(137);
    assert_eq!(ran.stdout, "42\n", "what was changed stays");
    exec(&world, &id[..6], &format!("test ! -e {}", secret.display())).expect_code(0);
    let missing = world.skep(&["sandbox", "exec", "try", "--", "no-such-program"]);
    assert!(missing.expect_code(127).stderr.contains("no-such-program"));
    let input = "head -c 300000 /dev/zero | \"$SKEP\" sandbox exec try -- wc -c";
    let ran = world
        .home
        .start("sh", ["-c", input], world.repo.path())
        .finish(DEADLINE);
    assert_eq!(ran.expect_code(0).stdout.trim(), "300000");
    let ran = world.skep(&[
        "sandbox",
        "exec",
        "-t",
        "try",
        "--",
        "sh",
        "-c",
        "tty; stty size",
    ]);
    let ran = ran.expect_code(0);
    assert!(
        ran.stdout.starts_with("/dev/pts/") && ran.stdout.ends_with("24 80\r\n"),
        "{}",
        ran.stdout
    );
    let timed = ["exec", "--timeout", "1s", "try", "--", "sleep", "1000"];
    let ran = world.skep(&[&["sandbox"], &timed[..]].concat());
    let said = ran.expect_code(124).stderr;
    assert!(said.contains("after 1.0s, as `--timeout` says"), "{said}");
    let shown = world.skep(&[&["sandbox", "--json"], &timed[..]].concat());
    let shown = shown.expect_code(124).json_lines().remove(0);
    assert_eq!(
        (&shown["ended_by"], &shown["exit"]["timed_out"]),
        (&"time".into(), &true.into())
    );

    let shown = world.skep(&[
        "sandbox",
        "exec",
        "--json",
        "try",
        "--",
        "sh",
        "-c",
        "echo out; exit 3",
    ]);
    let shown = shown.expect_code(3).json_lines().remove(0);
    assert_eq!(shown["id"], *id);
    assert_eq!(shown["exit"]["code"], 3);
    assert!(shown["ended_by"].is_null());
    assert_eq!(shown["stdout"], "out\n");

    let list = json(&world, &["list"]);
    assert_eq!(list["sandboxes"].as_array().unwrap().len(), 1);
    let one = &list["sandboxes"][0];
    assert_eq!(
        (&one["id"], &one["name"]),
        (&Value::from(id.as_str()), &Value::from("try"))
    );
    assert_eq!(one["state"]["alive"], true);
    assert_eq!(one["state"]["sealed"], true);
    let inspected = json(&world, &["inspect", "try"]);
    assert_eq!(inspected["state"]["files"][0]["path"], "answer.txt");
    let text = world
        .skep(&["sandbox", "inspect", &id])
        .expect_code(0)
        .stdout;
    assert!(
        text.contains("answer.txt") && text.contains("running"),
        "{text}"
    );

    // What is gone is gone: no other sandbox is taken for the one that was meant.
    world.skep(&["sandbox", "destroy", "tr"]).expect_code(5);
    let destroyed = json(&world, &["destroy", "try"]);
    assert_eq!(destroyed["destroyed"][0], *id);
    world.assert_nothing_left();
    exec(&world, "try", "true").expect_code(5);
    let none = world.skep(&["sandbox", "list"]).expect_code(0).stdout;
    assert!(none.contains("There are no sandboxes"), "{none}");
}

#[test]
fn what_a_command_printed_last_is_kept_for_whoever_asks_why_it_failed() {
    let world = world();
    create(&world, &["--name", "try"]);
    let last = || json(&world, &["inspect", "try"])["state"]["last"].clone();
    let begin = |more: &[&str], script: &str| {
        let args = [
            &["sandbox", "exec"],
            more,
            &["try", "--", "sh", "-c", script],
        ]
        .concat();
        world.skep(&args).expect_code(4)
    };
    let ran = begin(&[], "seq 60; echo why >&2; exit 4");
    assert!(ran.stdout.ends_with("60\n") && ran.stderr == "why\n");
    let kept = last();
    let lines = kept["output"].as_array().unwrap();
    assert_eq!(
        (lines.len(), &lines[48], &lines[49]),
        (50, &"60".into(), &"why".into())
    );
    assert_eq!(kept["exit"]["code"], 4);
    begin(
        &["--json"],
        "echo shown; echo 'cp: No space left on device' >&2; exit 4",
    );
    let kept = last();
    let lines = ["shown", "cp: No space left on device"];
    assert_eq!(
        (&kept["output"], &kept["trouble"]),
        (&lines.into(), &"disk_full".into())
    );
    // What is on a terminal is for the person alone.
    begin(&["-t"], "echo shown; exit 4");
    let none: [&str; 0] = [];
    assert_eq!(
        (&last()["output"], &last()["exit"]["code"]),
        (&none.into(), &4.into())
    );
    json(&world, &["destroy", "try"]);
    world.assert_nothing_left();
}

#[test]
fn what_a_sandbox_takes_on_disk_is_measured_when_it_is_looked_at() {
    let world = world();
    create(&world, &["--name", "try"]);
    let takes = || json(&world, &["inspect", "try"])["state"]["stats"]["disk_bytes"].as_u64();
    let before = takes().unwrap();
    exec(
        &world,
        "try",
        "head -c 3000000 /dev/urandom | tee file > ~/file",
    )
    .expect_code(0);
    let more = takes().unwrap() - before;
    assert!((6_000_000..7_000_000).contains(&more), "{before} {more}");
    let told = world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    assert!(told.stdout.contains("on disk"), "{}", told.stdout);
    json(&world, &["destroy", "try"]);
    world.assert_nothing_left();
}

#[test]
fn a_call_that_a_sandbox_refuses_is_named_where_a_command_fails_for_it() {
    let world = world();
    create(&world, &["--name", "try"]);
    let call = "unshare(CLONE_NEWUSER)";
    let said = exec(&world, "try", "unshare --user true")
        .expect_code(1)
        .stderr;
    assert!(said.contains("note:") && said.contains(call), "{said}");
    assert!(said.contains("--nested"), "what to do: {said}");
    let shown = world.skep(&[
        "sandbox", "exec", "--json", "try", "--", "unshare", "--user", "true",
    ]);
    let shown = shown.expect_code(1).json_lines().remove(0);
    assert_eq!(shown["exit"]["refused"]["name"], call);
    let last = |shown: &Value| shown["state"]["last"].clone();
    let found = last(&json(&world, &["inspect", "try"]));
    assert_eq!(found["trouble"], "refused_call");
    assert!(found["remedy"].as_str().unwrap().contains("--nested"));
    assert_eq!(found["refused"][0]["name"], call);
    let text = world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    assert!(text.stdout.contains("last failed"), "{}", text.stdout);
    assert!(text.stdout.contains(call), "{}", text.stdout);

    // What goes on without it and ends well has no trouble.
    let said = exec(&world, "try", "unshare --user true 2>/dev/null; true")
        .expect_code(0)
        .stderr;
    assert_eq!(said, "");
    let found = last(&json(&world, &["inspect", "try"]));
    assert!(found["trouble"].is_null() && found["remedy"].is_null());
    assert_eq!(found["refused"][0]["name"], call);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
}

#[test]
fn several_sandboxes_and_several_commands_work_at_once_and_do_not_see_each_other() {
    let world = world();
    let one = create(&world, &["--name", "one"]);
    create(&world, &["--name", "other"]);
    let taken = world
        .skep(&["sandbox", "create", "--name", "one"])
        .expect_code(6);
    assert!(taken.stderr.contains(&one), "{}", taken.stderr);
    let script = "until test -e go; do sleep 0.05; done; echo met";
    let waiting = world.start(&["sandbox", "exec", "one", "--", "sh", "-c", script]);
    exec(&world, "one", "touch go").expect_code(0);
    assert_eq!(waiting.finish(DEADLINE).expect_code(0).stdout, "met\n");
    exec(&world, "other", "test ! -e go").expect_code(0);
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_command_ends_with_the_client_that_started_it() {
    let world = world();
    create(&world, &["--name", "try"]);
    let script = "trap '' HUP TERM INT; echo ready; (setsid sleep 1000 &); sleep 1000";
    let mut client = world.start(&["sandbox", "exec", "try", "--", "sh", "-c", script]);
    client.line(DEADLINE, |it| it == "ready");
    client.kill();
    exec(
        &world,
        "try",
        "while grep -qsx sleep /proc/[0-9]*/comm; do :; done",
    )
    .expect_code(0);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_sandbox_ends_at_its_time() {
    let world = world();
    world
        .skep(&["sandbox", "create", "--for", "1s"])
        .expect_code(0);
    leaks::assert_none(&world.data());
    world.assert_nothing_left();
}

#[test]
fn what_cannot_be_made_is_refused_as_the_holder_says_and_leaves_nothing() {
    let world = world();
    let ran = world
        .skep(&["sandbox", "create", "--ref", "no-such"])
        .expect_code(5);
    assert!(ran.stderr.contains("no-such"), "{}", ran.stderr);
    let setup = "[setup]\ncommand = \"echo what is wrong; exit 3\"\n";
    world
        .repo
        .file("skep.toml", setup)
        .commit("A setup that fails");
    let ran = world.skep(&["sandbox", "create"]).expect_code(1);
    assert!(ran.stderr.contains("what is wrong"), "{}", ran.stderr);
    let object = world.skep(&["sandbox", "create", "--json"]).expect_code(1);
    assert!(
        object.stderr.contains("\"reason\":\"setup_failed\""),
        "{}",
        object.stderr
    );
    let id = create(&world, &["--no-setup"]);
    world.skep(&["sandbox", "destroy", &id]).expect_code(0);
    world
        .skep(&["sandbox", "create", "--name", "a b"])
        .expect_code(2);
    world
        .skep(&["sandbox", "create", "--for", "1y"])
        .expect_code(2);
    world.assert_nothing_left();
}

/// The process that holds it.
fn holder(world: &World, id: &str) -> Pid {
    let shown = json(world, &["inspect", id]);
    Pid::from_raw(i32::try_from(shown["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

#[test]
fn the_files_of_a_sandbox_are_taken_back_to_any_snapshot() {
    let world = world();
    let id = create(&world, &["--name", "try"]);
    exec(&world, "try", "echo 1 > one; echo note > ~/note").expect_code(0);
    let first = world.skep(&["sandbox", "snapshot", "try"]).expect_code(0);
    assert_eq!(first.stdout, "s1\n");
    exec(&world, "try", "rm one; echo 2 > two").expect_code(0);
    let second = json(&world, &["snapshot", "try", "--name", "two"]);
    assert_eq!(
        (&second["id"], &second["snapshot"]),
        (&Value::from(&*id), &"two".into())
    );
    assert_eq!(second["snapshots"], serde_json::json!(["s1", "two"]));
    exec(&world, "try", "echo 3 > two").expect_code(0);

    let shown = json(&world, &["inspect", "try"]);
    let kept = shown["state"]["snapshots"].as_array().unwrap();
    assert_eq!((kept.len(), &kept[0]["name"]), (2, &"s1".into()));
    assert!(kept[0]["bytes"].as_u64().unwrap() > 0);
    let text = world.skep(&["sandbox", "inspect", "try"]).expect_code(0);
    assert!(text.stdout.contains("two ("), "{}", text.stdout);

    let taken = world.skep(&["sandbox", "snapshot", "try", "--name", "two"]);
    taken.expect_code(6);
    world
        .skep(&["sandbox", "snapshot", "try", "--name", "a/b"])
        .expect_code(2);
    let absent = world.skep(&["sandbox", "undo", "try", "no-such"]);
    let absent = absent.expect_code(5);
    assert!(absent.stderr.contains("no-such"), "{}", absent.stderr);
    let script = "echo ready; until test -e go; do sleep 0.05; done";
    let mut running = world.start(&["sandbox", "exec", "try", "--", "sh", "-c", script]);
    running.line(DEADLINE, |it| it == "ready");
    let busy = world.skep(&["sandbox", "undo", "try", "s1"]).expect_code(6);
    assert!(busy.stderr.contains("end that first"), "{}", busy.stderr);
    exec(&world, "try", "touch go").expect_code(0);
    running.finish(DEADLINE).expect_code(0);

    world
        .skep(&["sandbox", "undo", "try", "two"])
        .expect_code(0);
    exec(&world, "try", "cat two; test ! -e one && cat ~/note").expect_code(0);
    let back = json(&world, &["undo", "try", "s1"]);
    assert_eq!(back["snapshots"], serde_json::json!(["s1"]));
    exec(&world, "try", "cat one; test ! -e two").expect_code(0);
    let start = json(&world, &["undo", "try", "--start"]);
    assert_eq!(start["snapshot"], Value::Null);
    let shown = json(&world, &["inspect", "try"]);
    assert_eq!(shown["state"]["files"], serde_json::json!([]));
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn forks_go_their_own_ways_and_outlive_their_source() {
    let world = world();
    let id = create(&world, &["--name", "try"]);
    exec(&world, "try", "echo 1 > one; echo note > ~/note").expect_code(0);
    world
        .skep(&["sandbox", "snapshot", "try", "--name", "early"])
        .expect_code(0);
    exec(&world, "try", "echo 2 > one").expect_code(0);
    let made = json(
        &world,
        &["fork", "try", "-n", "3", "--name", "idea", "--for", "10m"],
    );
    assert_eq!(
        (&made["id"], &made["snapshot"]),
        (&Value::from(&*id), &"s1".into())
    );
    let forks = made["forks"].as_array().unwrap();
    assert_eq!(forks.len(), 3);
    for (number, fork) in forks.iter().enumerate() {
        assert_eq!(fork["name"], format!("idea-{}", number + 1));
        assert_eq!(fork["fork_of"]["id"], Value::from(&*id));
        let own = fork["id"].as_str().unwrap();
        let script = format!("cat one; test ! -e ~/note; echo {number} > one");
        assert_eq!(exec(&world, own, &script).expect_code(0).stdout, "2\n");
        let shown = json(&world, &["inspect", own]);
        assert_eq!(shown["state"]["files"][0]["path"], "one");
    }
    // What runs in the source does not matter where the snapshot is there.
    let script = "echo ready; sleep 1000";
    let mut running = world.start(&["sandbox", "exec", "try", "--", "sh", "-c", script]);
    running.line(DEADLINE, |it| it == "ready");
    world
        .skep(&["sandbox", "fork", "try", "--for", "10m"])
        .expect_code(6);
    let at = ["sandbox", "fork", "try", "--at", "early", "--name", "early"];
    world
        .skep(&[&at[..], &["--for", "10m"]].concat())
        .expect_code(0);
    let absent = ["sandbox", "fork", "try", "--at", "no-such", "-n", "2"];
    world.skep(&absent).expect_code(5);
    let taken = world.skep(&["sandbox", "fork", "try", "--name", "early"]);
    taken.expect_code(6);

    kill_process(holder(&world, "try"), Signal::KILL).unwrap();
    running.finish(DEADLINE);
    assert_eq!(
        exec(&world, "early", "cat one").expect_code(0).stdout,
        "1\n"
    );
    assert_eq!(
        exec(&world, "idea-2", "cat one").expect_code(0).stdout,
        "1\n"
    );
    world
        .skep(&["sandbox", "undo", "idea-2", "s1"])
        .expect_code(0);
    assert_eq!(
        exec(&world, "idea-2", "cat one").expect_code(0).stdout,
        "2\n"
    );
    kill_process(holder(&world, "idea-1"), Signal::KILL).unwrap();
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    leaks::assert_none(&world.data());
    // Workspaces of killed holders are taken by the next who sweeps, and then what they shared.
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_fork_whose_source_or_holder_is_killed_on_the_way_leaves_nothing() {
    let world = world();
    create(&world, &["--name", "try"]);
    exec(&world, "try", "echo 1 > one").expect_code(0);
    world.skep(&["sandbox", "snapshot", "try"]).expect_code(0);
    let mut forking = world.start(&["sandbox", "fork", "try", "--at", "s1", "-n", "4"]);
    forking.kill();
    let source = holder(&world, "try");
    let forking = world.start(&["sandbox", "fork", "try", "--at", "s1", "-n", "4"]);
    kill_process(source, Signal::KILL).unwrap();
    // Before, after or within: whatever was made can be used or is gone.
    let ran = forking.finish(DEADLINE);
    let list = json(&world, &["list"]);
    for one in list["sandboxes"].as_array().unwrap() {
        if one["name"] == "try" {
            assert_eq!(one["status"], "stopped");
            continue;
        }
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        let id = one["id"].as_str().unwrap();
        assert_eq!(exec(&world, id, "cat one").expect_code(0).stdout, "1\n");
    }
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    leaks::assert_none(&world.data());
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn forks_whose_client_is_killed_before_it_says_that_they_stay_are_gone() {
    /// How often the client is to be stopped before all are ready.
    const TRIES: usize = 10;
    let world = world();
    create(&world, &["--name", "try"]);
    world.skep(&["sandbox", "snapshot", "try"]).expect_code(0);
    let place = world.data().join("run/sandboxes");
    let ready = || {
        let list = fs::read_dir(&place).unwrap().map(|it| it.unwrap().path());
        list.filter(|it| it.join("record.json").exists()).count()
    };
    let holders = || {
        let all = leaks::processes_of(&world.data());
        let is_one = |it: &&leaks::Process| it.command.contains(" sandbox hold ");
        all.iter().filter(is_one).count()
    };
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let end = Instant::now() + DEADLINE;
        while !holds() {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    };
    let fork = ["sandbox", "fork", "try", "--at", "s1", "-n", "3"];
    let fork = [&fork[..], &["--for", "10m"]].concat();
    let is_tried = (0..TRIES).any(|_| {
        let mut forking = world.start(&fork);
        until("three are started", &|| holders() == 4);
        forking.signal(Signal::STOP);
        // As long as one of them is not ready, nothing was said to any.
        if !forking.stops_within(DEADLINE) || ready() == 4 {
            forking.signal_group(Signal::CONT);
            forking.finish(DEADLINE).expect_code(0);
            let list = json(&world, &["list"]);
            for one in list["sandboxes"].as_array().unwrap() {
                if one["name"].is_null() {
                    let id = one["id"].as_str().unwrap();
                    world.skep(&["sandbox", "destroy", id]).expect_code(0);
                }
            }
            return false;
        }
        until("all are ready", &|| ready() == 4);
        forking.kill();
        until("all are gone", &|| ready() == 1 && holders() == 1);
        true
    });
    assert!(is_tried, "all were ready before the client was stopped");
    let list = json(&world, &["list"]);
    assert_eq!(list["sandboxes"].as_array().unwrap().len(), 1);
    exec(&world, "try", "true").expect_code(0);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    leaks::assert_none(&world.data());
    world.skep(&["gc"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_client_that_is_told_to_end_lets_its_command_clear_up() {
    let world = world();
    create(&world, &["--name", "try"]);
    let clears = "trap 'echo clears up; echo done > NAME; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    for (signal, code, name) in [
        (Signal::TERM, 143, "terminated"),
        (Signal::HUP, 129, "hung_up"),
        (Signal::QUIT, 143, "quit"),
    ] {
        let script = clears.replace("NAME", name);
        let mut client = world.start(&["sandbox", "exec", "try", "--", "sh", "-c", &script]);
        client.line(DEADLINE, |it| it == "ready");
        client.signal(signal);
        let ran = client.finish(DEADLINE).expect_code(code);
        assert!(ran.stdout.contains("clears up\n"), "{}", ran.stdout);
        assert_eq!(exec(&world, "try", &format!("cat {name}")).stdout, "done\n");
    }
    // Also where the program shows nothing before the end.
    let script = clears
        .replace("NAME", "kept")
        .replace("echo ready", "touch up");
    let args = [
        "sandbox", "--json", "exec", "try", "--", "sh", "-c", &script,
    ];
    let client = world.start(&args);
    exec(&world, "try", "until test -e up; do sleep 0.05; done").expect_code(0);
    client.signal(Signal::TERM);
    client.finish(DEADLINE).expect_code(143);
    assert_eq!(exec(&world, "try", "cat kept").stdout, "done\n");
    // What does not end is killed two seconds later.
    let stays = "trap '' TERM; echo ready; (setsid sleep 1000 &); sleep 1000";
    let mut client = world.start(&["sandbox", "exec", "try", "--", "sh", "-c", stays]);
    client.line(DEADLINE, |it| it == "ready");
    let told = Instant::now();
    client.signal(Signal::TERM);
    client.finish(DEADLINE).expect_code(143);
    assert!(told.elapsed().as_secs() >= 2, "{:?}", told.elapsed());
    exec(&world, "try", "! grep -qsx sleep /proc/[0-9]*/comm").expect_code(0);
    world.skep(&["sandbox", "destroy", "try"]).expect_code(0);
    world.assert_nothing_left();
}
