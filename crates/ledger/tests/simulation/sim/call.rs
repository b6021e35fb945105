//! What actors ask for: a verb of the ledger, or something done to the world outside. A call is
//! plain data, so that it can be lost, done twice, or come late.

use super::{
    Broken,
    outside::{Move, Outside},
};
use domain::{
    Amount, AttemptId, BlobId, ChangeId, EventId, Failure, GrantId, JobId, Reason, RepositoryId,
    RequestId, SessionId, Timestamp, entity::Ask, event::Body, machine::Machine, plan::Plan,
};
use skep_ledger::{
    ChangeOutcome, ClaimedChange, ClaimedJob, ClaimedNotification, ClaimedRequest, Error, Exchange,
    Lease, Ledger, Limited, NewAttempt, Owner, Seek, Settlement, Spender, Subject, Unreached,
};
use std::time::Duration;

/// One call.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Submit(SessionId, Box<Ask>, Option<String>),
    CancelRequest(RequestId),
    CancelJob(JobId),
    TopUp(RequestId, Amount, Option<String>),
    Note(SessionId, String),
    Limit(Limited, Option<u32>),
    PauseRequest(RequestId),
    ResumeRequest(RequestId),
    PauseJob(JobId),
    ResumeJob(JobId),
    PutBlob(&'static str),
    /// Garbage of this age is removed.
    Collect(Duration),
    /// What had ended before this is removed.
    Prune(Timestamp),
    ClaimRequest(Seek),
    ClaimJob(Seek),
    ClaimChange,
    ClaimNotification,
    SettleNotification(Lease, Vec<Unreached>),
    Heartbeat(Lease),
    Plan(Lease, Plan),
    FailRequest(Lease, Failure),
    PostponeRequest(Lease, Failure),
    OpenGrant(Lease, Option<AttemptId>),
    /// So much for the call of this number.
    Reserve(GrantId, u64, Amount),
    Unreserve(GrantId, u64),
    Settle(GrantId, Box<(Body, Option<Exchange>)>),
    Start(Lease),
    /// It goes on with the attempt that its last holder left.
    Resume(Lease),
    /// It cannot go on with that attempt.
    Lose(Lease),
    /// Which attempt of the held job is open.
    Find(JobId),
    Run(Lease),
    Record(Lease, Vec<Body>),
    Check(Lease),
    SettleAttempt(Lease, Settlement),
    CheckChange(Lease),
    Land(Lease, String),
    SettleChange(Lease, ChangeOutcome),
    Publish(RequestId, String),
    /// Outside: from now on only this lease, or a later one, moves the branch.
    Fence(RepositoryId, u64),
    /// Outside: the branch moves, if it is where it was seen.
    Move(Move),
    /// Outside: a sink is told of an event.
    Tell(EventId, String),
    /// Outside: a model is called, and takes this.
    Model(GrantId, u64, Amount),
}

/// What a call came to.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Done,
    Request(RequestId),
    ToPlan(Option<Box<ClaimedRequest>>),
    ToDo(Option<Box<ClaimedJob>>),
    ToMerge(Option<Box<ClaimedChange>>),
    ToTell(Option<Box<ClaimedNotification>>),
    Grant(GrantId),
    Blob(BlobId),
    Attempt(Option<AttemptId>),
    Moved(bool),
}

impl Answer {
    /// Whether there was nothing to claim.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(
            self,
            Self::ToPlan(None) | Self::ToDo(None) | Self::ToMerge(None) | Self::ToTell(None)
        )
    }
}

