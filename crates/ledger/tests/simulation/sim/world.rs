//! The world of a run: processes with their actors, the ledger on its disk, and what is known.

use super::{
    Broken, Mistake, Tally,
    actor::{Actor, Heard, View},
    call::{Answer, Call},
    client::Client,
    integrator::Integrator,
    keeper::Keeper,
    model::Model,
    outside::Outside,
    person::Person,
    planner::Planner,
    process::Process,
    random::{Random, SimClock, SimIds},
    reader::Reader,
    teller::Teller,
    worker::Worker,
};
use domain::{RepositoryId, SessionId, Timestamp};
use skep_ledger::{Clock, Error, Ledger, Seek};
use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// How many processes there are.
pub(super) const PROCESSES: usize = 3;
/// How many of the last steps are told of a run that failed.
const TOLD: usize = 60;

#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Client,
    Person,
    Keeper,
    Planner,
    Worker,
    Integrator,
    Teller,
}

/// Which roles there are, and in which process.
const ROLES: [(Role, usize); 14] = [
    (Role::Client, 0),
    (Role::Client, 1),
    (Role::Planner, 0),
    (Role::Planner, 2),
    (Role::Worker, 0),
    (Role::Worker, 1),
    (Role::Worker, 1),
    (Role::Worker, 2),
    (Role::Integrator, 0),
    (Role::Integrator, 2),
    (Role::Teller, 0),
    (Role::Teller, 1),
    (Role::Person, 2),
    (Role::Keeper, 1),
];

/// The names of workers: of those in the first process, and of those in the others.
pub(super) const WORKERS: [&str; 2] = ["left", "right"];

/// Who works in a process, and what it can do. There is one of each name that can do everything.
fn seek(process: usize, name: usize) -> Seek {
    let able: &[&str] = match name {
        5 => &[],
        6 => &["gpu"],
        _ => &["gpu", "net"],
    };
    Seek {
        only: None,
        worker: Some(WORKERS[process.min(1)].into()),
        capabilities: able.iter().map(|need| (*need).to_owned()).collect(),
    }
}

/// An actor in its place.
pub(super) struct Slot {
    pub(super) role: Role,
    pub(super) process: usize,
    pub(super) actor: Box<dyn Actor>,
    /// It waits for an answer that comes late.
    pub(super) waits: bool,
    /// It asks this again, since it has heard nothing.
    pub(super) again: Option<Call>,
    /// How often it began anew.
    pub(super) life: u64,
    /// It has found nothing to do, when so much had happened.
    pub(super) quiet: Option<usize>,
}

impl Slot {
    fn new(role: Role, process: usize, name: usize) -> Self {
        let mut slot = Self {
            role,
            process,
            actor: Box::new(Person::default()),
            waits: false,
            again: None,
            life: 0,
            quiet: None,
        };
        slot.begin(name);
        slot
    }

    /// It begins anew, and knows nothing.
    pub(super) fn begin(&mut self, name: usize) {
        self.life += 1;
        self.waits = false;
        self.again = None;
        self.actor = match self.role {
            Role::Client => Box::new(Client::new(name, self.life)),
            Role::Person => Box::new(Person::default()),
            Role::Keeper => Box::new(Keeper),
            Role::Planner => Box::new(Planner::new(seek(self.process, name))),
            Role::Worker => Box::new(Worker::new(seek(self.process, name))),
            Role::Integrator => Box::new(Integrator::default()),
            Role::Teller => Box::new(Teller::default()),
        };
    }
}

/// A call that is under way for some steps.
pub(super) struct Flight {
    pub(super) due: u64,
    pub(super) process: usize,
    pub(super) call: Call,
    /// Who waits for its answer: the actor and its life, and whether it asked before.
    pub(super) by: Option<(usize, u64, bool)>,
}

pub(crate) struct World {
    pub(super) random: Random,
    pub(super) clock: Arc<SimClock>,
    pub(super) ids: Arc<SimIds>,
    pub(super) mistake: Mistake,
    pub(super) root: TempDir,
    /// How often the disk was copied.
    pub(super) disks: u64,
    pub(super) processes: Vec<Option<Process>>,
    pub(super) slots: Vec<Slot>,
    pub(super) readers: Vec<Reader>,
    pub(super) flights: Vec<Flight>,
    pub(super) outside: Outside,
    pub(super) model: Model,
    /// Events were being removed when the power was cut: those before this.
    pub(super) pruning: Option<Timestamp>,
    pub(super) sessions: Vec<SessionId>,
    pub(super) repositories: Vec<RepositoryId>,
    pub(super) step: u64,
    pub(super) ending: bool,
    pub(super) count: Tally,
    told: VecDeque<String>,
}

