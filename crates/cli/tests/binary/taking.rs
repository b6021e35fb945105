//! What a person does after a run: look, take, throw away, try again, replay.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use testkit::models::{Dialect, Hold, Job, Script, Step};
use testkit::{Ran, leaks};

use crate::world::{self, DEADLINE, PROMPT, Told, World, before, mending, wrong_answer};

/// The one object that a command prints with `--json`.
fn object(ran: &Ran) -> Value {
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 1, "one object: {}", ran.stdout);
    lines[0].clone()
}

/// A repository and a plan of two jobs that both land, one commit each.
fn two_changes() -> World {
    let script = Script::new()
        .job(
            Job::on(PROMPT)
                .with_tools()
                .step(Step::shell("echo 42 > answer.txt"))
                .step(Step::say("The answer is 42.")),
        )
        .job(
            Job::on("Write a note")
                .with_tools()
                .step(Step::shell("echo new > note.txt"))
                .step(Step::say("The note is written.")),
        );
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    let plan = world.home.file(
        "home/plan.toml",
        format!(
            "[[job]]\nname = \"answer\"\nprompt = \"{PROMPT}\"\n\n\
             [[job]]\nname = \"note\"\nprompt = \"Write a note\"\nafter = [\"answer\"]\n"
        ),
    );
    world
        .skep(&["run", "--plan", plan.to_str().unwrap()])
        .expect_code(0);
    world
}

fn file(world: &World, name: &str) -> String {
    fs::read_to_string(world.repo.path().join(name)).unwrap_or_default()
}

#[test]
fn apply_merges_the_work_and_the_integration_branch_begins_anew() {
    let world = two_changes();
    let base = world.repo.head();
    let tip = world.repo.tip("skep/integration").unwrap();
    let applied = object(&world.skep(&["apply", "--json"]).expect_code(0));
    assert_eq!(applied["onto"], "main");
    assert_eq!(applied["before"], base.as_str());
    assert_eq!(applied["after"], tip.as_str(), "a fast-forward");
    assert_eq!(world.repo.head(), tip);
    assert_eq!(file(&world, "answer.txt"), "42\n");
    assert_eq!(file(&world, "note.txt"), "new\n");
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
    // Nothing is left to take.
    let again = world.skep(&["apply"]).expect_code(0);
    assert!(again.stdout.contains("already"), "{}", again.stdout);
    world.assert_nothing_left();
}

