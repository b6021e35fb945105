//! The end: nothing goes wrong any more, and everything must come to rest as it should.

use super::{
    Broken,
    call::Call,
    disk,
    world::{PROCESSES, Role, World},
};
use domain::{ChangeId, JobState, RequestState, machine::Machine};
use skep_ledger::{Clock, Limited};
use std::{collections::BTreeMap, time::Duration};

/// The most rounds to rest.
const MOST: u64 = 4_000;

impl World {
    /// Lets everything come to rest, and looks at what is left.
    pub(crate) async fn finish(&mut self) -> Result<(), Broken> {
        self.ending = true;
        self.count.amid = self.tally().integrated;
        self.tell("nothing goes wrong from here on".into());
        for process in 0..PROCESSES {
            if self.processes[process].is_none() {
                self.start(process).await?;
            }
        }
        while !self.flights.is_empty() {
            let flight = self.flights.remove(0);
            self.arrive(flight).await?;
        }
        self.lift_limits().await?;
        self.resume_all().await?;
        let mut rested = false;
        for _ in 0..MOST {
            self.step += 1;
            let idle = self.slots.iter().all(|slot| slot.actor.is_idle());
            if idle && self.model.open().is_empty() {
                rested = true;
                break;
            }
            self.round().await?;
        }
        Broken::unless(rested, || {
            format!("it does not come to rest: {}", self.standing())
        })?;
        self.inspect().await?;
        self.clear().await
    }

    /// What is paused goes on, and nobody pauses it again.
    async fn resume_all(&mut self) -> Result<(), Broken> {
        let persons = self.slots.iter_mut();
        persons
            .filter(|slot| matches!(slot.role, Role::Person))
            .for_each(|slot| slot.again = None);
        let requests = self.model.requests.iter();
        let requests = requests.filter(|(_, state)| **state == RequestState::Paused);
        let jobs = self.model.jobs.iter();
        let jobs = jobs.filter(|(_, (_, state))| *state == JobState::Paused);
        let all: Vec<Call> = requests
            .map(|(id, _)| Call::ResumeRequest(*id))
            .chain(jobs.map(|(id, _)| Call::ResumeJob(*id)))
            .collect();
        for call in all {
            let resumed = self.execute(0, &call).await?;
            Broken::unless(resumed.is_ok(), || {
                format!("{call:?} was answered: {resumed:?}")
            })?;
        }
        Ok(())
    }

