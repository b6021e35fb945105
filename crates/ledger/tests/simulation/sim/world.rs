//! The world of a run: processes with their actors, the ledger on its disk, and what is known.

use super::{
    Broken, Mistake, Tally,
    actor::{Actor, Heard, View},
    call::{Answer, Call},
    client::Client,
    integrator::Integrator,
    model::Model,
    outside::Outside,
    planner::Planner,
    process::Process,
    random::{Random, SimClock, SimIds},
    reader::Reader,
    worker::Worker,
};
use domain::{RepositoryId, SessionId};
use skep_ledger::{Clock, Error, Ledger};
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
/// How often everything is looked at.
const WHOLE: u64 = 60;

#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Client,
    Planner,
    Worker,
    Integrator,
}

/// Which roles there are, and in which process.
const ROLES: [(Role, usize); 10] = [
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
];

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
            actor: Box::new(Planner::default()),
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
            Role::Planner => Box::new(Planner::default()),
            Role::Worker => Box::new(Worker::default()),
            Role::Integrator => Box::new(Integrator::default()),
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
                unfenced: matches!(mistake, Mistake::Unfenced | Mistake::Stubborn),
                ..Outside::default()
            },
            model: Model::default(),
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
        if call.is_claim() {
            self.model.holders.look(now);
        }
        let recorded = match running.changes.has_changed() {
            Ok(false) => 0,
            _ => self.observe(process).await?,
        };
        self.count.calls += 1;
        self.count.stale += u64::from(stood == Some(false));
        let text = match &answer {
            Ok(answer) => short(answer),
            Err(error) => format!("refused: {error}"),
        };
        self.tell(format!("process {process}: {} -> {text}", short(call)));
        let by = (process, self.clock.now());
        self.model.answered(call, &answer, stood, recorded, by)?;
        self.hasten(call);
        Ok(answer)
    }

    /// Takes note of every new event; says how many there were.
    pub(super) async fn observe(&mut self, process: usize) -> Result<usize, Broken> {
        let ledger = self.ledger(process).unwrap();
        let mut seen = 0;
        for session in self.sessions.clone() {
            let known = self.model.events.get(&session).map_or(0, Vec::len) as u64;
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

    /// What no event tells, of one request; now and then everything. Events are held against what
    /// is known after each call.
    pub(super) async fn look(&mut self) -> Result<(), Broken> {
        let process = self.running();
        let ledger = self.ledger(process).unwrap();
        let requests: Vec<_> = self.model.requests.iter().collect();
        let looks = self.random.chance(300);
        if let Some((request, state)) = self.random.pick(&requests).filter(|_| looks) {
            let stored = ledger.request(**request).await?.state;
            Broken::unless(stored == **state, || {
                format!("{request} is {stored}, and was {state}")
            })?;
            let account = ledger.account(**request).await?;
            let total = self.model.money.total(**request);
            Broken::unless(account.conserves() && account.total.tokens == total, || {
                format!("the account of {request} should have {total} tokens: {account:?}")
            })?;
            let spent = ledger.spent(**request).await?.tokens;
            let (least, most) = self.model.money.spent(**request);
            Broken::unless((least..=most).contains(&spent), || {
                format!("{request} has spent {spent}, and not {least} to {most}")
            })?;
        }
        if self.step.is_multiple_of(WHOLE) {
            self.check(&ledger).await?;
        }
        Ok(())
    }

    pub(super) async fn check(&self, ledger: &Ledger) -> Result<(), Broken> {
        let found = ledger.check().await?;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Broken::unless(found.is_empty(), || format!("the check found {found:#?}"))
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
        let events = self.model.events.values().map(Vec::len);
        Tally {
            integrated: integrated.count() as u64,
            events: events.sum::<usize>() as u64,
            resumed: self.model.resumed,
            ..self.count
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