#[test]
fn apply_merges_with_commits_of_the_user_in_between() {
    let world = two_changes();
    world.repo.file("mine.txt", "mine\n");
    let mine = world.repo.commit("Mine");
    world.skep(&["apply", "--merge"]).expect_code(0);
    assert_eq!(world.repo.git(&["rev-parse", "HEAD^1"]), mine);
    assert_eq!(file(&world, "mine.txt"), "mine\n");
    assert_eq!(file(&world, "note.txt"), "new\n");
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn apply_squashes_all_into_one_commit() {
    let world = two_changes();
    let base = world.repo.head();
    world.skep(&["apply", "--squash"]).expect_code(0);
    assert_eq!(world.repo.git(&["rev-parse", "HEAD^"]), base);
    assert_eq!(file(&world, "answer.txt"), "42\n");
    assert_eq!(file(&world, "note.txt"), "new\n");
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn apply_cherry_picks_each_commit() {
    let world = two_changes();
    world.repo.file("mine.txt", "mine\n");
    let mine = world.repo.commit("Mine");
    world.skep(&["apply", "--cherry-pick"]).expect_code(0);
    assert_eq!(world.repo.git(&["rev-parse", "HEAD~2"]), mine);
    assert_eq!(world.repo.git(&["rev-list", "--merges", "HEAD"]), "");
    assert_eq!(file(&world, "answer.txt"), "42\n");
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn apply_never_touches_uncommitted_work() {
    let world = two_changes();
    world.repo.file("answer.txt", "40, I think\n");
    let was = before(&world.repo);
    for how in ["--merge", "--squash", "--cherry-pick"] {
        let refused = world.skep(&["apply", how]).expect_code(6);
        assert!(refused.stderr.contains("answer.txt"), "{}", refused.stderr);
        was.assert_same(&world.repo.snapshot());
    }
    // Work that is not in the way stays as it is.
    world.repo.git(&["checkout", "--quiet", "answer.txt"]);
    world.repo.file("other.txt", "mine\n");
    world.skep(&["apply"]).expect_code(0);
    assert_eq!(file(&world, "other.txt"), "mine\n");
    assert_eq!(world.repo.git(&["status", "--porcelain"]), " M other.txt");
}

/// A repository with uncommitted work of every kind, all of which the agent has seen and gone on with.
fn dirty() -> World {
    let repo = wrong_answer();
    repo.file("gone.txt", "x\n").file("gone-too.txt", "x\n");
    repo.commit("More");
    repo.file("other.txt", "mine\n");
    repo.file("staged.txt", "mine\n");
    repo.git(&["add", "staged.txt"]);
    repo.git(&["rm", "--quiet", "gone.txt"]);
    repo.remove("gone-too.txt");
    repo.file("untracked.txt", "mine\n");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(
                "test ! -e gone.txt && test ! -e gone-too.txt && echo 42 > answer.txt && \
                 for it in other staged untracked; do echo theirs >> $it.txt; done",
            ))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    world
        .skep(&["run", "--dirty", "--plan", "none", PROMPT])
        .expect_code(0);
    world
}

#[test]
fn apply_takes_the_result_over_the_uncommitted_work_that_the_request_took_along() {
    for how in ["--merge", "--squash", "--cherry-pick"] {
        let world = dirty();
        world.skep(&["apply", how]).expect_code(0);
        assert_eq!(world.repo.git(&["status", "--porcelain"]), "", "{how}");
        assert_eq!(file(&world, "answer.txt"), "42\n");
        for name in ["other.txt", "staged.txt", "untracked.txt"] {
            assert_eq!(file(&world, name), "mine\ntheirs\n", "{how} {name}");
        }
        for name in ["gone.txt", "gone-too.txt"] {
            assert!(!world.repo.path().join(name).exists(), "{how} {name}");
        }
    }
}

#[test]
fn apply_refuses_uncommitted_work_that_went_on_after_the_request_took_it_along() {
    let world = dirty();
    for name in ["other.txt", "staged.txt", "untracked.txt", "gone.txt"] {
        let whole = fs::read(world.repo.path().join(name)).ok();
        world.repo.file(name, "mine, and more\n");
        let was = before(&world.repo);
        let refused = world.skep(&["apply"]).expect_code(6);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("commit or stash"),
            "{}",
            refused.stderr
        );
        was.assert_same(&world.repo.snapshot());
        match whole {
            Some(whole) => world.repo.file(name, whole),
            None => world.repo.remove(name),
        };
    }
    world.skep(&["apply"]).expect_code(0);
    assert_eq!(world.repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn apply_refuses_work_that_changes_a_hook_of_the_user() {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(
                "echo 42 > answer.txt; echo 'echo pwned' >> .husky/pre-commit",
            ))
            .step(Step::say("The answer is 42.")),
    );
    let repo = wrong_answer();
    repo.executable(".husky/pre-commit", "#!/bin/sh\n");
    repo.commit("A hook");
    let world = World::new(Dialect::Chat, repo, script);
    world.run();
    world.repo.symlink(".git/linked", "../.husky");
    for place in [".husky", ".git/linked"] {
        world.repo.config("core.hooksPath", place);
        let was = before(&world.repo);
        let refused = world.skep(&["apply"]).expect_code(6);
        assert!(refused.stderr.contains(".husky"), "{}", refused.stderr);
        was.assert_same(&world.repo.snapshot());
    }
}

#[test]
fn apply_says_which_files_conflict_and_changes_nothing() {
    let world = two_changes();
    world.repo.file("answer.txt", "forty-two\n");
    world.repo.commit("Mine");
    let was = before(&world.repo);
    let refused = world.skep(&["apply"]).expect_code(6);
    assert!(refused.stderr.contains("answer.txt"), "{}", refused.stderr);
    was.assert_same(&world.repo.snapshot());
}

#[test]
fn a_change_that_was_dropped_can_still_be_taken() {
    let world = World::simple();
    let told = world.run();
    let tip = world.repo.tip("skep/integration").unwrap();
    let dropped = object(&world.skep(&["drop", "--json"]).expect_code(0));
    assert_eq!(dropped["branch"], "skep/integration");
    assert_eq!(dropped["was"], tip.as_str());
    assert_eq!(world.repo.tip("skep/integration"), None);
    let nothing = world.skep(&["drop"]).expect_code(5);
    assert!(nothing.stderr.contains("skep list"), "{}", nothing.stderr);
    world.skep(&["apply"]).expect_code(5);
    world.skep(&["apply", &told.change()]).expect_code(0);
    assert_eq!(file(&world, "answer.txt"), "42\n");
}

#[test]
fn what_was_done_can_be_looked_at_by_any_unique_beginning_of_an_id() {
    let world = World::simple();
    let nothing = world.skep(&["diff"]).expect_code(5);
    assert!(nothing.stderr.contains("skep run"), "{}", nothing.stderr);
    let told = world.run();
    let (request, job, attempt, change) =
        (told.request(), told.job(), told.attempt(), told.change());
    let short = &request[..request.len() - 2];

    let listed = object(&world.skep(&["list", "--json"]).expect_code(0));
    assert_eq!(listed["requests"][0]["id"], request.as_str());
    assert_eq!(listed["requests"][0]["state"], "done");
    let list = world.skep(&["list"]).expect_code(0);
    assert!(list.stdout.contains(&request) && list.stdout.contains("done"));

    let shown = object(&world.skep(&["show", short, "--json"]).expect_code(0));
    assert_eq!(shown["request"]["id"], request.as_str());
    assert_eq!(shown["jobs"][0]["job"]["id"], job.as_str());
    assert_eq!(
        shown["jobs"][0]["attempts"][0]["attempt"]["id"],
        attempt.as_str()
    );
    for id in [&job, &attempt, &change] {
        object(&world.skep(&["show", id, "--json"]).expect_code(0));
        let text = world.skep(&["show", id]).expect_code(0).stdout;
        assert!(text.contains(id.as_str()), "{text}");
    }
    let text = world.skep(&["show", short]).expect_code(0).stdout;
    assert!(text.contains("answer") && text.contains("passed"), "{text}");

    for id in [&request, &job, &attempt, &change] {
        let diff = object(&world.skep(&["diff", id, "--json"]).expect_code(0));
        assert_eq!(diff["files"][0]["path"], "answer.txt");
        let patch = world.skep(&["diff", id]).expect_code(0).stdout;
        assert!(patch.contains("-41\n+42\n"), "{patch}");
    }

    let newest = object(&world.skep(&["diff", "--json"]).expect_code(0));
    assert_eq!(newest["id"], request.as_str());

    let logged = world.skep(&["log", short, "--json"]).expect_code(0);
    assert_eq!(logged.json_lines(), told.events, "the same events");
    let text = world.skep(&["log", &attempt]).expect_code(0).stdout;
    assert!(text.contains("echo 42"), "{text}");
    world.assert_no_secret(&[&list, &logged]);
}

#[test]
fn an_id_that_is_unknown_or_means_several_things_is_said_with_what_to_do() {
    let world = World::simple();
    // More jobs than there are letters: two of them begin with the same one.
    let jobs: String = (0..40)
        .map(|n| format!("[[job]]\nname = \"job{n}\"\nprompt = \"{n}\"\n"))
        .collect();
    let plan = world.home.file("home/plan.toml", jobs);
    let plan = plan.to_str().unwrap();
    let ran = world.skep(&["run", "--json", "--agent", "command:true", "--plan", plan]);
    // An agent that does nothing has failed.
    let told = Told::of(ran.expect_code(1));
    let planned = told.all("planned").next().unwrap();
    let jobs = planned["jobs"].as_array().unwrap();
    let mut jobs: Vec<&str> = jobs.iter().map(|it| it["job"].as_str().unwrap()).collect();
    jobs.sort_unstable();
    let pair = jobs.windows(2).find(|it| it[0][..3] == it[1][..3]).unwrap();
    for command in ["show", "log", "diff", "cancel", "retry"] {
        let several = world.skep(&[command, &pair[0][..3]]).expect_code(5).stderr;
        assert!(several.contains("write more of it"), "{several}");
        let unknown = world
            .skep(&[command, "r-000000000000"])
            .expect_code(5)
            .stderr;
        assert!(unknown.contains("r-000000000000"), "{unknown}");
        assert!(unknown.contains("skep list"), "{unknown}");
    }
    let json = world
        .skep(&["show", "r-000000000000", "--json"])
        .expect_code(5);
    let error: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["error"]["exit"], "not_found");
    assert_eq!(json.stdout, "");
}

