//! Looking: what a call came to, and what is stored, held against what is known.

use super::{
    Broken, blobs,
    call::{Answer, Call},
    world::World,
};
use domain::Timestamp;
use skep_ledger::{Clock, Depth, Error, Ledger};

/// How often everything is looked at.
const WHOLE: u64 = 60;

impl World {
    /// Holds what a call came to against what is known.
    pub(super) async fn done(
        &mut self,
        process: usize,
        call: &Call,
        answer: &Result<Answer, Error>,
        stood: Option<bool>,
        (began, changed): (Timestamp, bool),
    ) -> Result<(), Broken> {
        if let Some(what) = super::came_to(call, answer) {
            self.count(1, what);
        }
        if call.is_claim() {
            self.model.holders.look(began);
        }
        let recorded = match changed {
            false => 0,
            true => self.observe(process).await?,
        };
        if let Call::Prune(before) = call {
            self.kept(process, Some(*before)).await?;
            if answer.is_ok() {
                self.model.is_pruned(*before)?;
            }
        }
        let by = (process, self.clock.now());
        self.model.answered(call, answer, stood, recorded, by)?;
        let directory = self.directory();
        match (call, answer) {
            (_, Err(Error::BlobMissing { id })) => {
                let there = blobs::path(&directory, *id).exists();
                Broken::unless(!there, || format!("{id} is there, and is said not to be"))
            }
            (Call::Collect(age), Ok(_)) => {
                let all = age.is_zero();
                self.model.blobs.collected(&directory, all)
            }
            _ => Ok(()),
        }
    }

    /// Looks which events are kept.
    pub(super) async fn kept(
        &mut self,
        process: usize,
        before: Option<Timestamp>,
    ) -> Result<(), Broken> {
        let ledger = self.ledger(process).unwrap();
        for session in ledger.sessions(None, 10).await? {
            let gone = self.model.pruned(session.id, session.first, before)?;
            for request in gone {
                self.count(1, "remove a request");
                let found = ledger.request(request).await;
                Broken::unless(matches!(found, Err(Error::NotFound { .. })), || {
                    format!("{request} has no events, and is there: {found:?}")
                })?;
            }
        }
        Ok(())
    }

    /// What no event tells, of one request; now and then everything. Events are held against what
    /// is known after each call.
    pub(super) async fn look(&mut self) -> Result<(), Broken> {
        let process = self.running();
        let ledger = self.ledger(process).unwrap();
        let requests = self.model.requests.iter();
        let requests: Vec<_> = requests
            .filter(|(request, _)| !self.model.gone.contains(request))
            .collect();
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
        self.model.blobs.hold(&self.directory())?;
        let named = self.model.blobs.named();
        if self.random.chance(100)
            && let Some((id, content)) = self.random.pick(&named)
        {
            let stored = ledger.blob(*id, 1_000).await?;
            Broken::unless(stored == content.as_bytes(), || {
                format!("{id} is not what was stored")
            })?;
        }
        if self.step.is_multiple_of(WHOLE) {
            self.check(&ledger).await?;
        }
        Ok(())
    }

    pub(super) async fn check(&self, ledger: &Ledger) -> Result<(), Broken> {
        let found = ledger.check_to(Depth::Blobs, |_| {}).await?;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Broken::unless(found.is_empty(), || format!("the check found {found:#?}"))
    }
}