impl Call {
    /// The lease that it carries.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Heartbeat(lease)
            | Self::Plan(lease, _)
            | Self::FailRequest(lease, _)
            | Self::PostponeRequest(lease, _)
            | Self::OpenGrant(lease, _)
            | Self::Start(lease)
            | Self::Resume(lease)
            | Self::Lose(lease)
            | Self::Run(lease)
            | Self::Record(lease, _)
            | Self::Check(lease)
            | Self::SettleAttempt(lease, _)
            | Self::CheckChange(lease)
            | Self::Land(lease, _)
            | Self::SettleChange(lease, _)
            | Self::SettleNotification(lease, _) => Some(lease),
            _ => None,
        }
    }

    pub(crate) fn is_claim(&self) -> bool {
        matches!(
            self,
            Self::ClaimRequest(_) | Self::ClaimJob(_) | Self::ClaimChange | Self::ClaimNotification
        )
    }

    pub(crate) fn is_outside(&self) -> bool {
        matches!(
            self,
            Self::Fence(..) | Self::Move(_) | Self::Tell(..) | Self::Model(..)
        )
    }

    /// Whether it may be done a second time: the world outside does nothing twice.
    pub(crate) fn may_repeat(&self) -> bool {
        !self.is_outside() && !matches!(self, Self::Find(..))
    }

    /// What kind of thing it does.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Submit(_, ask, _) if ask.included.is_empty() => "submit",
            Self::Submit(..) => "submit with a file",
            Self::CancelRequest(_) => "cancel a request",
            Self::CancelJob(_) => "cancel a job",
            Self::TopUp(..) => "top up",
            Self::Note(..) => "note",
            Self::Limit(..) => "limit",
            Self::PauseRequest(_) => "pause a request",
            Self::ResumeRequest(_) => "resume a request",
            Self::PauseJob(_) => "pause a job",
            Self::ResumeJob(_) => "resume a job",
            Self::PutBlob(_) => "put a blob",
            Self::Collect(_) => "collect garbage",
            Self::Prune(_) => "prune",
            Self::ClaimRequest(_) => "claim a request",
            Self::ClaimJob(_) => "claim a job",
            Self::ClaimChange => "claim a change",
            Self::ClaimNotification => "claim a notification",
            Self::SettleNotification(_, unreached) if unreached.is_empty() => {
                "settle a notification"
            }
            Self::SettleNotification(..) => "settle a notification in part",
            Self::Heartbeat(_) => "heartbeat",
            Self::Plan(..) => "plan",
            Self::FailRequest(..) => "fail a request",
            Self::PostponeRequest(..) => "put a request back",
            Self::OpenGrant(..) => "open a grant",
            Self::Reserve(..) => "reserve",
            Self::Unreserve(..) => "unreserve",
            Self::Settle(_, end) if end.1.is_none() => "settle a call",
            Self::Settle(..) => "settle a call with its exchange",
            Self::Start(_) => "start an attempt",
            Self::Resume(_) => "resume an attempt",
            Self::Lose(_) => "lose an attempt",
            Self::Find(_) => "find an attempt",
            Self::Run(_) => "run",
            Self::Record(_, events) if events.iter().any(|event| event.blobs().count() > 0) => {
                "record a blob"
            }
            Self::Record(..) => "record",
            Self::Check(_) => "check",
            Self::SettleAttempt(..) => "settle an attempt",
            Self::CheckChange(_) => "check a change",
            Self::Land(..) => "land",
            Self::SettleChange(_, ChangeOutcome::Postponed { .. }) => "put a change back",
            Self::SettleChange(..) => "settle a change",
            Self::Publish(..) => "publish",
            Self::Fence(..) => "fence",
            Self::Move(_) => "move a branch",
            Self::Tell(..) => "tell",
            Self::Model(..) => "call a model",
        }
    }

    /// Whether what it does is money, or counts otherwise.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(
            self,
            Self::Submit(_, _, Some(_))
                | Self::TopUp(_, _, Some(_))
                | Self::Reserve(..)
                | Self::Unreserve(..)
                | Self::Settle(..)
        )
    }

    /// The change that it lands or settles.
    pub(crate) fn lands(&self) -> Option<ChangeId> {
        match self {
            Self::Land(lease, _) | Self::SettleChange(lease, _) => match lease.subject {
                Subject::Change(change) => Some(change),
                _ => None,
            },
            Self::Move(asked) => Some(asked.change),
            _ => None,
        }
    }

    /// Does it.
    pub(crate) async fn perform(
        &self,
        ledger: &Ledger,
        owner: &Owner,
        outside: &mut Outside,
    ) -> Result<Result<Answer, Error>, Broken> {
        let done = |()| Answer::Done;
        Ok(match self.clone() {
            Self::Submit(session, ask, key) => ledger
                .submit(session, *ask, key.as_deref())
                .await
                .map(Answer::Request),
            Self::CancelRequest(request) => ledger.cancel_request(request).await.map(done),
            Self::CancelJob(job) => ledger.cancel_job(job).await.map(done),
            Self::TopUp(request, amount, key) => ledger
                .top_up(request, amount, key.as_deref())
                .await
                .map(done),
            Self::Note(session, text) => ledger.note(session, None, text).await.map(done),
            Self::Limit(of, most) => ledger.set_limit(of, most).await.map(done),
            Self::PauseRequest(request) => ledger.pause_request(request).await.map(done),
            Self::ResumeRequest(request) => ledger.resume_request(request).await.map(done),
            Self::PauseJob(job) => ledger.pause_job(job).await.map(done),
            Self::ResumeJob(job) => ledger.resume_job(job).await.map(done),
            Self::PutBlob(content) => ledger.put_blob(content).await.map(Answer::Blob),
            Self::Collect(age) => ledger.collect_garbage(age).await.map(|_| Answer::Done),
            Self::Prune(before) => ledger.prune(before).await.map(|_| Answer::Done),
            Self::ClaimNotification => {
                let claimed = ledger.claim_notification(owner).await;
                claimed.map(|claimed| Answer::ToTell(claimed.map(Box::new)))
            }
            Self::SettleNotification(lease, unreached) => ledger
                .settle_notification(&lease, unreached)
                .await
                .map(done),
            Self::ClaimRequest(seek) => {
                let claimed = ledger.claim_request(owner, seek).await;
                claimed.map(|claimed| Answer::ToPlan(claimed.map(Box::new)))
            }
            Self::ClaimJob(seek) => {
                let claimed = ledger.claim_job(owner, seek).await;
                claimed.map(|claimed| Answer::ToDo(claimed.map(Box::new)))
            }
            Self::ClaimChange => {
                let claimed = ledger.claim_change(owner, None).await;
                claimed.map(|claimed| Answer::ToMerge(claimed.map(Box::new)))
            }
            Self::Heartbeat(lease) => ledger.heartbeat(&lease).await.map(|_| Answer::Done),
            Self::Plan(lease, plan) => ledger
                .plan_request(&lease, plan, None)
                .await
                .map(|_| Answer::Done),
            Self::FailRequest(lease, failure) => {
                ledger.fail_request(&lease, failure).await.map(done)
            }
            Self::PostponeRequest(lease, failure) => {
                ledger.postpone_request(&lease, failure).await.map(done)
            }
            Self::OpenGrant(lease, attempt) => {
                let spender = match attempt {
                    Some(attempt) => Spender::Attempt(&lease, attempt),
                    None => Spender::Plan(&lease),
                };
                ledger.open_grant(spender).await.map(Answer::Grant)
            }
            Self::Reserve(grant, call, amount) => {
                ledger.reserve(grant, call, amount).await.map(done)
            }
            Self::Unreserve(grant, call) => ledger.unreserve(grant, call).await.map(done),
            Self::Settle(grant, end) => {
                let (called, exchange) = *end;
                ledger.settle(grant, called, exchange).await.map(done)
            }
            Self::Start(lease) => {
                let new = NewAttempt {
                    base: "b".repeat(40),
                    agent: "built-in".into(),
                    model: Some("test/model".into()),
                    sandbox: "namespace".into(),
                };
                let started = ledger.start_attempt(&lease, new).await;
                started.map(|attempt| Answer::Attempt(Some(attempt.id)))
            }
            Self::Resume(lease) => {
                let resumed = ledger.resume_attempt(&lease).await;
                resumed.map(|attempt| Answer::Attempt(Some(attempt.id)))
            }
            Self::Lose(lease) => {
                let failure = Failure::new(Reason::OwnerLost, "its workspace is gone");
                ledger.lose_attempt(&lease, failure).await.map(done)
            }
            Self::Find(job) => ledger.attempts(job).await.map(|attempts| {
                let open = attempts.iter().find(|attempt| !attempt.state.is_terminal());
                Answer::Attempt(open.map(|attempt| attempt.id))
            }),
            Self::Run(lease) => ledger.attempt_running(&lease).await.map(done),
            Self::Record(lease, events) => ledger.record(&lease, events).await.map(done),
            Self::Check(lease) => {
                let tree = "d".repeat(40);
                ledger.attempt_checking(&lease, tree).await.map(done)
            }
            Self::SettleAttempt(lease, settlement) => {
                let settled = ledger.settle_attempt(&lease, settlement).await;
                settled.map(|_| Answer::Done)
            }
            Self::CheckChange(lease) => ledger.change_checking(&lease).await.map(done),
            Self::Land(lease, commit) => ledger.land_change(&lease, commit).await.map(done),
            Self::SettleChange(lease, outcome) => {
                ledger.settle_change(&lease, outcome).await.map(done)
            }
            Self::Publish(request, commit) => ledger
                .published(request, "skep/integration".into(), commit, None)
                .await
                .map(done),
            Self::Fence(repository, token) => {
                outside.fence(repository, token);
                Ok(Answer::Done)
            }
            Self::Move(asked) => Ok(Answer::Moved(outside.advance(&asked)?)),
            Self::Tell(event, sink) => {
                outside.tell(event, sink);
                Ok(Answer::Done)
            }
            Self::Model(grant, call, took) => {
                outside.call(grant, call, took)?;
                Ok(Answer::Done)
            }
        })
    }
}
