//! Rounds of kills. Each is a data directory with one or two runs, a standing sandbox with a command
//! in it, and [`STRIKES`] kills at random moments; then all is brought to its end, and nothing may be
//! left. Which kills it is comes from the seed, their moments from the machine.
//! `SKEP_ATTEMPTS` and `SKEP_SEED` choose other rounds: `cargo xtask leaks` sets them.

use std::time::{Duration, Instant};

use ledger::{Depth, Ledger, Options};
use testkit::{Image, Started};

use super::disk::Disk;
use super::strike::{Cast, Tally, Victim, holders};
use crate::dice::{Dice, wanted};
use crate::kills::row::go_on;
use crate::kills::story::{Story, start};
use crate::world::{DEADLINE, World};

/// The attempts of the ordinary test.
const ORDINARY: u64 = 20;
/// The same in containers, each of which takes a hundred times as long to make: one round, with one
/// request and kills of a worker, of its engine and of a container's watcher.
const ORDINARY_IN_CONTAINERS: u64 = 1;
const SEED_IN_CONTAINERS: u64 = 5;
/// In every third round a container has another one beside it; one such is in the ordinary tests.
const WITH_SIDECARS: u64 = 3;
const SEED_WITH_SIDECARS: u64 = 9;
/// The image of that one.
const BESIDE: &str = "localhost/skep-beside:latest";
/// The kills of a round.
const STRIKES: usize = 6;
/// The latest that a kill comes after the one before, in milliseconds.
const LATEST: u64 = 500;
/// What the record of an attempt may take, in bytes: its events, its transcript and its exchanges with
/// the model. The ledger is there to grow by that until a person prunes it.
const PER_RECORD: u64 = 160 << 10;
/// What its change may take in the mirror of its repository, which keeps it: a block for each of its
/// few objects and references, and for the directories that they are the first in.
const PER_CHANGE: u64 = 128 << 10;

/// Agents that leave behind what is awkward to clear away, and work for a moment.
const STORY: Story = Story {
    policy: "[setup]\ncommand = \"mkdir -p made; echo made > made/it\"\n\
             [[check]]\nname = \"good\"\ncommand = \"sleep 0.05; ! grep -q bad *.txt\"\n",
    command: |word, file| {
        format!(
            "(trap '' TERM INT HUP; setsid sleep 1000 &); mkdir -p ~/closed/deep /tmp/closed; \
             mkfifo ~/closed/pipe; head -c 300000 /dev/zero > ~/closed/deep/file; \
             chmod 000 ~/closed/deep /tmp/closed; sleep 0.1; echo {word} > {file}"
        )
    },
    commands: 2,
};

/// What a person's command does in a standing sandbox.
const STANDS: &str = "trap '' HUP TERM INT; (setsid sleep 1000 &); sleep 1000";

/// What came of a round.
struct Came {
    attempts: u64,
    struck: Tally,
}

/// The sandboxes of a round.
#[derive(Clone, Copy)]
enum Kind {
    Namespace,
    /// Of an engine of root's, or in every other round of an ordinary user's.
    Container,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "namespace",
            Kind::Container => "container",
        }
    }

    fn world(self, seed: u64, requests: u64) -> World {
        let world = match self {
            Kind::Namespace => return STORY.world(requests),
            Kind::Container if seed.is_multiple_of(2) => {
                STORY.world_by(requests, World::with_podman_of_ordinary_user)
            }
            Kind::Container => STORY.world_by(requests, World::with_podman),
        };
        let mut config = "[sandbox]\nkind = \"container\"\n".to_owned();
        if seed.is_multiple_of(WITH_SIDECARS) {
            eprintln!("  with sidecars");
            let podman = world.podman.as_ref().expect("its engine");
            Image::of(["sh", "sleep", "setsid"]).import(podman, BESIDE);
            config += &format!(
                "[[sandbox.sidecar]]\nname = \"db\"\nimage = \"{BESIDE}\"\ncommand = [\"sh\", \"-c\", \"{STANDS}\"]\n\
                 ready = {{ command = [\"sh\", \"-c\", \"sleep 0.1\"] }}\n"
            );
        }
        world.home.file("config/skep/config.toml", config);
        world
    }
}

fn round(kind: Kind, seed: u64) -> Came {
    let mut dice = Dice(seed);
    let requests = 1 + dice.below(2);
    eprintln!(
        "{requests} requests; to repeat: cargo xtask leaks --kind {} --attempts 1 --seed {seed}",
        kind.name()
    );
    let world = kind.world(seed, requests);
    let first = before(&world);
    let mut cast = Cast {
        workers: (0..requests).map(|it| start(&world, it)).collect(),
        clients: vec![create(&world)],
    };
    let mut struck = Tally::new();
    let mut stands = false;
    for _ in 0..STRIKES {
        wait(&mut cast, Duration::from_millis(dice.below(LATEST)));
        if !stands && let Some(client) = command_in_it(&world) {
            stands = true;
            cast.clients.push(client);
        }
        let Some(victim) = cast.strike(&world, &mut dice) else {
            continue;
        };
        eprintln!("  {victim:?}");
        *struck.entry(victim).or_default() += 1;
        match victim {
            Victim::Worker | Victim::Workers => {
                cast.workers.push(world.start(&["resume", "--json"]));
            }
            Victim::Holder | Victim::Held(_) | Victim::Client => {
                // One that it leaves stopped is started again, beside a new one.
                let start = stopped(&world).map(|id| world.start(&["sandbox", "start", &id]));
                cast.clients.extend(start);
                cast.clients.push(create(&world));
                stands = false;
            }
            Victim::Newborn | Victim::Of(_) | Victim::Engine | Victim::Watcher => {}
        }
    }
    finish(&world, cast, requests);
    let attempts = assert_nothing_left(&world, &first);
    Came { attempts, struck }
}

