//! Agents whose sandboxes are containers: all of a request, and what a kill leaves of it.

use testkit::models::{Hold, Job, Script, Step};

use crate::world::{DEADLINE, PROMPT, Told, World, mending, wrong_answer};

/// A request whose agent and checks run in containers.
const RUN: [&str; 7] = [
    "run",
    "--json",
    "--sandbox",
    "container",
    "--plan",
    "none",
    PROMPT,
];

#[test]
fn a_request_is_worked_on_in_containers_to_its_end() {
    works_to_its_end(World::with_podman(wrong_answer(), mending()));
}

#[test]
fn a_request_of_an_ordinary_user_is_worked_on_in_containers_to_its_end() {
    works_to_its_end(World::with_podman_of_ordinary_user(
        wrong_answer(),
        mending(),
    ));
}

fn works_to_its_end(world: World) {
    let was = world.repo.snapshot();
    let told = Told::of(world.skep(&RUN).expect_code(0));
    let began = told.all("attempt_started").next().unwrap();
    assert_eq!(began["sandbox"], "container");
    assert_eq!(told.verdicts("answer").first().unwrap(), "passed");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    was.assert_only_integration(&world.repo.snapshot());
    world.assert_no_secret(&[&told.ran]);
    world.assert_nothing_left();
}

/// A run that was killed while its agent waits for the model, in the middle of its turn.
fn killed(world: &World, hold: &Hold) {
    let mut running = world.start(&RUN);
    world.model.wait_for_count(DEADLINE, 2);
    running.kill();
    hold.release();
}

fn two_steps(hold: &Hold) -> Script {
    Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo one >> log.txt"))
            .step(Step::shell("echo 42 > answer.txt").held_by(hold))
            .step(Step::say("The answer is 42.")),
    )
}

#[test]
fn killed_in_the_middle_it_goes_on_in_a_container_and_leaves_none() {
    let hold = Hold::new();
    goes_on(World::with_podman(wrong_answer(), two_steps(&hold)), &hold);
}

#[test]
fn killed_in_the_middle_it_goes_on_in_a_container_of_an_ordinary_user_too() {
    let hold = Hold::new();
    let world = World::with_podman_of_ordinary_user(wrong_answer(), two_steps(&hold));
    goes_on(world, &hold);
}

fn goes_on(world: World, hold: &Hold) {
    killed(&world, hold);
    let told = Told::of(world.skep(&["resume", "--json"]).expect_code(0));
    let began: Vec<_> = told.all("attempt_started").collect();
    assert_eq!(began.len(), 1, "it is the same attempt");
    assert_eq!(began[0]["sandbox"], "container");
    assert_eq!(world.integrated("answer.txt"), "42\n");
    assert_eq!(world.integrated("log.txt"), "one\n");
    world.assert_nothing_left();
}

#[test]
fn what_was_asked_for_in_containers_is_tried_again_in_containers() {
    let never = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::say("I cannot do that."))
            .step(Step::say("I still cannot.")),
    );
    let world = World::with_podman(wrong_answer(), never);
    world.skep(&RUN).expect_code(1);
    let told = Told::of(world.skep(&["retry", "--json"]).expect_code(1));
    let began: Vec<_> = told.all("attempt_started").collect();
    assert_eq!(began.len(), 1);
    assert_eq!(began[0]["sandbox"], "container");
    world.assert_nothing_left();
}

#[test]
fn requests_in_containers_and_others_are_gone_on_with_each_in_its_kind() {
    let holds = [Hold::new(), Hold::new()];
    let script = |script: Script, prompt: &str, hold: &Hold| {
        script.job(
            Job::on(prompt)
                .with_tools()
                .step(Step::shell(format!("echo '{prompt}' > '{prompt}'")).held_by(hold))
                .step(Step::say("It is there.")),
        )
    };
    let names = ["first.txt", "second.txt"];
    let both = script(Script::new(), names[0], &holds[0]);
    let both = script(both, names[1], &holds[1]);
    let repo = testkit::Repo::new();
    repo.file("kept.txt", "kept\n");
    repo.commit("No check");
    let world = World::with_podman(repo, both);
    let mut contained = RUN;
    contained[6] = names[0];
    let mut running = [
        world.start(&contained),
        world.start(&["run", "--json", "--plan", "none", names[1]]),
    ];
    world.model.wait_for_count(DEADLINE, 2);
    for one in &mut running {
        one.kill();
    }
    holds.iter().for_each(Hold::release);
    let told = Told::of(world.skep(&["resume", "--json"]).expect_code(0));
    let mut kinds: Vec<_> = told
        .all("attempt_started")
        .map(|it| it["sandbox"].as_str().unwrap())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["container", "namespace"]);
    for name in names {
        assert_eq!(world.integrated(name), format!("{name}\n"));
    }
    world.assert_nothing_left();
}
