//! What is under way when a process is killed: small plans on a small repository.

use std::time::Duration;

use testkit::Repo;
use testkit::models::{Dialect, Fault, Hold, Job, Script, Step};

use crate::world::World;

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// Two jobs that touch the same file, one of them with findings in its first round; one after
    /// both; one after that which may change nothing, and does not.
    Story,
    /// One job whose change is merged onto a tip that has not moved.
    Plain,
    /// The same with a file that is taken along from the user's tree.
    Taken,
    /// A job whose two rounds fail, and one that waits for it.
    Failing,
    /// One good job, and one after it whose two rounds fail.
    Half,
    /// One good job, and one after it that conflicts with what a person put onto the branch.
    HalfConflict,
    /// One good job, and one after it that changes the same file, while a person puts another one
    /// onto the branch.
    Built,
    /// A change that conflicts with what a person put onto the branch meanwhile.
    Conflict,
    /// A change that does not pass together with what a person put onto the branch meanwhile.
    Misfit,
    /// The provider is out of quota for the first call.
    Trouble,
    /// The provider refuses the key.
    Refused,
    /// The setup of the workspace fails.
    Unready,
    /// One job, and after it two: a good one, and one whose agent remembers nothing and does not
    /// end until the good one's change is there where it begins.
    Forgetful,
    /// The plan is asked for, and the model writes one of one job, at the second time.
    Planned,
    /// The plan is asked for, and what the model answers is none.
    Unplanned,
}

/// A scenario made ready.
pub struct Stage {
    pub world: World,
    pub args: Vec<String>,
    /// What a person puts onto the integration branch, while the model keeps its answer back.
    pub meanwhile: Option<Meanwhile>,
}

/// A file that appears on the integration branch while the model thinks.
pub struct Meanwhile {
    pub file: &'static str,
    pub text: &'static str,
    pub hold: Hold,
    /// How many calls the model has had by then.
    pub calls: usize,
}

/// The second change is on the branch.
pub const INTEGRATED: &str = "change merging integrated after 2";

const LIST: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";

const CHECK: &str = "[[check]]\nname = \"good\"\ncommand = \
                     \"! grep -q bad *.txt && ! { test -e left.txt && test -e right.txt; }\"\n";

fn repo() -> Repo {
    let repo = Repo::new();
    repo.file("list.txt", LIST).file("skep.toml", CHECK);
    repo.commit("A list");
    repo
}

/// The same with a setup that fails.
fn repo_without_setup() -> Repo {
    let repo = repo();
    repo.file(
        "skep.toml",
        format!("[setup]\ncommand = \"exit 1\"\n{CHECK}"),
    );
    repo.commit("A setup");
    repo
}

/// A list with an ignored file that a request takes along.
fn repo_with_taken() -> Repo {
    let repo = Repo::new();
    let policy = format!("include = [\"taken.cfg\"]\n{CHECK}");
    repo.file("list.txt", LIST).file("skep.toml", policy);
    repo.file(".gitignore", "taken.cfg\n");
    repo.commit("A list");
    repo.file("taken.cfg", "taken along\n");
    repo
}

fn on(name: &str) -> Job {
    Job::on(format!("The job {name}.")).with_tools()
}

/// A job that runs one command and is done.
fn does(name: &str, command: &str) -> Job {
    surely(on(name), command).step(Step::say("It is done."))
}

/// A command that is given twice: where the process is killed while it runs, nobody knows whether
/// it did, and a model sees to it.
fn surely(job: Job, command: &str) -> Job {
    job.step(Step::shell(command)).step(Step::shell(command))
}

/// The same where two kills may come while it runs.
fn more_surely(job: Job, command: &str) -> Job {
    surely(job, command).step(Step::shell(format!("{command} # again")))
}

/// One that makes the same mistake in both rounds.
fn errs(name: &str) -> Job {
    on(name)
        .step(Step::shell("echo bad > wrong.txt"))
        .step(Step::say("It is done."))
        .step(Step::shell("echo still bad > wrong.txt"))
        .step(Step::say("Now it is."))
}

fn planned(jobs: &[(&str, &[&str], &str)]) -> String {
    let mut plan = String::new();
    for (name, after, more) in jobs {
        plan.push_str(&format!(
            "[[job]]\nname = \"{name}\"\nprompt = \"The job {name}.\"\nafter = {after:?}\n{more}\n"
        ));
    }
    plan
}

