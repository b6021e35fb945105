//! A mirror that is lost or damaged is made again from the user's repository, and the work goes on.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use testkit::Ran;

use crate::world::{DEADLINE, PROMPT, World};

const AGENT: &str = "command:sh -c 'echo 42 > answer.txt'";
const RUN: [&str; 7] = ["run", "--json", "--plan", "none", "--agent", AGENT, PROMPT];

/// Where a run is killed: before its plan, before its job, and in its gate.
const POINTS: [&str; 3] = [
    "request queued planning after 1",
    "request planning working after 1",
    "job running checking after 1",
];

fn killed(point: &str) -> World {
    let world = World::simple();
    let ran = world.start_with(&RUN, "SKEP_KILL_AT", point);
    let ran = ran.finish(DEADLINE);
    assert!(ran.status.signal().is_some(), "{point}: {ran:?}");
    world
}

#[test]
fn work_that_was_under_way_at_a_backup_goes_on_where_it_is_restored() {
    for point in POINTS {
        let world = killed(point);
        let backup = world.home.home().join("backup");
        let backup = backup.to_str().unwrap();
        world.skep(&["ledger", "backup", backup]).expect_code(0);
        let data = world.home.home().join("elsewhere");
        let there = ["--data", data.to_str().unwrap()];
        let skep = |args: &[&str]| world.skep(&[&there, args].concat());
        let made = skep(&["ledger", "restore", "--take-over", backup]).expect_code(0);
        assert!(made.stdout.contains("`skep resume`"), "{}", made.stdout);
        skep(&["resume"]).expect_code(0);
        assert_eq!(world.integrated("answer.txt"), "42\n", "{point}");
        skep(&["ledger", "check"]).expect_code(0);
    }
}

#[test]
fn nothing_lands_from_a_restored_backup_until_a_person_says_that_the_original_is_gone() {
    let world = killed("job checking delivered after 1");
    let backup = world.home.home().join("backup");
    let backup = backup.to_str().unwrap();
    world.skep(&["ledger", "backup", backup]).expect_code(0);
    let data = world.home.home().join("elsewhere");
    let there = ["--data", data.to_str().unwrap()];
    let skep = |args: &[&str]| world.skep(&[&there, args].concat());
    let made = skep(&["ledger", "restore", backup, "--json"]).expect_code(0);
    let made = made.json_lines().remove(0);
    assert_eq!((&made["open"], &made["waits"]), (&1.into(), &true.into()));

    // It can be looked at, and nothing of it goes on.
    let listed = skep(&["list", "--json"]).expect_code(0).json_lines();
    let request = listed[0]["requests"][0]["id"].as_str().unwrap().to_owned();
    skep(&["log", &request]).expect_code(0);
    let waits = "1 request had not ended when the backup was made";
    let list = skep(&["list"]).expect_code(0);
    assert!(list.stderr.contains(waits), "{}", list.stderr);
    assert_eq!(listed[0]["restored"]["open"], 1);
    let why = skep(&["why", &request]).expect_code(0).stdout;
    assert!(why.lines().nth(1).unwrap().contains(waits), "{why}");
    let doctor = skep(&["doctor"]).expect_code(4).stdout;
    assert!(doctor.contains(waits), "{doctor}");
    for work in [
        &["resume"][..],
        &["resume", &request],
        &["retry", &request],
        &["apply"],
        &["drop"],
        &RUN,
    ] {
        let refused = skep(work).expect_code(6);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("skep ledger take-over"), "{work:?}: {said}");
    }
    assert_eq!(world.repo.tip("skep/integration"), None);

    // The original lives, and lands it.
    world.skep(&["resume"]).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let landed = world.repo.tip("skep/integration");
    skep(&["resume"]).expect_code(6);
    assert_eq!(world.repo.tip("skep/integration"), landed);
    let taken = skep(&["ledger", "take-over", "--json"]).expect_code(0);
    assert_eq!(taken.json_lines()[0]["taken_over"], true);
    let again = skep(&["ledger", "take-over"]).expect_code(0);
    assert!(again.stdout.contains("nothing was to be done"));
    assert!(!skep(&["resume"]).stderr.contains("take-over"));
    assert_eq!(skep(&["list"]).expect_code(0).stderr, "");
    // Where its rows are lost, that is said as well.
    fs::write(data.join("ledger.db"), "").unwrap();
    let doctor = skep(&["doctor"]).expect_code(4).stdout;
    assert!(doctor.contains("ledger.db is missing or empty"), "{doctor}");
}

