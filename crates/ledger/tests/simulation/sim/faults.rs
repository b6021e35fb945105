//! What goes wrong, and when: by the seed.

use super::{
    Broken, Mistake,
    actor::Heard,
    call::Call,
    disk,
    process::Process,
    world::{Flight, PROCESSES, World},
};
use skep_ledger::Clock;
use std::time::Duration;

/// What becomes of a call.
enum Fate {
    Done,
    /// It is done, and nobody hears of it.
    AnswerLost,
    /// It never arrives.
    CallLost,
    /// It is done now, and once more later.
    Twice,
    /// It is done later.
    Late,
    /// It is done, and then its process ends.
    ThenCrash,
    /// The power is cut while it is being done.
    PowerCut,
}

impl World {
    /// So many steps in which everything may go wrong.
    pub(crate) async fn run(&mut self, steps: u64) -> Result<(), Broken> {
        for _ in 0..steps {
            self.step += 1;
            self.time_passes();
            self.one_step().await?;
            self.look().await?;
        }
        Ok(())
    }

    async fn one_step(&mut self) -> Result<(), Broken> {
        let due = self
            .flights
            .iter()
            .position(|flight| flight.due <= self.step);
        if let Some(due) = due {
            let flight = self.flights.remove(due);
            return self.arrive(flight).await;
        }
        let process = usize::try_from(self.random.below(PROCESSES as u64)).unwrap();
        if self.processes[process].is_none() {
            return match self.random.chance(300) {
                true => self.start(process).await,
                false => Ok(()),
            };
        }
        match self.random.below(1_000) {
            0..3 => self.crash(process).await,
            3..4 => self.power_cut(None).await,
            4..40 => self.read(process).await,
            40..55 => {
                self.tell("time passes for files".into());
                self.model.blobs.age(&self.directory());
                if self.mistake == Mistake::Careless {
                    self.model.blobs.lose(&self.directory());
                }
                Ok(())
            }
            _ => match self.whose_turn(process) {
                Some(at) => self.act(at).await,
                None => Ok(()),
            },
        }
    }

    /// Somebody in a process; who has something in hand is more often at work.
    fn whose_turn(&mut self, process: usize) -> Option<usize> {
        let mut actors = self.actors_of(process);
        actors.retain(|at| !self.slots[*at].waits);
        let mut busy = actors.clone();
        busy.retain(|at| !self.slots[*at].actor.is_idle());
        if !busy.is_empty() && self.random.chance(700) {
            actors = busy;
        }
        self.random.pick(&actors).copied()
    }

    fn time_passes(&mut self) {
        let random = &mut self.random;
        match random.below(1_000) {
            0..4 => self.clock.forward(Duration::from_secs(3_600)),
            4..8 => self.clock.back(Duration::from_secs(60)),
            8..25 => self
                .clock
                .forward(Duration::from_secs(30 + random.below(90))),
            _ => self
                .clock
                .forward(Duration::from_millis(random.below(3_000))),
        }
    }

    fn fate(&mut self, call: &Call) -> Fate {
        // To be late is worst for whoever is about to land something.
        let late = match self.mistake {
            Mistake::Unfenced => 500,
            _ => 120,
        };
        if call.lands().is_some() && self.random.chance(late) {
            return Fate::Late;
        }
        // To be done twice is worst for what is counted.
        if call.is_counted() && self.random.chance(80) {
            return Fate::Twice;
        }
        match self.random.below(1_000) {
            0..25 => Fate::AnswerLost,
            25..35 => Fate::CallLost,
            35..65 if call.may_repeat() => Fate::Twice,
            65..105 => Fate::Late,
            105..109 => Fate::ThenCrash,
            109..115 if !call.is_outside() => Fate::PowerCut,
            _ => Fate::Done,
        }
    }

    /// Lets an actor do what it does next.
    async fn act(&mut self, at: usize) -> Result<(), Broken> {
        let process = self.slots[at].process;
        let (call, again) = match self.slots[at].again.take() {
            Some(call) => (call, true),
            None => match self.with(at, |actor, view| actor.next(view)) {
                Some(call) => (call, false),
                None => return Ok(()),
            },
        };
        let late = if call.is_counted() { 12 } else { 40 };
        let due = self.step + 1 + self.random.below(late);
        match self.fate(&call) {
            Fate::Done => {
                let answer = self.execute(process, &call).await?;
                self.answer(at, &call, answer, again);
            }
            Fate::AnswerLost => {
                drop(self.execute(process, &call).await?);
                self.unheard(at, call);
            }
            Fate::CallLost => self.unheard(at, call),
            Fate::Twice => {
                let answer = self.execute(process, &call).await?;
                self.answer(at, &call, answer, again);
                self.flights.push(Flight {
                    due,
                    process,
                    call,
                    by: None,
                });
            }
            Fate::Late => {
                self.slots[at].waits = true;
                // Often until its lease has ended.
                let mut due = due;
                if (call.lease().is_some() || call.lands().is_some()) && self.random.chance(400) {
                    let span = 60 + self.random.below(60);
                    self.clock.forward(Duration::from_secs(span));
                    due += self.random.below(80);
                }
                let by = Some((at, self.slots[at].life, again));
                self.flights.push(Flight {
                    due,
                    process,
                    call,
                    by,
                });
            }
            Fate::ThenCrash => {
                drop(self.execute(process, &call).await?);
                self.crash(process).await?;
            }
            Fate::PowerCut => self.power_cut(Some((process, call))).await?,
        }
        Ok(())
    }