    /// Everything is old, and goes: nothing is left but what counts, and no file.
    async fn clear(&mut self) -> Result<(), Broken> {
        self.clock.forward(Duration::from_secs(3_600));
        let before = self.clock.now();
        for call in [Call::Prune(before), Call::Collect(Duration::ZERO)] {
            let done = self.execute(0, &call).await?;
            Broken::unless(done.is_ok(), || format!("{call:?} was answered: {done:?}"))?;
        }
        let ledger = self.ledger(0).unwrap();
        self.check(&ledger).await?;
        let sql = disk::open(&self.directory());
        for table in [
            "events",
            "requests",
            "asks",
            "submissions",
            "jobs",
            "specs",
            "dependencies",
            "attempts",
            "changes",
            "grants",
            "calls",
            "accounts",
            "leases",
            "outbox",
            "undelivered",
            "blobs",
        ] {
            let left: i64 = sql
                .query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| {
                    row.get(0)
                })
                .unwrap();
            Broken::unless(left == 0, || format!("{left} {table} are left"))?;
        }
        Ok(())
    }

    async fn lift_limits(&mut self) -> Result<(), Broken> {
        let repositories = self.repositories.clone();
        let repositories = repositories.into_iter().map(Limited::Repository);
        let agent = Limited::Agent("built-in".into());
        for of in repositories.chain([agent]) {
            drop(self.execute(0, &Call::Limit(of, None)).await?);
        }
        Ok(())
    }

    /// Each actor has its turn, unless it has found nothing to do since something happened last.
    async fn round(&mut self) -> Result<(), Broken> {
        let mut busy = false;
        for at in 0..self.slots.len() {
            let happened = self.model.events.count();
            if self.slots[at].quiet == Some(happened) {
                continue;
            }
            self.slots[at].quiet = None;
            let again = self.slots[at].again.take();
            let is_again = again.is_some();
            let call = match again {
                Some(call) => Some(call),
                None => self.with(at, |actor, view| actor.next(view)),
            };
            if let Some(call) = call {
                let answer = self.execute(self.slots[at].process, &call).await?;
                self.answer(at, &call, answer, is_again);
            }
            if self.slots[at].actor.is_idle() && self.slots[at].again.is_none() {
                self.slots[at].quiet = Some(happened);
            } else {
                busy = true;
            }
        }
        // Leases of what nobody does any more must end; those of who works must not.
        let span = if busy { 2_000 } else { 30_000 };
        self.clock.forward(Duration::from_millis(span));
        if !busy {
            self.slots.iter_mut().for_each(|slot| slot.quiet = None);
        }
        Ok(())
    }

    /// What must be so when everything rests.
    async fn inspect(&mut self) -> Result<(), Broken> {
        for process in 0..PROCESSES {
            let ledger = self.ledger(process).unwrap();
            for reader in &mut self.readers {
                if reader.process == process {
                    reader.read(&ledger, &self.model, u64::MAX / 2).await?;
                    Broken::unless(reader.is_done(&self.model), || {
                        "a reader has not seen every event".into()
                    })?;
                }
            }
        }
        let ledger = self.ledger(0).unwrap();
        self.check(&ledger).await?;
        for (session, log) in self.model.events.each() {
            let stored = ledger.events(session, log.first() - 1, usize::MAX).await?;
            let stored = stored.iter().map(|envelope| envelope.id);
            let known = log.kept().iter().map(|event| event.id);
            Broken::unless(stored.eq(known), || {
                format!("the events of {session} are not those that were seen")
            })?;
        }
        for (request, state) in &self.model.requests {
            if self.model.gone.contains(request) {
                continue;
            }
            let stored = ledger.request(*request).await?.state;
            Broken::unless(stored == *state && state.is_terminal(), || {
                format!("{request} is {stored}, and was {state}")
            })?;
            let spent = ledger.spent(*request).await?.tokens;
            let (_, most) = self.model.money.spent(*request);
            Broken::unless(spent == most, || {
                format!("{request} has spent {spent} tokens, and it should be {most}")
            })?;
        }
        for (grant, call) in self.outside.bill.keys() {
            // What was not settled counts with its reservation, which `spent` above has.
            let settled = self.model.money.is_settled(*grant, *call);
            self.count.unsettled += u64::from(!settled);
        }
        self.branches()?;
        self.model.notifications.are_told(&self.outside)?;
        drop(ledger);
        self.leftovers()
    }

    /// The branches hold exactly what the ledger says is integrated.
    fn branches(&self) -> Result<(), Broken> {
        let on_branches: BTreeMap<ChangeId, &String> = self
            .outside
            .branches
            .values()
            .flat_map(|branch| &branch.commits)
            .map(|(commit, change)| (*change, commit))
            .collect();
        let changes = self.model.changes.iter();
        let integrated: BTreeMap<ChangeId, &String> = changes
            .filter_map(|(id, change)| Some((*id, change.integrated.as_ref()?)))
            .collect();
        Broken::unless(on_branches == integrated, || {
            format!("the branches hold {on_branches:?}, and integrated is {integrated:?}")
        })
    }

    /// Nothing is held, offered or reserved any more.
    fn leftovers(&self) -> Result<(), Broken> {
        let sql = disk::open(&self.directory());
        for (what, query) in [
            ("leases", "SELECT COUNT(*) FROM leases"),
            ("notifications", "SELECT COUNT(*) FROM outbox"),
            ("offers", "SELECT COUNT(*) FROM offers"),
            (
                "open grants",
                "SELECT COUNT(*) FROM grants WHERE closed = 0",
            ),
            (
                "queues that count something",
                "SELECT COUNT(*) FROM queues WHERE held <> 0 OR offered <> 0 OR rank IS NOT NULL",
            ),
            (
                "accounts with something reserved",
                "SELECT COUNT(*) FROM accounts WHERE reserved_tokens <> 0 OR closed = 0",
            ),
        ] {
            let left: i64 = sql.query_row(query, [], |row| row.get(0)).unwrap();
            Broken::unless(left == 0, || format!("{left} {what} are left"))?;
        }
        Ok(())
    }
}