#[test]
fn work_goes_on_although_the_mirrors_were_removed() {
    for point in POINTS {
        let world = killed(point);
        fs::remove_dir_all(world.data().join("repositories")).unwrap();
        world.skep(&["resume"]).expect_code(0);
        assert_eq!(world.integrated("answer.txt"), "42\n", "{point}");
    }
}

#[test]
fn a_candidate_that_was_lost_is_named_with_what_does_it_again() {
    let world = killed("job checking delivered after 1");
    fs::remove_dir_all(world.data().join("repositories")).unwrap();
    let resumed = world.skep(&["resume"]);
    assert!(!resumed.status.success());
    let said = format!("{}{}", resumed.stdout, resumed.stderr);
    assert!(said.contains("is lost"), "{said}");
    assert!(said.contains("`skep retry`"), "{said}");
    world.skep(&["retry"]).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

#[test]
fn a_damaged_mirror_is_mended_by_what_is_run_next() {
    for point in POINTS {
        let world = killed(point);
        truncate(&world.data().join("repositories"), false);
        world.skep(&["resume"]).expect_code(0);
        assert_eq!(world.integrated("answer.txt"), "42\n", "{point}");
    }
    let world = World::simple();
    world.skep(&RUN).expect_code(0);
    truncate(&world.data().join("repositories"), false);
    let more = "command:sh -c 'echo more > more.txt'";
    let run = ["run", "--plan", "none", "--agent", more, "Another thing"];
    // The check wants the answer that is integrated and not at `HEAD`.
    world.repo.git(&["merge", "--quiet", "skep/integration"]);
    let ran: Ran = world.skep(&run).expect_code(0);
    assert_eq!(world.integrated("more.txt"), "more\n", "{ran:?}");
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

/// The second job wants what the first has made, and its request is killed in its gate.
const BUILDS_ON: (&str, &str) = ("after=['first']", "job running checking after 2");
/// The second job is by itself, and its request is killed when the first is integrated.
const BY_ITSELF: (&str, &str) = ("", "change merging integrated after 1");

/// A request of two jobs that is killed after the first was integrated.
fn killed_after_the_first((after, point): (&str, &str), is_checked_out: bool) -> World {
    let world = World::simple();
    if is_checked_out {
        // It is not moved then: what is integrated stays in the mirror.
        let branch = ["checkout", "--quiet", "-b", "skep/integration"];
        world.repo.git(&branch);
    }
    let agent = "command:sh -c 'test -e more.txt && cp answer.txt more.txt; \
                 echo 42 > answer.txt; touch more.txt'";
    let plan = format!(
        "[[job]]\nname='first'\nprompt='Mend it'\n[[job]]\nname='second'\nprompt='Copy it'\n{after}\n"
    );
    let plan = world.home.file("home/plan.toml", plan);
    let run = ["run", "--agent", agent, "--plan", plan.to_str().unwrap()];
    let ran = world.start_with(&run, "SKEP_KILL_AT", point);
    let ran = ran.finish(DEADLINE);
    assert!(ran.status.signal().is_some(), "{ran:?}");
    world
}

#[test]
fn a_job_finds_what_it_builds_on_although_the_mirrors_were_removed() {
    let world = killed_after_the_first(BUILDS_ON, false);
    fs::remove_dir_all(world.data().join("repositories")).unwrap();
    world.skep(&["resume"]).expect_code(0);
    assert_eq!(world.integrated("more.txt"), "42\n");
}

#[test]
fn a_request_whose_integrated_work_was_lost_says_so_and_a_retry_does_it_again() {
    type Lose = fn(&Path);
    let removed: Lose = |mirrors| fs::remove_dir_all(mirrors).unwrap();
    let damaged: Lose = |mirrors| truncate(mirrors, false);
    for (second, lose) in [
        (BUILDS_ON, removed),
        (BUILDS_ON, damaged),
        (BY_ITSELF, removed),
    ] {
        let world = killed_after_the_first(second, true);
        lose(&world.data().join("repositories"));
        let resumed = world.skep(&["resume"]);
        assert!(!resumed.status.success());
        let said = format!("{}{}", resumed.stdout, resumed.stderr);
        assert!(said.contains("is lost"), "{said}");
        assert!(said.contains("`skep retry`"), "{said}");
        assert_eq!(world.repo.read_at("skep/integration", "more.txt"), None);
        world.repo.checkout("main");
        world.skep(&["retry"]).expect_code(0);
        assert_eq!(world.integrated("answer.txt"), "42\n");
        // Whoever builds on the other one has copied its answer.
        let copied = if second == BUILDS_ON { "42\n" } else { "" };
        assert_eq!(world.integrated("more.txt"), copied);
    }
}

/// The person takes what is integrated as git users do, and the mirror is lost then.
fn merge_and_lose_the_mirrors(world: &World) {
    let branch = "skep/integration";
    world.repo.git(&["merge", "--quiet", branch]);
    world.repo.git(&["branch", "--quiet", "-D", branch]);
    fs::remove_dir_all(world.data().join("repositories")).unwrap();
}

#[test]
fn a_request_goes_on_after_its_work_was_merged_and_the_mirrors_were_removed() {
    let world = killed_after_the_first(BUILDS_ON, false);
    merge_and_lose_the_mirrors(&world);
    world.skep(&["resume"]).expect_code(0);
    assert_eq!(world.integrated("more.txt"), "42\n");
}

#[test]
fn a_retry_does_only_what_was_not_merged_although_the_mirrors_were_removed() {
    let world = World::simple();
    let plan = "[[job]]\nname='first'\nprompt='Mend it'\nagent='command:echo 42 > answer.txt'\n\
                [[job]]\nname='second'\nprompt='Wait'\nafter=['first']\n\
                agent='command:test -e go.txt && touch more.txt'\n";
    let plan = world.home.file("home/plan.toml", plan);
    let run = world.skep(&["run", "--plan", plan.to_str().unwrap()]);
    assert!(!run.status.success(), "{run:?}");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    merge_and_lose_the_mirrors(&world);
    world.repo.file("go.txt", "");
    world.repo.commit("Go");
    world.skep(&["retry"]).expect_code(0);
    assert_eq!(world.integrated("more.txt"), "");
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap();
    let shown = world.skep(&["show", id, "--json"]).expect_code(0);
    let shown = shown.json_lines().remove(0);
    let jobs = shown["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1, "{shown}");
    assert_eq!(jobs[0]["job"]["spec"]["name"], "second", "{shown}");
}

/// Cuts every object and pack below a directory to nothing.
fn truncate(directory: &Path, is_objects: bool) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let is_objects = is_objects || entry.file_name() == "objects";
        if entry.file_type().unwrap().is_dir() {
            truncate(&path, is_objects);
        } else if is_objects {
            // A file beside it in its place: the old one may be shared with a base.
            fs::remove_file(&path).unwrap();
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).open(&path).unwrap();
        }
    }
}