#[test]
fn the_events_of_a_run_are_objects_a_line_and_can_be_followed_from_elsewhere() {
    let hold = Hold::new();
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 42 > answer.txt").held_by(&hold))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Messages, wrong_answer(), script);
    let mut running = world.start(&["run", "--json", "--plan", "none", PROMPT]);
    let first = running.line(DEADLINE, |it| it.contains("request_submitted"));
    let first: Value = serde_json::from_str(&first).unwrap();
    let request = first["payload"]["request"].as_str().unwrap().to_owned();
    let mut following = world.start(&["log", "-f", "--json", &request]);
    following.line(DEADLINE, |it| it.contains("attempt_started"));
    hold.release();
    let told = Told::of(running.finish(DEADLINE).expect_code(0));
    let followed = following.finish(DEADLINE).expect_code(0).json_lines();
    let end = followed.last().unwrap();
    assert_eq!(end["payload"]["to"], "done", "{end}");
    assert_eq!(followed[..], told.events[..followed.len()]);
    let sequences: Vec<u64> = told
        .events
        .iter()
        .map(|it| it["sequence"].as_u64().unwrap())
        .collect();
    assert!(
        sequences.windows(2).all(|pair| pair[0] < pair[1]),
        "{sequences:?}"
    );
}

#[test]
fn a_request_is_cancelled_from_another_process() {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("sleep 1000"))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    let was = before(&world.repo);
    let mut running = world.start(&["run", "--json", "--plan", "none", PROMPT]);
    let pid = running.pid();
    running.line(DEADLINE, |it| it.contains("tool_call"));
    let listed = object(&world.skep(&["list", "--json"]).expect_code(0));
    let id = listed["requests"][0]["id"].as_str().unwrap();
    assert_eq!(listed["requests"][0]["state"], "working");
    let refused = world.skep(&["retry", id]).expect_code(6);
    assert!(
        refused.stderr.contains("cannot be tried again"),
        "{}",
        refused.stderr
    );
    let cancelled = object(&world.skep(&["cancel", id, "--json"]).expect_code(0));
    assert_eq!(cancelled["cancelled"], id);
    running.finish(DEADLINE).expect_code(130);
    world.assert_nothing_left();
    world::assert_no_cgroup_of(pid);
    was.assert_same(&world.repo.snapshot());
}

