//! Claims: whoever is free takes the oldest that is ready.
//!
//! A claim first ends leases whose time has come. One that finds nothing also tests the locks of
//! owners, at most every 100 ms, and looks again.

use crate::{
    error::{Error, Trouble},
    lease::{self, Lease, Subject},
    ledger::Ledger,
    owner::{Owner, OwnerId},
    read,
    sql::{Key, id, one, run},
    transition,
    writer::Verb,
};
use domain::{
    ChangeId, JobId, RequestId,
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
}

impl Ledger {
    /// The oldest request that nobody has planned, or this one if it is such.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_request(
        &self,
        owner: &Owner,
        only: Option<RequestId>,
    ) -> Result<Option<ClaimedRequest>, Error> {
        let owner = owner.clone();
        self.write("claim a request", move |verb| {
            claim(verb, |verb| request(verb, owner.id(), only))
        })
        .await
    }

    /// The oldest job that is ready, of any request or of this one, unless its request has as
    /// many jobs under way as it allows.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_job(
        &self,
        owner: &Owner,
        only: Option<RequestId>,
    ) -> Result<Option<ClaimedJob>, Error> {
        let owner = owner.clone();
        self.write("claim a job", move |verb| {
            claim(verb, |verb| job(verb, owner.id(), only))
        })
        .await
    }

    /// The oldest change that waits to be merged, of any request or of this one, unless another
    /// change of the same repository and integration branch is in hand.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn claim_change(
        &self,
        owner: &Owner,
        only: Option<RequestId>,
    ) -> Result<Option<ClaimedChange>, Error> {
        let owner = owner.clone();
        self.write("claim a change", move |verb| {
            claim(verb, |verb| change(verb, owner.id(), only))
        })
        .await
    }
}

fn claim<T>(
    verb: &mut Verb<'_>,
    mut take: impl FnMut(&mut Verb<'_>) -> Result<Option<T>, Trouble>,
) -> Result<Option<T>, Trouble> {
    lease::expire_due(verb)?;
    if let Some(taken) = take(verb)? {
        return Ok(Some(taken));
    }
    if verb.probe.is_due() && lease::sweep(verb)? > 0 {
        return take(verb);
    }
    Ok(None)
}

fn request(
    verb: &mut Verb<'_>,
    owner: OwnerId,
    only: Option<RequestId>,
) -> Result<Option<ClaimedRequest>, Trouble> {
    let found: Option<RequestId> = match only {
        Some(only) => one(
            verb,
            "SELECT id FROM requests WHERE id = ?1 AND state = 'queued'",
            [only.key()],
            |row| id(row, 0),
        )?,
        None => one(
            verb,
            "SELECT id FROM requests INDEXED BY requests_queued WHERE state = 'queued' \
             ORDER BY n LIMIT 1",
            [],
            |row| id(row, 0),
        )?,
    };
    let Some(request) = found else {
        return Ok(None);
    };
    transition::request(verb, request, RequestCommand::Plan, None)?;
    Ok(Some(ClaimedRequest {
        lease: lease::grant(verb, owner, Subject::Request(request))?,
        request: read::request(verb, request)?,
    }))
}

fn job(
    verb: &mut Verb<'_>,
    owner: OwnerId,
    only: Option<RequestId>,
) -> Result<Option<ClaimedJob>, Trouble> {
    let read = |row: &rusqlite::Row<'_>| Ok((id(row, 0)?, id(row, 1)?));
    let found: Option<(JobId, RequestId)> = match only {
        Some(only) => one(
            verb,
            "SELECT j.id, j.request FROM jobs j INDEXED BY jobs_of_request \
             JOIN requests r ON r.id = j.request \
             WHERE j.request = ?1 AND j.state = 'ready' AND r.held < r.parallel \
             AND r.state IN ('working', 'integrating') ORDER BY j.n LIMIT 1",
            [only.key()],
            read,
        )?,
        None => one(
            verb,
            "SELECT j.id, j.request FROM jobs j INDEXED BY jobs_ready \
             CROSS JOIN requests r ON r.id = j.request \
             WHERE j.state = 'ready' AND r.held < r.parallel \
             AND r.state IN ('working', 'integrating') ORDER BY j.n LIMIT 1",
            [],
            read,
        )?,
    };
    let Some((job, request)) = found else {
        return Ok(None);
    };
    transition::job(verb, job, JobCommand::Claim, None)?;
    run(
        verb,
        "UPDATE jobs SET claims = claims + 1 WHERE id = ?1",
        [job.key()],
    )?;
    Ok(Some(ClaimedJob {
        lease: lease::grant(verb, owner, Subject::Job(job))?,
        job: read::job(verb, job)?,
        request: read::request(verb, request)?,
    }))
}

fn change(
    verb: &mut Verb<'_>,
    owner: OwnerId,
    only: Option<RequestId>,
) -> Result<Option<ClaimedChange>, Trouble> {
    let found: Option<ChangeId> = one(
        verb,
        "SELECT c.id FROM changes c INDEXED BY changes_queued \
         WHERE c.state = 'queued' AND (?1 IS NULL OR c.request = ?1) AND NOT EXISTS \
         (SELECT 1 FROM changes o INDEXED BY changes_in_hand WHERE o.repository = c.repository \
         AND o.branch = c.branch AND o.state IN ('merging', 'checking')) ORDER BY c.n LIMIT 1",
        [only.map(Key::key)],
        |row| id(row, 0),
    )?;
    let Some(change) = found else {
        return Ok(None);
    };
    let request = transition::change(verb, change, ChangeCommand::Merge, Default::default())?;
    Ok(Some(ClaimedChange {
        lease: lease::grant(verb, owner, Subject::Change(change))?,
        change: read::change(verb, change)?,
        request: read::request(verb, request)?,
    }))
}
