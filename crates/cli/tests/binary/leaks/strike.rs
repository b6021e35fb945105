//! One kill: of whom, and at which moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testkit::{Started, leaks};

use super::family::{self, Role, descendants};
use crate::dice::Dice;
use crate::world::World;

/// How long a victim of the chosen kind is waited for.
const PATIENCE: Duration = Duration::from_millis(400);
/// The pause between two looks for one.
const LOOK: Duration = Duration::from_millis(1);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// A `skep run` or `skep resume`.
    Worker,
    /// All of them at once.
    Workers,
    /// Whatever a worker or a holder starts next, in the middle of its beginning.
    Newborn,
    /// Who is at work for a worker, by its role.
    Of(Role),
    /// The process that holds a standing sandbox.
    Holder,
    /// Who is at work for a holder, by its role.
    Held(Role),
    /// A person's command: `skep sandbox create` or `exec`.
    Client,
    /// The engine's process that answers a worker or a holder, or makes a container for it.
    Engine,
    /// Who watches over a container and has it cleared away.
    Watcher,
}

/// Each kind, as often as it is to come.
const VICTIMS: [Victim; 15] = [
    Victim::Worker,
    Victim::Worker,
    Victim::Workers,
    Victim::Newborn,
    Victim::Newborn,
    Victim::Newborn,
    Victim::Of(Role::Helper),
    Victim::Of(Role::First),
    Victim::Of(Role::First),
    Victim::Of(Role::Minder),
    Victim::Of(Role::Command),
    Victim::Holder,
    Victim::Held(Role::First),
    Victim::Held(Role::Minder),
    Victim::Client,
];

/// The same where sandboxes are containers: what is in them is no descendant of a worker.
const AROUND_CONTAINERS: [Victim; 14] = [
    Victim::Worker,
    Victim::Worker,
    Victim::Workers,
    Victim::Newborn,
    Victim::Newborn,
    Victim::Engine,
    Victim::Engine,
    Victim::Watcher,
    Victim::Watcher,
    Victim::Of(Role::First),
    Victim::Of(Role::Minder),
    Victim::Of(Role::Command),
    Victim::Holder,
    Victim::Client,
];

/// What runs in a round.
#[derive(Default)]
pub struct Cast {
    /// Each `skep run` and `skep resume`.
    pub workers: Vec<Started>,
    /// Each `skep sandbox create` and `exec`.
    pub clients: Vec<Started>,
}

/// How often each kind was killed.
pub type Tally = BTreeMap<Victim, usize>;

impl Cast {
    /// Kills one at random, if such a one comes in time. Says who it was.
    pub fn strike(&mut self, world: &World, dice: &mut Dice) -> Option<Victim> {
        let victims: &[Victim] = match world.podman {
            Some(_) => &AROUND_CONTAINERS,
            None => &VICTIMS,
        };
        let victim = victims[dice.below(victims.len() as u64) as usize];
        let struck = match victim {
            Victim::Worker => one(&mut self.workers, dice),
            Victim::Workers => {
                let mut some = false;
                for mut it in self.workers.drain(..) {
                    some |= killed(&mut it);
                }
                some
            }
            Victim::Client => {
                self.clients.retain_mut(is_alive);
                one(&mut self.clients, dice)
            }
            Victim::Newborn => self.newborn(world, dice),
            Victim::Of(role) => self.member(dice, role, |it| match world.podman {
                Some(_) => engine(world, true),
                None => it.worker_ids(),
            }),
            Victim::Engine => self.soon(dice, |_| engine(world, false)),
            Victim::Watcher => self.soon(dice, |_| engine(world, true)),
            Victim::Held(role) => self.member(dice, role, |_| holders(world)),
            Victim::Holder => dice.one_of(holders(world)).is_some_and(kill),
        };
        struck.then_some(victim)
    }

    fn worker_ids(&mut self) -> Vec<i32> {
        self.workers.retain_mut(is_alive);
        self.workers.iter().map(Started::pid).collect()
    }

    /// Kills who works in such a role for one of these.
    fn member(
        &mut self,
        dice: &mut Dice,
        role: Role,
        mut owners: impl FnMut(&mut Cast) -> Vec<i32>,
    ) -> bool {
        self.soon(dice, |cast| {
            let members = owners(cast).into_iter().flat_map(descendants);
            let fitting = members.filter(|it| it.role == role);
            fitting.map(|it| it.pid).collect()
        })
    }

    /// Kills one of these as soon as there is one.
    fn soon(&mut self, dice: &mut Dice, mut these: impl FnMut(&mut Cast) -> Vec<i32>) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if dice.one_of(these(self)).is_some_and(kill) {
                return true;
            }
            self.pause();
        }
        false
    }

    /// Kills the next child of a worker or a holder as soon as it is there.
    fn newborn(&mut self, world: &World, dice: &mut Dice) -> bool {
        let mut owners = self.worker_ids();
        owners.extend(holders(world));
        let Some(owner) = dice.one_of(owners) else {
            return false;
        };
        let known = family::children(owner);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let now = family::children(owner);
            if let Some(new) = now.into_iter().find(|it| !known.contains(it)) {
                return kill(new);
            }
        }
        false
    }

    /// Until a worker ends, or a moment.
    fn pause(&mut self) {
        match self.workers.first_mut() {
            Some(worker) => {
                worker.ends_within(LOOK);
            }
            None => std::thread::yield_now(),
        }
    }
}

/// The processes that hold standing sandboxes of a world.
pub fn holders(world: &World) -> Vec<i32> {
    let all = leaks::processes_of(&world.data());
    let holders = all
        .iter()
        .filter(|it| it.command.contains(" sandbox hold "));
    // What it leaves in control groups is looked for at the end.
    holders
        .map(|it| it.pid)
        .filter(|it| world.know(*it))
        .collect()
}

/// The processes of an engine outside of containers: those that watch over one, or all others.
fn engine(world: &World, watching: bool) -> Vec<i32> {
    let all = leaks::processes_of(world.home.root());
    let of_engine = all.iter().filter_map(|it| {
        let program = it.command.split(' ').next()?;
        let program = program.rsplit('/').next()?;
        let fits = match watching {
            true => program == "conmon",
            false => program == "podman" || program == "runc",
        };
        fits.then_some(it.pid)
    });
    of_engine.collect()
}

fn is_alive(it: &mut Started) -> bool {
    !it.ends_within(Duration::ZERO)
}

fn one(these: &mut Vec<Started>, dice: &mut Dice) -> bool {
    if these.is_empty() {
        return false;
    }
    let at = dice.below(these.len() as u64) as usize;
    killed(&mut these.swap_remove(at))
}

/// Whether it was at work until now.
fn killed(it: &mut Started) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    is_alive(it) && it.kill().signal() == Some(Signal::KILL.as_raw())
}

/// Kills a process that was seen a moment ago; false when it has gone.
fn kill(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return false;
    };
    pidfd_open(pid, PidfdFlags::empty())
        .and_then(|it| pidfd_send_signal(it, Signal::KILL))
        .is_ok()
}