impl Scenario {
    /// The repository, the plan and the model.
    pub fn stage(self) -> Stage {
        let hold = Hold::new();
        let meanwhile = |file, text, calls| {
            let hold = hold.clone();
            Some(Meanwhile {
                file,
                text,
                hold,
                calls,
            })
        };
        let single: &[(&str, &[&str], &str)] = &[("only", &[], "")];
        let second: &[(&str, &[&str], &str)] = &[("good", &[], ""), ("late", &["good"], "")];
        let (plan, script, meanwhile) = match self {
            Scenario::Story => (
                planned(&[
                    ("first", &[], ""),
                    ("last", &[], ""),
                    ("both", &["first", "last"], ""),
                    ("none", &["both"], "may_change_nothing = true"),
                ]),
                Script::new()
                    .job(
                        more_surely(
                            more_surely(
                                on("first"),
                                "git show HEAD:list.txt | sed s/one/bad/ >.git/new && mv .git/new list.txt",
                            )
                            .step(Step::say("It is done.")),
                            "git show HEAD:list.txt | sed s/one/1/ >.git/new && mv .git/new list.txt",
                        )
                        .step(Step::say("Now it is.")),
                    )
                    .job(
                        more_surely(
                            on("last"),
                            "git show HEAD:list.txt | sed s/ten/10/ >.git/new && mv .git/new list.txt",
                        )
                        .step(Step::say("It is done.")),
                    )
                    .job(
                        more_surely(on("both"), "cp list.txt both.txt")
                            .step(Step::say("It is done.")),
                    )
                    .job(on("none").step(Step::say("There is nothing to do."))),
                None,
            ),
            Scenario::Plain | Scenario::Taken => (
                planned(single),
                Script::new().job(does("only", "echo new > only.txt")),
                None,
            ),
            Scenario::Failing => (
                planned(&[("wrong", &[], ""), ("late", &["wrong"], "")]),
                Script::new().job(errs("wrong")),
                None,
            ),
            Scenario::Half => (
                planned(second),
                Script::new()
                    .job(does("good", "echo new > good.txt"))
                    .job(errs("late")),
                None,
            ),
            Scenario::HalfConflict => (
                planned(second),
                Script::new()
                    .job(does("good", "echo new > good.txt"))
                    .job(held("late", "echo mine > late.txt", &hold)),
                meanwhile("late.txt", "theirs\n", 4),
            ),
            Scenario::Built => (
                planned(second),
                Script::new()
                    .job(does("good", "echo new > good.txt"))
                    .job(held("late", "echo newer > good.txt", &hold)),
                meanwhile("other.txt", "theirs\n", 4),
            ),
            Scenario::Conflict => (
                planned(single),
                Script::new().job(held("only", "echo mine > only.txt", &hold)),
                meanwhile("only.txt", "theirs\n", 1),
            ),
            Scenario::Misfit => (
                planned(single),
                Script::new().job(held("only", "echo left > left.txt", &hold)),
                meanwhile("right.txt", "right\n", 1),
            ),
            Scenario::Trouble => (
                planned(single),
                Script::new().job(
                    on("only")
                        .step(Step::shell("echo new > only.txt").after_fault(out_of_quota()))
                        .step(Step::say("It is done.")),
                ),
                None,
            ),
            Scenario::Refused => (
                planned(single),
                Script::new().job(on("only").step(Step::fault(Fault::Status(403)))),
                None,
            ),
            Scenario::Unready => (planned(single), Script::new(), None),
            Scenario::Forgetful => (
                planned(&[
                    ("once", &[], ""),
                    ("good", &["once"], ""),
                    (
                        "late",
                        &["once"],
                        "agent = \"command:test -e good.txt || sleep 1000; echo new > late.txt\"",
                    ),
                ]),
                Script::new()
                    .job(does("once", "echo new > once.txt"))
                    .job(does("good", "sleep 0.5; echo new > good.txt")),
                None,
            ),
            Scenario::Planned => (
                String::new(),
                Script::new()
                    .job(does("only", "echo new > only.txt"))
                    .job(
                        Job::on("Do it")
                            .step(Step::say("I have no plan yet."))
                            .step(Step::say(
                                r#"{"jobs": [{"name": "only", "prompt": "The job only."}]}"#,
                            )),
                    ),
                None,
            ),
            Scenario::Unplanned => (
                String::new(),
                Script::new().otherwise(Step::say("I have no plan.")),
                None,
            ),
        };
        let repo = match self {
            Scenario::Taken => repo_with_taken(),
            Scenario::Unready => repo_without_setup(),
            _ => repo(),
        };
        let world = World::new(Dialect::Chat, repo, script);
        let how = match plan.as_str() {
            "" => "required".to_owned(),
            text => {
                let file = world.home.file("home/plan.toml", text);
                file.to_str().unwrap().to_owned()
            }
        };
        let mut args: Vec<String> = ["run", "--json", "--plan"].map(str::to_owned).into();
        args.push(how);
        if plan.is_empty() {
            args.push("Do it".to_owned());
        }
        Stage {
            world,
            args,
            meanwhile,
        }
    }
}

impl Scenario {
    /// Where its process must be killed for it to end at all.
    pub fn ends_after(self) -> &'static [&'static str] {
        match self {
            Scenario::Forgetful => &[INTEGRATED],
            _ => &[],
        }
    }
}

/// A job whose first answer is kept back until a person has done something.
fn held(name: &str, command: &str, hold: &Hold) -> Job {
    on(name)
        .step(Step::shell(command).held_by(hold))
        .step(Step::say("It is done."))
}

/// An answer that says to come back much later: the agent does not wait for it.
fn out_of_quota() -> Fault {
    Fault::Response {
        status: 529,
        headers: vec![("retry-after".into(), "3600".into())],
        content_type: "application/json".into(),
        body: br#"{"error":{"message":"Overloaded","type":"overloaded_error"}}"#.to_vec(),
    }
}

impl Meanwhile {
    /// Waits until the model is asked, does it, and lets the model answer.
    pub fn happen(&self, world: &World, deadline: Duration) {
        world.model.wait_for_count(deadline, self.calls);
        commit_onto(&world.repo, self.file, self.text);
        self.hold.release();
    }
}

/// A person's commit on the integration branch, without a checkout.
fn commit_onto(repo: &Repo, file: &str, text: &str) {
    let branch = "refs/heads/skep/integration";
    let parent = repo.tip(branch).unwrap_or_else(|| repo.head());
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    let path = tree.to_str().unwrap();
    repo.git(&["worktree", "add", "--quiet", "--detach", path, &parent]);
    std::fs::write(tree.join(file), text).unwrap();
    repo.git(&["-C", path, "add", file]);
    repo.git(&["-C", path, "commit", "--quiet", "--message", "A person's"]);
    let commit = repo.git(&["-C", path, "rev-parse", "HEAD"]);
    repo.git(&["update-ref", branch, commit.trim()]);
    repo.git(&["worktree", "remove", "--force", path]);
}
