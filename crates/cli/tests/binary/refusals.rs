//! What cannot be done is said with what to do, by the right code, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::models::{Dialect, Fault, Script, Step};
use testkit::{Home, Ran, Repo, Started};

use crate::world::{DEADLINE, PROMPT, World, before, mending, wrong_answer};

const RUN: [&str; 4] = ["run", "--plan", "none", PROMPT];

/// Asserts the code, that standard error holds each of these words, and that a hint or the
/// message itself says what to do.
#[track_caller]
fn says(ran: Ran, code: i32, words: &[&str]) -> Ran {
    let ran = ran.expect_code(code);
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` in:\n{}", ran.stderr);
    }
    assert!(
        !ran.stderr.contains("panicked") && !ran.stderr.contains("SourceError"),
        "{}",
        ran.stderr
    );
    ran
}

/// The repository is as it was, and the run is refused like this.
#[track_caller]
fn refuses(world: &World, args: &[&str], code: i32, words: &[&str]) -> Ran {
    let was = before(&world.repo);
    let ran = says(world.skep(args), code, words);
    was.assert_same(&world.repo.snapshot());
    world.assert_no_secret(&[&ran]);
    ran
}

fn with_policy(text: &str) -> World {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").file("skep.toml", text);
    repo.commit("A policy");
    World::new(Dialect::Chat, repo, mending())
}

// docs/bad-input.md: A path that does not exist
#[test]
fn a_path_that_does_not_exist_is_named_by_every_command_that_takes_one() {
    let world = World::simple();
    let (missing, file) = ("no/such/place", "answer.txt");
    for path in [missing, file] {
        for args in [
            &["limit", "--repository", path, "2"][..],
            &["ledger", "restore", path],
            &["shell", "--also", path, "--", "true"],
            &["sandbox", "create", "--with", path],
            &["run", "--with", path, "mend it"],
        ] {
            refuses(&world, args, 2, &["there is no directory", path]);
        }
    }
}

// docs/bad-input.md: Not a repository
#[test]
fn a_directory_that_is_no_repository_is_refused() {
    let world = World::simple();
    let dir = world.home.home();
    let ran = says(
        world.skep_in(&dir, &RUN),
        4,
        &["not in a git repository", "git init"],
    );
    assert_eq!(ran.stdout, "");
    says(
        world.skep_in(&dir, &["apply"]),
        4,
        &["not in a git repository"],
    );
    says(
        world.skep_in(&dir, &["init"]),
        4,
        &["not in a git repository"],
    );
    assert_eq!(crate::world::entries(&dir), Vec::<String>::new());
}

// docs/bad-input.md: A path that does not exist
#[test]
fn a_directory_that_does_not_exist_is_named() {
    let world = World::simple();
    for args in [
        &["-C", "nowhere", "list"][..],
        &["-C", "nowhere", "run", PROMPT],
    ] {
        says(world.skep(args), 2, &["nowhere", "there is no directory"]);
    }
    says(
        world.skep(&["-C", "answer.txt", "list"]),
        2,
        &["answer.txt"],
    );
}

// docs/bad-input.md: A bare repository
#[test]
fn a_bare_repository_is_refused() {
    let world = World::simple();
    let bare = world.home.home().join("bare.git");
    world
        .repo
        .git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    says(world.skep_in(&bare, &RUN), 4, &["bare", "clone"]);
}

// docs/bad-input.md: An empty repository
// docs/bad-input.md: A repository without a commit
#[test]
fn a_repository_without_a_commit_is_refused() {
    let (empty, uncommitted) = (Repo::new(), Repo::new());
    uncommitted.file("answer.txt", "41\n");
    for repo in [empty, uncommitted] {
        let world = World::new(Dialect::Chat, repo, mending());
        let was = world.repo.snapshot();
        says(world.skep(&RUN), 4, &["no commit", "git commit"]);
        was.assert_same(&world.repo.snapshot());
    }
}

// docs/bad-input.md: No model
#[test]
fn without_a_model_a_run_says_which_variables_to_set() {
    let world = World::simple()
        .env("OPENAI_API_KEY", "")
        .env("ANTHROPIC_API_KEY", "");
    refuses(
        &world,
        &RUN,
        4,
        &["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "skep demo"],
    );
    let list = world.skep(&["list"]).expect_code(0);
    assert!(list.stdout.contains("no requests"), "{}", list.stdout);
}

// docs/bad-input.md: A provider that is not configured
#[test]
fn a_provider_that_is_not_there_is_named_with_those_that_are() {
    let world = World::simple();
    let args = ["run", "--model", "nobody/gpt", PROMPT];
    refuses(&world, &args, 2, &["nobody"]);
}

// docs/bad-input.md: A model that cannot be reached
#[test]
fn a_model_that_cannot_be_reached_is_a_failure_that_names_the_address() {
    // A port that was just free, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let world = World::simple().env("OPENAI_BASE_URL", format!("http://{address}/v1"));
    let began = Instant::now();
    refuses(&world, &RUN, 1, &[&address.to_string()]);
    assert!(began.elapsed() < Duration::from_secs(60));
    world.assert_nothing_left();
}

fn misbehaving(dialect: Dialect, fault: Fault) -> World {
    let script = Script::new().otherwise(Step::fault(fault));
    World::new(dialect, wrong_answer(), script)
}

// docs/bad-input.md: A model that answers 401
#[test]
fn a_key_that_is_refused_is_said_and_never_shown() {
    for dialect in [Dialect::Chat, Dialect::Messages] {
        let world = misbehaving(dialect, Fault::Status(401));
        refuses(&world, &RUN, 1, &["401", "key"]);
        assert_eq!(
            world.model.conversations().len(),
            1,
            "it is not tried again"
        );
    }
}

// docs/bad-input.md: A model that answers 404
#[test]
fn a_model_that_does_not_exist_is_named() {
    let world = misbehaving(Dialect::Chat, Fault::Status(404));
    let args = ["run", "--plan", "none", "--model", "no-such-model", PROMPT];
    refuses(&world, &args, 1, &["404", "no-such-model"]);
    assert_eq!(
        world.model.conversations().len(),
        1,
        "it is not tried again"
    );
}

// docs/bad-input.md: A model that answers 429
#[test]
fn a_rate_limit_is_waited_for_and_without_a_quota_the_job_sleeps_until_there_is_one() {
    let script = Script::new().job(
        testkit::models::Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 42 > answer.txt").after_fault(Fault::RateLimited(1)))
            .step(Step::say("The answer is 42.")),
    );
    let world = World::new(Dialect::Messages, wrong_answer(), script);
    world.run();
    assert_eq!(world.integrated("answer.txt"), "42\n");

    let world = misbehaving(Dialect::Messages, Fault::RateLimited(86_400));
    let mut run = vec!["run", "--json"];
    run.extend(&RUN[1..]);
    let mut running = world.start(&run);
    running.line(DEADLINE, |line| line.contains("\"to\":\"parked\""));
    let calls = world.model.requests().len();
    let why = world.skep(&["why"]).expect_code(0).stdout;
    assert!(
        why.contains("sleeps for another 2") && why.contains("begins by itself"),
        "{why}"
    );
    let listed = world.skep(&["list", "--json"]).expect_code(0).json_lines();
    let id = listed[0]["requests"][0]["id"].as_str().unwrap();
    world.skep(&["cancel", id]).expect_code(0);
    running.finish(DEADLINE).expect_code(130);
    assert_eq!(world.model.requests().len(), calls, "it is not asked again");
    world.assert_nothing_left();
}

// docs/bad-input.md: A model that answers with HTML
#[test]
fn a_web_page_instead_of_an_answer_is_said() {
    let world = misbehaving(Dialect::Chat, Fault::Html);
    let ran = refuses(&world, &RUN, 1, &["text/html"]);
    assert!(!ran.stderr.contains("<html"), "{}", ran.stderr);
}

// docs/bad-input.md: A malformed `skep.toml`
#[test]
fn an_unknown_key_of_the_policy_is_named_with_its_line_and_the_nearest_name() {
    let world = with_policy("[[check]]\nname = \"a\"\ncomand = \"true\"\n");
    refuses(
        &world,
        &RUN,
        2,
        &["skep.toml", "line 3", "comand", "command"],
    );
    let world = with_policy("# fine\n[integraton]\nbranch = \"x\"\n");
    refuses(&world, &RUN, 2, &["line 2", "integraton", "integration"]);
}

// docs/bad-input.md: A malformed `skep.toml`
#[test]
fn a_policy_that_is_no_toml_or_makes_no_sense_is_refused_with_its_line() {
    let world = with_policy("[[check]]\nname = \n");
    refuses(&world, &RUN, 2, &["skep.toml", "line 2"]);
    let world = with_policy("[[check]]\nname = \"a\"\ncommand = \"true\"\ntimeout = \"soon\"\n");
    refuses(&world, &RUN, 2, &["skep.toml", "soon"]);
}

// docs/bad-input.md: A malformed `skep.toml` that is not committed
#[test]
fn only_the_policy_at_the_base_commit_counts() {
    let world = World::simple();
    world.repo.file("skep.toml", "nonsense");
    world.skep(&RUN).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

// docs/bad-input.md: A malformed plan
#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_with_the_reason() {
    let world = World::simple();
    // Cut, it would be a plan.
    let job = "[[job]]\nname = \"a\"\nprompt = \"x\"\n";
    let too_long = format!("{job}{}", "# more\n".repeat(300_000));
    for (text, words) in [
        ("[[job]]\nname = \"a\"\npromt = \"x\"\n", &["promt"][..]),
        ("job = []\n", &["no job"]),
        (
            "[[job]]\nname = \"a\"\nprompt = \"x\"\nafter = [\"b\"]\n",
            &["`b`"],
        ),
        (
            "[[job]]\nname = \"a\"\nprompt = \"x\"\nafter = [\"b\"]\n\
             [[job]]\nname = \"b\"\nprompt = \"x\"\nafter = [\"a\"]\n",
            &["a", "b"],
        ),
        ("this is no plan", &["line 1"]),
        (&too_long, &["2097152 bytes"]),
    ] {
        let plan = world.home.file("home/plan.toml", text);
        let plan = plan.to_str().unwrap();
        let mut words = words.to_vec();
        words.push("plan.toml");
        refuses(&world, &["run", "--plan", plan], 2, &words);
    }
    let plan = world.home.file("home/plan.toml", b"# \xff\n");
    refuses(
        &world,
        &["run", "--plan", plan.to_str().unwrap()],
        2,
        &["plan.toml", "UTF-8"],
    );
    refuses(
        &world,
        &["run", "--plan", "nowhere.toml"],
        2,
        &["nowhere.toml"],
    );
}

// docs/bad-input.md: An empty prompt
#[test]
fn an_empty_prompt_is_refused() {
    let world = World::simple();
    for prompt in ["", " \n"] {
        refuses(&world, &["run", prompt], 2, &["empty", "skep run"]);
    }
    refuses(&world, &["run"], 2, &["PROMPT"]);
}

// docs/bad-input.md: A prompt of 10 MB
#[test]
fn a_prompt_of_ten_megabytes_is_refused_and_not_cut() {
    let world = World::simple();
    let was = before(&world.repo);
    let long = world
        .home
        .file("home/long", "do it. ".repeat((10 << 20) / 7));
    let mut noise = fs::read(&long).unwrap();
    noise.truncate(1000);
    noise.push(0xff);
    let noise = world.home.file("home/noise", noise);
    for (input, words) in [(long, "2097152 bytes"), (noise, "UTF-8")] {
        let mut command = world.home.command("sh");
        command
            .args(["-c", "exec \"$1\" run --plan none - < \"$2\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_skep"))
            .arg(input)
            .current_dir(world.repo.path());
        says(Started::spawn(command).finish(DEADLINE), 2, &[words]);
    }
    was.assert_same(&world.repo.snapshot());
    assert_eq!(world.model.requests().len(), 0);
}

// docs/bad-input.md: A budget that is too small
#[test]
fn a_budget_that_is_too_small_ends_the_request_before_it_is_spent() {
    let world = World::simple();
    let args = ["run", "--plan", "none", "--budget", "10", PROMPT];
    refuses(&world, &args, 1, &["budget"]);
    assert_eq!(world.model.conversations().len(), 0, "nothing was spent");
    refuses(
        &world,
        &["run", "--budget", "a lot", PROMPT],
        2,
        &["a lot", "200k"],
    );
}

// docs/bad-input.md: An agent that is not known
#[test]
fn an_agent_that_is_not_known_is_refused_with_those_that_are() {
    let world = World::simple();
    let args = ["run", "--agent", "clod", PROMPT];
    refuses(&world, &args, 4, &["clod", "builtin"]);
    let args = ["run", "--agent", "command", PROMPT];
    refuses(&world, &args, 4, &["command:PROGRAM"]);
}

// docs/bad-input.md: A malformed configuration
#[test]
fn a_configuration_that_is_wrong_is_refused_with_line_and_nearest_name() {
    let world = World::simple();
    let place = "config/skep/config.toml";
    world.home.file(place, "parallel = 2\nmodle = \"x\"\n");
    refuses(
        &world,
        &RUN,
        2,
        &["config.toml", "line 2", "modle", "`model`"],
    );
    world.home.file(place, "budget = \"many\"\n");
    refuses(&world, &RUN, 2, &["config.toml", "line 1", "many"]);
}

// docs/bad-input.md: An unknown command or flag
#[test]
fn an_unknown_command_or_flag_is_refused() {
    let home = Home::new();
    let skep = env!("CARGO_BIN_EXE_skep");
    for args in [&["shwo"][..], &["run", "--agnet", "x", "y"]] {
        let ran = home.run(skep, args, Path::new("/"), DEADLINE);
        says(ran, 2, &["similar"]);
    }
    // Programs are told as of every other mistake.
    for (args, said) in [
        (&["run", "--json", "--agnet", "x", "y"][..], "--agent"),
        (&["sandbox", "--json", "exec", "try"], "<COMMAND>"),
        (&["--json"], "command"),
    ] {
        let ran = home
            .run(skep, args, Path::new("/"), DEADLINE)
            .expect_code(2);
        assert_eq!(ran.stdout, "");
        let told: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        let error = &told["error"];
        assert_eq!(error["exit"], "usage");
        let text = error.to_string();
        assert!(text.contains(said) && !text.contains("Usage:"), "{text}");
    }
    // What is behind `--` is for the command inside.
    let args = ["sandbox", "exec", "--nothing", "try", "--", "x", "--json"];
    let ran = home
        .run(skep, args, Path::new("/"), DEADLINE)
        .expect_code(2);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
}

// docs/bad-input.md: `skep/integration` is checked out: `skep drop`
#[test]
fn an_integration_branch_that_is_checked_out_is_left_alone() {
    let world = World::simple();
    world.run();
    world.repo.checkout("skep/integration");
    let was = before(&world.repo);
    let refused = world.skep(&["drop"]).expect_code(6);
    assert!(refused.stderr.contains("checked out"), "{}", refused.stderr);
    was.assert_same(&world.repo.snapshot());
}

#[test]
fn where_no_sandbox_can_be_made_a_run_is_refused_with_what_to_do() {
    let world = World::simple().without_namespaces();
    refuses(
        &world,
        &RUN,
        4,
        &["no sandbox of the kind `namespace`", "max_user_namespaces"],
    );
    let doctor = world.skep(&["doctor"]).expect_code(4).stdout;
    assert!(doctor.contains("user namespaces"), "{doctor}");
}

#[test]
fn where_no_overlay_can_be_workspaces_are_copies_and_doctor_says_so() {
    let world = World::simple().without_overlays();
    let told = world.run();
    assert_eq!(world.integrated("answer.txt"), "42\n");
    drop(told);
    let doctor = world.skep(&["doctor"]).stdout;
    assert!(doctor.contains("without overlay workspaces"), "{doctor}");
}
