//! The requests of random rounds: three jobs each, of which the last waits for the others.

use testkit::models::{Dialect, Job, Script, Step};
use testkit::{Repo, Started};

use crate::world::World;

/// The jobs of each request, and the rounds that each takes.
pub const JOBS: [(&str, usize); 3] = [("first", 2), ("last", 1), ("both", 1)];
/// How many jobs of a request run at once.
const PARALLEL: usize = 2;

/// What agents do in each of their rounds. The first round of two leaves a mistake.
#[derive(Clone, Copy)]
pub struct Story {
    /// The repository's policy.
    pub policy: &'static str,
    /// The command that writes a word into a file, however often it is given.
    pub command: fn(word: &str, file: &str) -> String,
    /// How often it is given: once more than it can be interrupted.
    pub commands: usize,
}

impl Story {
    fn job(self, request: u64, name: &str, rounds: usize) -> Job {
        let mut job = Job::on(format!("The job {name} of {request}.")).with_tools();
        let file = format!("{request}-{name}.txt");
        for round in 1..=rounds {
            let word = if round < rounds { "bad" } else { "good" };
            let command = (self.command)(word, &file);
            for _ in 0..self.commands {
                job = job.step(Step::shell(command.as_str()));
            }
            job = job.step(Step::say("It is done."));
        }
        job
    }

    /// A world in which so many requests can be made.
    pub fn world(self, requests: u64) -> World {
        self.world_by(requests, |repo, script| {
            World::new(Dialect::Chat, repo, script)
        })
    }

    /// The same, made in another way.
    pub fn world_by(self, requests: u64, make: fn(Repo, Script) -> World) -> World {
        let repo = Repo::new();
        repo.file("list.txt", "one\n")
            .file("skep.toml", self.policy);
        repo.commit("A list");
        let mut script = Script::new();
        for request in 0..requests {
            for (name, rounds) in JOBS {
                script = script.job(self.job(request, name, rounds));
            }
        }
        make(repo, script)
    }
}

/// Makes a request, or goes on with it where it was made already.
pub fn start(world: &World, request: u64) -> Started {
    let plan: String = JOBS
        .iter()
        .map(|(name, _)| {
            let after: &[&str] = match *name {
                "both" => &["first", "last"],
                _ => &[],
            };
            format!(
                "[[job]]\nname = \"{name}\"\nprompt = \"The job {name} of {request}.\"\n\
                 after = {after:?}\n"
            )
        })
        .collect();
    let plan = world.home.file(&format!("home/plan-{request}.toml"), plan);
    let key = format!("request {request}");
    let parallel = PARALLEL.to_string();
    let plan = plan.to_str().unwrap();
    world.start(&[
        "run",
        "--json",
        "--plan",
        plan,
        "--key",
        &key,
        "--parallel",
        &parallel,
    ])
}