impl World {
    pub(crate) async fn new(seed: u64, mistake: Mistake) -> Self {
        // In memory where that is possible: what survives is decided here, not by a disk.
        let memory = Path::new("/dev/shm");
        let root = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let mut world = Self {
            random: Random::new(seed),
            clock: Arc::new(SimClock::new()),
            ids: Arc::new(SimIds::new(seed)),
            mistake,
            root,
            disks: 0,
            processes: Vec::new(),
            slots: Vec::new(),
            readers: Vec::new(),
            flights: Vec::new(),
            outside: Outside {
                mute: mistake == Mistake::Mute,
                unfenced: matches!(mistake, Mistake::Unfenced | Mistake::Stubborn),
                ..Outside::default()
            },
            model: Model::default(),
            pruning: None,
            sessions: Vec::new(),
            repositories: Vec::new(),
            step: 0,
            ending: false,
            count: Tally::default(),
            told: VecDeque::new(),
        };
        for _ in 0..PROCESSES {
            let started = Process::start(&world.directory(), &world.clock, &world.ids).await;
            world.processes.push(Some(started.unwrap()));
        }
        let ledger = world.ledger(0).unwrap();
        for name in ["one", "two"] {
            let session = ledger.session(name).await.unwrap();
            world.sessions.push(session);
            let path = format!("/{name}");
            let repository = ledger.repository(&path).await.unwrap();
            world.repositories.push(repository);
        }
        world.slots = (0..)
            .zip(ROLES)
            .map(|(name, (role, process))| Slot::new(role, process, name))
            .collect();
        world.readers = world
            .sessions
            .iter()
            .zip([1, 2])
            .map(|(session, process)| Reader::new(process, *session))
            .collect();
        world.observe(0).await.unwrap();
        world
    }

    /// Where the ledger is now.
    pub(super) fn directory(&self) -> PathBuf {
        self.root.path().join(self.disks.to_string())
    }

    pub(super) fn ledger(&self, process: usize) -> Option<Ledger> {
        let process = self.processes.get(process)?.as_ref()?;
        Some(process.ledger.clone())
    }

    /// A process that runs. There is always one.
    pub(super) fn running(&self) -> usize {
        let mut all = self.processes.iter();
        all.position(Option::is_some).unwrap()
    }

    /// Does a call in a process, and holds what came of it against what is known.
    pub(super) async fn execute(
        &mut self,
        process: usize,
        call: &Call,
    ) -> Result<Result<Answer, Error>, Broken> {
        let stood = call.lease().map(|lease| self.model.holders.stands(lease));
        let now = self.clock.now();
        let running = self.processes[process].as_mut().unwrap();
        running.changes.mark_unchanged();
        let outside = &mut self.outside;
        let answer = call
            .perform(&running.ledger, &running.owner, outside)
            .await?;
        let changed = !matches!(running.changes.has_changed(), Ok(false));
        self.count.calls += 1;
        self.count.stale += u64::from(stood == Some(false));
        let text = match &answer {
            Ok(answer) => short(answer),
            Err(error) => format!("refused: {error}"),
        };
        self.tell(format!("process {process}: {} -> {text}", short(call)));
        self.done(process, call, &answer, stood, (now, changed))
            .await?;
        self.hasten(call);
        Ok(answer)
    }

    /// Takes note of every new event; says how many there were.
    pub(super) async fn observe(&mut self, process: usize) -> Result<usize, Broken> {
        let ledger = self.ledger(process).unwrap();
        let mut seen = 0;
        for session in self.sessions.clone() {
            let known = self.model.events.last(session);
            for envelope in ledger.events(session, known, usize::MAX).await? {
                self.model.observe(&envelope, &self.outside)?;
                seen += 1;
            }
        }
        Ok(seen)
    }

    /// Lets an actor look, and hear or ask.
    pub(super) fn with<T>(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut dyn Actor, &mut View<'_>) -> T,
    ) -> T {
        let requests: Vec<_> = self.model.requests.keys().copied().collect();
        let jobs: Vec<_> = self.model.jobs.keys().copied().collect();
        let mut view = View {
            random: &mut self.random,
            outside: &self.outside,
            sessions: &self.sessions,
            repositories: &self.repositories,
            requests: &requests,
            jobs: &jobs,
            now: self.clock.now(),
            ending: self.ending,
            stubborn: self.mistake == Mistake::Stubborn,
        };
        run(self.slots[at].actor.as_mut(), &mut view)
    }

    /// Lets an actor hear an answer.
    pub(super) fn answer(
        &mut self,
        at: usize,
        call: &Call,
        answer: Result<Answer, Error>,
        again: bool,
    ) {
        let heard = match answer {
            Ok(answer) => Heard::Answer { answer, again },
            Err(error) => Heard::Error { error, again },
        };
        self.with(at, |actor, view| actor.hear(view, call, heard));
    }

    /// Counts what has happened while everything could go wrong.
    pub(super) fn count(&mut self, times: u64, what: &'static str) {
        if !self.ending {
            *self.count.did.entry(what).or_default() += times;
        }
    }

    pub(super) fn tell(&mut self, what: String) {
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        self.told.push_back(format!("{:5} {what}", self.step));
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.told.iter().cloned().collect()
    }

    pub(crate) fn tally(&self) -> Tally {
        let changes = self.model.changes.values();
        let integrated = changes.filter(|change| change.integrated.is_some());
        Tally {
            integrated: integrated.count() as u64,
            events: self.model.events.count() as u64,
            resumed: self.model.resumed,
            ..self.count.clone()
        }
    }

    /// Which actors of a process there are.
    pub(super) fn actors_of(&self, process: usize) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.process == process)
            .map(|(at, _)| at)
            .collect()
    }

    /// How many requests there are in each state: for whoever reads why a run does not end.
    pub(super) fn standing(&self) -> String {
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        for state in self.model.requests.values() {
            *states.entry(state.to_string()).or_default() += 1;
        }
        format!("{states:?}; open: {:#?}", self.model.open())
    }

    /// Ends every process, so that no thread outlives the run.
    pub(crate) async fn close(mut self) {
        self.readers.clear();
        for process in self.processes.drain(..).flatten() {
            process.kill(false).await;
        }
    }
}

/// The beginning of something's description: an ask or a claimed job is long.
fn short(what: &impl std::fmt::Debug) -> String {
    const MOST: usize = 300;
    let text = format!("{what:?}");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