/// What a data directory takes in which the repository is known, and nothing was done yet.
fn before(world: &World) -> Disk {
    world.skep(&["shell", "--", "true"]).expect_code(0);
    world.skep(&["gc", "--all"]).expect_code(0);
    Disk::of(&world.data())
}

/// A standing sandbox, in which two repositories are written.
fn create(world: &World) -> Started {
    let also = ["--also", "copy=."];
    world.start(&[&["sandbox", "create", "--for", "10m"][..], &also].concat())
}

/// A command in whichever sandbox stands, if one is ready.
fn command_in_it(world: &World) -> Option<Started> {
    if holders(world).is_empty() {
        return None;
    }
    let list = world.skep(&["sandbox", "list", "--json"]).expect_code(0);
    let list = list.json_lines().remove(0);
    let all = list["sandboxes"].as_array()?;
    let id = all.iter().find(|it| it["status"] == "running")?["id"].as_str()?;
    Some(world.start(&["sandbox", "exec", id, "--", "sh", "-c", STANDS]))
}

/// A sandbox whose holder was killed, if there is one.
fn stopped(world: &World) -> Option<String> {
    let list = world.skep(&["sandbox", "list", "--json"]).expect_code(0);
    let list = list.json_lines().remove(0);
    let all = list["sandboxes"].as_array()?;
    let id = all.iter().find(|it| it["status"] == "stopped")?["id"].as_str()?;
    Some(id.to_owned())
}

/// Waits so long, or until a run has ended: that is as good a moment.
fn wait(cast: &mut Cast, time: Duration) {
    if let Some(worker) = cast.workers.last_mut() {
        worker.ends_within(time);
    }
}

/// Brings everything to its end. How a request ends is not asked here: what was killed under it can
/// have cost it the agent's work.
fn finish(world: &World, cast: Cast, requests: u64) {
    for it in cast.workers {
        it.finish(DEADLINE);
    }
    for request in 0..requests {
        let ran = start(world, request).finish(DEADLINE);
        assert!(ran.code().is_some_and(|it| it != 101), "{}", ran.stderr);
    }
    go_on(world);
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    for it in cast.clients {
        it.finish(DEADLINE);
    }
}

/// Asserts that nothing of it all is on the machine, and what it cost on disk; how many attempts
/// there were.
fn assert_nothing_left(world: &World, first: &Disk) -> u64 {
    let deadline = Instant::now() + DEADLINE;
    // One whose client was killed while it was made ends by itself.
    for holder in holders(world) {
        let left = left_until(deadline);
        let holder = testkit::leaks::Process {
            pid: holder,
            command: String::new(),
        };
        assert!(holder.ends_within(left), "a holder stays: {holder:?}");
    }
    // What was stopped by a kill until now has its files.
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    let attempts = attempts(world);
    // A process that was killed is in its control group until it is gone.
    let left = testkit::leaks::wait_until_none(&world.data(), left_until(deadline));
    assert!(left.is_empty(), "still alive: {left:?}");
    world.skep(&["gc", "--all"]).expect_code(0);
    world.assert_nothing_left();
    let disk = Disk::of(&world.data());
    assert_eq!(disk.others, Vec::<std::path::PathBuf>::new());
    eprintln!("  {attempts} attempts: {first:?}, then {disk:?}");
    for (what, was, now, each) in [
        ("recorded", first.recorded, disk.recorded, PER_RECORD),
        ("kept besides", first.kept, disk.kept, PER_CHANGE),
    ] {
        let bound = was + attempts * each;
        assert!(now <= bound, "{now} bytes are {what}, more than {bound}");
    }
    attempts
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The attempts that were made. The ledger must hold.
fn attempts(world: &World) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(Options::new(world.data())).await.unwrap();
        let mut attempts = 0;
        for request in ledger.requests(100, None).await.unwrap() {
            for job in ledger.jobs(request.id).await.unwrap() {
                attempts += ledger.attempts(job.id).await.unwrap().len() as u64;
            }
        }
        let violations = ledger.check_to(Depth::Blobs, |_| {}).await.unwrap();
        ledger.close().await;
        assert!(violations.is_empty(), "{violations:#?}");
        attempts
    })
}

#[test]
fn whoever_is_killed_at_whatever_moment_nothing_is_left_on_the_machine() {
    rounds(Kind::Namespace, ORDINARY, 1);
}

#[test]
fn whoever_is_killed_at_whatever_moment_no_container_is_left_on_the_machine() {
    rounds(Kind::Container, ORDINARY_IN_CONTAINERS, SEED_IN_CONTAINERS);
}

#[test]
fn whoever_is_killed_at_whatever_moment_no_sidecar_is_left_on_the_machine() {
    rounds(Kind::Container, ORDINARY_IN_CONTAINERS, SEED_WITH_SIDECARS);
}

fn rounds(kind: Kind, ordinary: u64, seed: u64) {
    let wants = wanted("SKEP_ATTEMPTS").unwrap_or(ordinary);
    let first = wanted("SKEP_SEED").unwrap_or(seed);
    let (mut attempts, mut struck) = (0, Tally::new());
    for seed in (first..).take(wants as usize) {
        let came = round(kind, seed);
        attempts += came.attempts;
        for (victim, times) in came.struck {
            *struck.entry(victim).or_default() += times;
        }
        eprintln!("{attempts} of {wants} attempts");
        if attempts >= wants {
            break;
        }
    }
    eprintln!("killed: {struck:?}");
    assert!(attempts >= wants, "each round has attempts");
    assert!(!struck.is_empty(), "nobody was killed");
}
