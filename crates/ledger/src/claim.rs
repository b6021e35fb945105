//! Claims: whoever is free takes what is next in the queues.
//!
//! A claim first ends leases whose time has come, and wakes what was parked until now. One that
//! finds nothing also tests the locks of owners, at most every 100 ms, and looks again.

use crate::{
    error::{Error, Trouble},
    history,
    lease::{self, Lease, Subject},
    ledger::Ledger,
    owner::{Owner, OwnerId},
    postpone,
    queue::{self, Kind, Next, Seek},
    read::{self, StoredRequest},
    resume::{self, OpenAttempt},
    sql::{Key, id, one},
    transition,
    writer::Verb,
};
use domain::{
    ChangeId, Failure, JobId,
    entity::{Change, Job, Request},
    state::{ChangeCommand, JobCommand, RequestCommand},
};

/// A request that is to be planned.
#[derive(Debug, Clone)]
pub struct ClaimedRequest {
    /// The claim.
    pub lease: Lease,
    /// The request.
    pub request: Request,
}

/// A job that is to be done.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The claim.
    pub lease: Lease,
    /// The job.
    pub job: Job,
    /// Its request.
    pub request: Request,
    /// The attempt that its last holder left: resume it, or lose it, before anything else.
    pub attempt: Option<OpenAttempt>,
}

/// A change that is to be merged.
#[derive(Debug, Clone)]
pub struct ClaimedChange {
    /// The claim.
    pub lease: Lease,
    /// The change. Where `integrated` is there already, an integrator was about to land that
    /// commit when it was lost: look whether it is on the branch.
    pub change: Change,
    /// Its request. Where it is cancelled, land nothing: settle the change as it is found.
    pub request: Request,
    /// Why it is not to be tried again: its integrator was lost too often. What was about to land
    /// may be on the branch, so settle it as it is found: land nothing, and reject it for this
    /// where it is not there.
    pub given_up: Option<Failure>,
}

impl Ledger {
    /// The next request to plan of those that `seek` allows.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_request(
        &self,
        owner: &Owner,
        seek: impl Into<Seek>,
    ) -> Result<Option<ClaimedRequest>, Error> {
        let (owner, seek) = (owner.clone(), seek.into());
        const DOING: &str = "claim a request";
        let claimed = self
            .write(DOING, move |verb| {
                claim(verb, |verb| request(verb, owner.id(), &seek))
            })
            .await?;
        claimed
            .map(|(lease, request)| {
                Ok(ClaimedRequest {
                    lease,
                    request: request.read()?,
                })
            })
            .transpose()
            .map_err(|trouble: Trouble| trouble.during(DOING))
    }

    /// The next job to do of those that `seek` allows: by priority and age, in turns between
    /// repositories and users, no more at once than requests and limits allow.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_job(
        &self,
        owner: &Owner,
        seek: impl Into<Seek>,
    ) -> Result<Option<ClaimedJob>, Error> {
        let (owner, seek) = (owner.clone(), seek.into());
        self.write("claim a job", move |verb| {
            claim(verb, |verb| job(verb, owner.id(), &seek))
        })
        .await
    }

    /// The next change to merge of those that `seek` allows, unless another change of the same
    /// repository and integration branch is in hand.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_change(
        &self,
        owner: &Owner,
        seek: impl Into<Seek>,
    ) -> Result<Option<ClaimedChange>, Error> {
        let (owner, seek) = (owner.clone(), seek.into());
        self.write("claim a change", move |verb| {
            claim(verb, |verb| change(verb, owner.id(), &seek))
        })
        .await
    }
}

pub(crate) fn claim<T>(
    verb: &mut Verb<'_>,
    mut take: impl FnMut(&mut Verb<'_>) -> Result<Option<T>, Trouble>,
) -> Result<Option<T>, Trouble> {
    // When something is due next stands in the queues too.
    verb.store_counts()?;
    lease::end_due(verb)?;
    if let Some(taken) = take(verb)? {
        return Ok(Some(taken));
    }
    if verb.known.is_test_due(verb.now) && lease::sweep(verb)? > 0 {
        return take(verb);
    }
    Ok(None)
}

fn request(
    verb: &mut Verb<'_>,
    owner: OwnerId,
    seek: &Seek,
) -> Result<Option<(Lease, StoredRequest)>, Trouble> {
    let Some(next) = queue::next(verb, Kind::Request, seek)? else {
        return Ok(None);
    };
    let request = next.request;
    transition::request(verb, request, RequestCommand::Plan, None)?;
    let stored = read::stored_request(verb, request)?;
    let of = (stored.session(), request);
    let lease = lease::grant(verb, owner, Subject::Request(request), of)?;
    Ok(Some((lease, stored)))
}

fn job(verb: &mut Verb<'_>, owner: OwnerId, seek: &Seek) -> Result<Option<ClaimedJob>, Trouble> {
    let Some(Next { row, .. }) = queue::next(verb, Kind::Job, seek)? else {
        return Ok(None);
    };
    let job: JobId = named(verb, "SELECT id FROM jobs WHERE n = ?1", row)?;
    transition::job(verb, job, JobCommand::Claim, None)?;
    history::claimed(verb, row)?;
    let attempt = resume::open_attempt(verb, job)?;
    let job = read::job(verb, job)?;
    let request = read::request(verb, job.request)?;
    let of = (request.session, request.id);
    Ok(Some(ClaimedJob {
        lease: lease::grant(verb, owner, Subject::Job(job.id), of)?,
        request,
        job,
        attempt,
    }))
}

fn change(
    verb: &mut Verb<'_>,
    owner: OwnerId,
    seek: &Seek,
) -> Result<Option<ClaimedChange>, Trouble> {
    let Some(Next { row, .. }) = queue::next(verb, Kind::Change, seek)? else {
        return Ok(None);
    };
    let change: ChangeId = named(verb, "SELECT id FROM changes WHERE n = ?1", row)?;
    let request = transition::change(verb, change, ChangeCommand::Merge, Default::default())?;
    let request = read::request(verb, request)?;
    let of = (request.session, request.id);
    Ok(Some(ClaimedChange {
        lease: lease::grant(verb, owner, Subject::Change(change), of)?,
        change: read::change(verb, change)?,
        request,
        given_up: postpone::given_up(verb, change)?,
    }))
}

/// The id of what is offered.
fn named<K: Key>(verb: &Verb<'_>, text: &'static str, row: i64) -> Result<K, Trouble> {
    one(verb, text, [row], |row| id(row, 0))?
        .ok_or_else(|| Trouble::Row(format!("the row {row} is offered and is not there")))
}