#[test]
fn a_request_that_failed_is_tried_again() {
    let script = Script::new().otherwise(Step::say("There is nothing to do."));
    let world = World::new(Dialect::Chat, wrong_answer(), script);
    world.model.set_script(
        Script::new().job(
            Job::on(PROMPT)
                .with_tools()
                .step(Step::shell("echo 43 > answer.txt"))
                .step(Step::say("The answer is 43."))
                .step(Step::say("I am sure."))
                .step(Step::say("Really.")),
        ),
    );
    let failed = Told::of(
        world
            .skep(&["run", "--json", "--plan", "none", PROMPT])
            .expect_code(1),
    );
    let shown = world.skep(&["show", &failed.request()]).expect_code(0);
    assert!(shown.stdout.contains("failed"), "{}", shown.stdout);
    assert_eq!(world.repo.tip("skep/integration"), None);
    world.model.set_script(mending());
    let retried = Told::of(
        world
            .skep(&["retry", "--json", &failed.request()])
            .expect_code(0),
    );
    assert_ne!(retried.request(), failed.request());
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let refused = world.skep(&["retry", &retried.request()]).expect_code(6);
    assert!(refused.stderr.contains("integrated"), "{}", refused.stderr);
}

#[test]
fn an_attempt_replays_twenty_times_without_a_model_and_with_the_same_tree() {
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("date +%N; echo 43 > answer.txt"))
            .step(Step::say("The answer is 43."))
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Messages, wrong_answer(), script);
    let told = world.run();
    let was = before(&world.repo);
    let calls = world.model.requests().len();
    // Offline: no provider is configured at all.
    let ran = world
        .skep(&["replay", &told.attempt(), "--times", "20", "--json"])
        .expect_code(0);
    let replayed = object(&ran);
    assert_eq!(replayed["times"], 20);
    assert_eq!(replayed["calls"], 4);
    assert_eq!(replayed["same_tree"], true);
    assert_eq!(world.model.requests().len(), calls, "no model is called");
    was.assert_same(&world.repo.snapshot());
    world.assert_nothing_left();
}

/// The files of blobs that hold a text.
fn blobs_holding(world: &World, text: &str) -> Vec<PathBuf> {
    leaks::paths_holding(&world.data().join("blobs"), text)
}

#[test]
fn a_recording_that_was_edited_is_refused_and_call_and_field_are_named() {
    let world = World::new(Dialect::Messages, wrong_answer(), mending());
    let attempt = world.run().attempt();
    let answers = blobs_holding(&world, "message_stop");
    let questions = blobs_holding(&world, PROMPT);
    assert_eq!(answers.len(), 2, "an answer for each call");
    assert!(questions.len() >= 2, "a question for each call");
    let replay = || world.skep(&["replay", &attempt]);
    let mut named = Vec::new();
    for (field, path, other) in [
        ("response", &answers[0], &answers[1]),
        ("response", &answers[1], &answers[0]),
        ("request", &questions[0], &answers[0]),
    ] {
        let whole = fs::read(path).unwrap();
        // Another content that can be read, under the same name.
        fs::copy(other, path).unwrap();
        let refused = replay().expect_code(7);
        assert!(refused.stderr.contains("call "), "{}", refused.stderr);
        assert!(refused.stderr.contains(field), "{}", refused.stderr);
        // One byte.
        let mut bytes = whole.clone();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, &bytes).unwrap();
        let refused = replay().expect_code(7);
        assert!(refused.stderr.contains(field), "{}", refused.stderr);
        // And none at all.
        fs::remove_file(path).unwrap();
        named.push(replay().expect_code(7).stderr);
        fs::write(path, &whole).unwrap();
    }
    assert!(named.iter().any(|it| it.contains("call 1")), "{named:?}");
    assert!(named.iter().any(|it| it.contains("call 2")), "{named:?}");
    replay().expect_code(0);
}