#[test]
fn a_mirror_that_git_takes_for_no_repository_any_more_is_made_one_again() {
    let world = World::simple();
    world.skep(&RUN).expect_code(0);
    // The check wants the answer that is integrated and not at `HEAD`.
    world.repo.git(&["merge", "--quiet", "skep/integration"]);
    let mut mirrors = fs::read_dir(world.data().join("repositories")).unwrap();
    let mirror = mirrors.next().unwrap().unwrap().path();
    type Break = fn(&Path);
    let ways: [(&str, Break); 6] = [
        ("HEAD", |path| fs::remove_file(path).unwrap()),
        ("HEAD", |path| fs::write(path, "").unwrap()),
        ("config", |path| fs::write(path, "\0nonsense").unwrap()),
        ("objects", |path| fs::remove_dir_all(path).unwrap()),
        ("refs", |path| fs::remove_dir_all(path).unwrap()),
        ("skep", |path| fs::remove_dir_all(path).unwrap()),
    ];
    for (number, (part, way)) in ways.iter().enumerate() {
        way(&mirror.join(part));
        let agent = format!("command:sh -c 'touch more-{number}.txt'");
        let run = ["run", "--plan", "none", "--agent", &agent, part];
        world.skep(&run).expect_code(0);
        assert_eq!(
            world.integrated(&format!("more-{number}.txt")),
            "",
            "{part}"
        );
    }
    world.skep(&["ledger", "check"]).expect_code(0);
}
