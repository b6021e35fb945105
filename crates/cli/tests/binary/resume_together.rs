//! Requests that were interrupted go on at the same time.

use std::collections::BTreeSet;

use testkit::models::{Dialect, Fault, Hold, Job, Script, Step};
use testkit::{Ran, Repo};

use crate::resume::assert_whole;
use crate::world::{DEADLINE, World};

/// Requests whose process was killed while their agents waited for the model; it answers when the
/// hold is released. The first writes `one.txt`, the second `two.txt`.
fn two_interrupted(hold: &Hold, args: &[&str]) -> World {
    let repo = Repo::new();
    repo.file("answer.txt", "42\n");
    repo.commit("Nothing to check");
    let writes = |name: &str| {
        let job = Job::on(format!("Write {name}")).with_tools();
        job.step(Step::shell(format!("echo {name} > {name}.txt")).held_by(hold))
            .step(Step::say("It is written."))
    };
    let script = Script::new().job(writes("one")).job(writes("two"));
    let world = World::new(Dialect::Chat, repo, script);
    for (count, prompt) in [(1, "Write one"), (2, "Write two")] {
        let mut all = vec!["run", "--json", "--plan", "none", prompt];
        all.extend(args);
        let mut running = world.start(&all);
        world.model.wait_for_count(DEADLINE, count);
        running.kill();
    }
    world
}

/// The states that each request came to, in the order of the events.
fn ends(ran: &Ran) -> Vec<String> {
    let events = ran.json_lines();
    let ends = events.iter().filter(|it| it["type"] == "request_changed");
    ends.map(|it| it["payload"]["to"].as_str().unwrap().to_owned())
        .filter(|to| ["done", "failed", "cancelled"].contains(&to.as_str()))
        .collect()
}

#[test]
fn interrupted_requests_go_on_at_the_same_time_and_each_event_says_of_which_it_is() {
    let hold = Hold::new();
    let world = two_interrupted(&hold, &[]);
    let resumed = world.start(&["resume", "--json"]);
    // Both ask before either is answered.
    world.model.wait_for_count(DEADLINE, 4);
    hold.release();
    let ran = resumed.finish(DEADLINE).expect_code(0);
    assert_eq!(ends(&ran), ["done", "done"]);
    let events = ran.json_lines();
    let requests: BTreeSet<_> = events.iter().map(|it| it["request"].as_str()).collect();
    assert_eq!(requests.len(), 2);
    let mut published = events.iter().filter(|it| it["type"] == "published");
    assert!(
        published.all(|it| it["payload"]["refused"].is_null()),
        "{}",
        ran.stdout
    );
    assert!(!requests.contains(&None));
    let ids: Vec<_> = events.iter().map(|it| it["id"].to_string()).collect();
    let once: BTreeSet<_> = ids.iter().collect();
    assert_eq!(once.len(), ids.len(), "no event is told twice");
    assert_eq!(world.integrated("one.txt"), "one\n");
    assert_eq!(world.integrated("two.txt"), "two\n");
    assert_whole(&world);
}

#[test]
fn interrupted_requests_share_the_room_for_jobs() {
    let hold = Hold::new();
    let world = two_interrupted(&hold, &["--parallel", "1"]).env("SKEP_PARALLEL", "1");
    hold.release();
    let ran = world.skep(&["resume", "--json"]).expect_code(0);
    let events = ran.json_lines();
    // Both are of one session: what comes after the attempts were suspended is of the resumed ones.
    let sequence = |it: &serde_json::Value| it["sequence"].as_u64();
    let suspended = events
        .iter()
        .filter(|it| it["payload"]["to"] == "suspended");
    let resumed = suspended.filter_map(sequence).max();
    let mut since: Vec<_> = events.iter().filter(|it| sequence(it) > resumed).collect();
    since.sort_by_key(|it| sequence(it));
    let mut under_way = BTreeSet::new();
    for event in since.iter().filter(|it| it["type"] == "job_changed") {
        let job = event["payload"]["job"].to_string();
        match event["payload"]["to"].as_str().unwrap() {
            "leased" => {
                assert!(under_way.is_empty(), "two jobs at once: {event}");
                under_way.insert(job);
            }
            "delivered" => assert!(under_way.remove(&job)),
            _ => {}
        }
    }
    assert_eq!(ends(&ran), ["done", "done"]);
    assert_whole(&world);
}

#[test]
fn ctrl_c_cancels_all_requests_that_go_on_together() {
    let hold = Hold::new();
    let world = two_interrupted(&hold, &[]);
    let resumed = world.start(&["resume", "--json"]);
    world.model.wait_for_count(DEADLINE, 4);
    resumed.signal(rustix::process::Signal::INT);
    let ran = resumed.finish(DEADLINE).expect_code(130);
    assert_eq!(ends(&ran), ["cancelled", "cancelled"]);
    assert_whole(&world);
}

#[test]
fn what_came_of_each_request_is_told_under_its_name() {
    let hold = Hold::new();
    let world = two_interrupted(&hold, &[]);
    // The first is refused its key now, the second is not.
    let job = |name: &str| Job::on(format!("Write {name}")).with_tools();
    world.model.set_script(
        Script::new()
            .job(job("one").step(Step::fault(Fault::Status(403))))
            .job(
                job("two")
                    .step(Step::shell("echo two > two.txt"))
                    .step(Step::say("It is written.")),
            ),
    );
    let ran = world.skep(&["resume"]).expect_code(1);
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    for index in [0, 1] {
        let id = listed[0]["requests"][index]["id"].as_str().unwrap();
        let title = if index == 1 { "Write one" } else { "Write two" };
        assert!(ran.stdout.contains(&format!("{id}  {title}\n")), "{ran:?}");
        let progress = ran.stderr.lines().filter(|line| line.contains(id));
        assert!(progress.count() > 3, "{}", ran.stderr);
    }
    assert_eq!(world.integrated("two.txt"), "two\n");
    assert_whole(&world);
}