    /// An actor hears nothing of its call, and asks again or leaves all as it is.
    fn unheard(&mut self, at: usize, call: Call) {
        self.tell(format!("nobody hears of {call:?}"));
        // A model is not called again: that would be another call.
        if !matches!(call, Call::Model(..)) && self.random.chance(600) {
            self.slots[at].again = Some(call);
        } else {
            self.with(at, |actor, view| actor.hear(view, &call, Heard::Nothing));
        }
    }

    /// What was under way for a change comes just when somebody else has said something of it:
    /// the worst moment.
    pub(super) fn hasten(&mut self, call: &Call) {
        let Some(change) = call.lands() else { return };
        for flight in &mut self.flights {
            if flight.call.lands() == Some(change) && self.random.chance(700) {
                flight.due = self.step;
            }
        }
    }

    /// A call comes late. Its process may have ended since; then others do it, unless it is a
    /// claim, which would be in the name of an owner that is gone.
    pub(super) async fn arrive(&mut self, flight: Flight) -> Result<(), Broken> {
        let Flight {
            process, call, by, ..
        } = flight;
        let waits = by.filter(|(at, life, _)| self.slots[*at].life == *life);
        let process = match self.processes[process] {
            Some(_) if waits.is_some() || by.is_none() || !call.is_claim() => process,
            _ if call.is_claim() => return Ok(()),
            _ => self.running(),
        };
        self.tell("late:".into());
        let answer = self.execute(process, &call).await?;
        if let Some((at, _, again)) = waits {
            self.slots[at].waits = false;
            self.answer(at, &call, answer, again);
        }
        Ok(())
    }

    pub(super) async fn read(&mut self, process: usize) -> Result<(), Broken> {
        let Some(ledger) = self.ledger(process) else {
            return Ok(());
        };
        let most = 1 + self.random.below(30);
        let mut expired = 0;
        for reader in &mut self.readers {
            if reader.process == process {
                expired += reader.read(&ledger, &self.model, most).await?;
            }
        }
        self.count(expired, "cursor expired");
        Ok(())
    }

    /// A process ends, unless it is the last one.
    async fn crash(&mut self, process: usize) -> Result<(), Broken> {
        if self.processes.iter().flatten().count() < 2 {
            return Ok(());
        }
        self.tell(format!("process {process} is killed"));
        self.count.crashes += 1;
        self.forget(process);
        if let Some(running) = self.processes[process].take() {
            let leave_lock = self.random.chance(500);
            running.kill(leave_lock).await;
        }
        self.leave_aside(400);
        Ok(())
    }

    /// What has ended may have been removing a blob.
    fn leave_aside(&mut self, per_mille: u64) {
        let directory = self.directory();
        if self.random.chance(per_mille) && self.model.blobs.put_aside(&directory) {
            self.count(1, "leave a blob aside");
        }
    }

    /// What was in the memory of a process is gone.
    fn forget(&mut self, process: usize) {
        self.model.holders.orphan(process);
        for at in self.actors_of(process) {
            self.slots[at].begin(at);
        }
        for reader in &mut self.readers {
            if reader.process == process {
                reader.forget(&mut self.random);
            }
        }
    }

    pub(super) async fn start(&mut self, process: usize) -> Result<(), Broken> {
        self.tell(format!("process {process} starts"));
        let started = Process::start(&self.directory(), &self.clock, &self.ids).await?;
        self.processes[process] = Some(started);
        self.model.holders.look(self.clock.now());
        let pruning = self.pruning.take();
        self.kept(process, pruning).await?;
        self.observe(process).await?;
        Ok(())
    }

    /// Everything ends at once, perhaps while a verb is written; the disk is what was written of
    /// it. What was acknowledged before is on it.
    async fn power_cut(&mut self, during: Option<(usize, Call)>) -> Result<(), Broken> {
        self.count.cuts += 1;
        let from = self.directory();
        let before = disk::written(&from);
        let to = self.root.path().join((self.disks + 1).to_string());
        let mut torn = false;
        match during {
            None => {
                self.tell("the power is cut".into());
                disk::copy(&from, &to);
            }
            Some((process, call)) if self.random.chance(850) => {
                self.tell(format!("the power is cut during {call:?}"));
                // Nobody hears of it, and the run itself knows nothing of it either, if it is torn.
                let running = self.processes[process].as_ref().unwrap();
                let stood = call.lease().map(|lease| self.model.holders.stands(lease));
                let outside = &mut self.outside;
                let answer = call
                    .perform(&running.ledger, &running.owner, outside)
                    .await?;
                disk::copy(&from, &to);
                torn = disk::tear(&to, before, disk::written(&from), &mut self.random);
                if !torn {
                    let now = self.clock.now();
                    self.done(process, &call, &answer, stood, (now, true))
                        .await?;
                } else if let Call::Prune(before) = call {
                    self.pruning = Some(before);
                } else if let Call::Collect(_) = call {
                    self.model.blobs.perhaps_collected();
                }
            }
            Some((process, call)) => {
                drop(self.execute(process, &call).await?);
                self.tell("the power is cut".into());
                disk::copy(&from, &to);
            }
        }
        self.disks += 1;
        self.count.torn += u64::from(torn);
        if self.mistake == Mistake::Forgetful {
            std::fs::remove_file(to.join("ledger.db-wal")).ok();
        }
        self.flights.clear();
        for process in 0..PROCESSES {
            self.forget(process);
            if let Some(running) = self.processes[process].take() {
                running.kill(false).await;
            }
        }
        std::fs::remove_dir_all(&from).unwrap();
        self.leave_aside(700);
        let first = usize::try_from(self.random.below(PROCESSES as u64)).unwrap();
        self.start(first).await
    }
}
