//! Accounts and grants: nothing is spent that was not reserved durably before.
//!
//! A request has an account; each job's is carved from it. A grant draws on the account of its
//! attempt's job, or on the request's where a planner spends. When a grant closes, what it had
//! reserved counts as spent; when a job ends, what its account committed is committed in the
//! request's, and the rest is free there again.

use crate::{
    account, attempt,
    blob::references,
    cassette::Exchange,
    error::{Error, Trouble},
    grant,
    lease::{self, Lease},
    ledger::Ledger,
    pending::Asked,
    sql::{Key, Sql, all, get, number, one, run, to_json, to_maybe_json},
    writer::Verb,
};
use domain::{
    Amount, AttemptId, GrantId, JobId, RequestId,
    budget::{Account, Refused},
    event::Body,
};
use sha2::{Digest, Sha256};

/// Who spends.
#[derive(Debug, Clone, Copy)]
pub enum Spender<'a> {
    /// An attempt, under its job's lease.
    Attempt(&'a Lease, AttemptId),
    /// A planner, under its request's lease.
    Plan(&'a Lease),
}

impl Ledger {
    /// Opens a grant: a spender's way to its job's or request's account. It is closed when the
    /// lease ends.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Invalid`] when the attempt is not the one that is open.
    pub async fn open_grant(&self, spender: Spender<'_>) -> Result<GrantId, Error> {
        let (lease, attempt) = match spender {
            Spender::Attempt(lease, attempt) => (lease.clone(), Some(attempt)),
            Spender::Plan(lease) => (lease.clone(), None),
        };
        self.write("open a grant", move |verb| {
            open_grant(verb, &lease, attempt)
        })
        .await
    }

    /// Reserves an estimate for a call. When this returns, the call may be made. The calls of a
    /// grant are numbered from one, without a gap, in the order in which they are reserved; one
    /// that was refused has no number. The same again is the same reservation.
    ///
    /// # Errors
    /// [`Error::Refused`] when the budget does not have it, or the grant or a budget above it is
    /// closed; [`Error::CallTaken`] when the call has another amount reserved;
    /// [`Error::Settled`] when it is over; [`Error::Invalid`] when its number is not the next one.
    pub async fn reserve(&self, grant: GrantId, call: u64, amount: Amount) -> Result<(), Error> {
        self.write("reserve a part of a budget", move |verb| {
            let mut row = grant::open(verb, grant)?;
            let asked = row.pending.reserve(grant, row.calls, call, amount)?;
            if asked == Asked::Again {
                return Ok(());
            }
            let account = account::load(verb, row.account)?;
            if account::is_closed_above(verb, row.account)? {
                return Err(Refused::Closed.into());
            }
            account::store(verb, row.account, account.reserve(amount)?)?;
            row.calls = call;
            grant::set_pending(verb, &row)
        })
        .await
    }

    /// Settles a call: of what was reserved for it, what the event [`Body::ModelCalled`] says was
    /// spent. Its event and its exchange are recorded with it. The same again changes nothing.
    ///
    /// # Errors
    /// [`Error::CallTaken`] when the call was settled before, with something else;
    /// [`Error::Refused`] when the grant is closed, or nothing is reserved for the call;
    /// [`Error::Invalid`] when the event is another one, or of another attempt.
    pub async fn settle(
        &self,
        grant: GrantId,
        called: Body,
        exchange: Option<Exchange>,
    ) -> Result<(), Error> {
        self.write("settle a call", move |verb| {
            settle(verb, grant, called, exchange)
        })
        .await
    }

    /// Gives the reservation of a call back: it was not made. The same again changes nothing.
    ///
    /// # Errors
    /// [`Error::Settled`] when the call was settled; [`Error::Refused`] when the grant is closed,
    /// or nothing was reserved for it.
    pub async fn unreserve(&self, grant: GrantId, call: u64) -> Result<(), Error> {
        self.write("give a reservation back", move |verb| {
            let mut row = grant::open(verb, grant)?;
            let Some(reserved) = row.pending.end(call) else {
                return match settled(verb, row.n, call)? {
                    Some(_) => Err(Error::Settled { grant, call }.into()),
                    None if (1..=row.calls).contains(&call) => Ok(()),
                    None => Err(Refused::NotReserved.into()),
                };
            };
            let account = account::load(verb, row.account)?.settle(reserved, Amount::ZERO)?;
            account::store(verb, row.account, account)?;
            grant::set_pending(verb, &row)
        })
        .await
    }

    /// Closes a grant; what it had reserved counts as spent. Closing it again does nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn close_grant(&self, grant: GrantId) -> Result<(), Error> {
        self.write("close a grant", move |verb| {
            let row = grant::load(verb, grant)?;
            grant::close(verb, &row)
        })
        .await
    }

    /// The account of a request. What running jobs have spent is in their accounts, and here
    /// among what is reserved; [`Ledger::spent`] has it all.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn account(&self, request: RequestId) -> Result<Account, Error> {
        self.read("read a budget", move |sql| {
            let account = one(
                sql,
                "SELECT account FROM requests WHERE id = ?1",
                [request.key()],
                |row| get(row, 0),
            )?;
            account::load(
                sql,
                account.ok_or_else(|| Error::missing("request", request))?,
            )
        })
        .await
    }

    /// The account of a job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_account(&self, job: JobId) -> Result<Account, Error> {
        self.read("read a budget", move |sql| {
            let account = one(
                sql,
                "SELECT account FROM jobs WHERE id = ?1",
                [job.key()],
                |row| get(row, 0),
            )?;
            account::load(sql, account.ok_or_else(|| Error::missing("job", job))?)
        })
        .await
    }

    /// What a request has spent until now, its running jobs included.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn spent(&self, request: RequestId) -> Result<Amount, Error> {
        self.read("read what was spent", move |sql| spent(sql, request))
            .await
    }
}

/// What a request has spent until now, its running jobs included.
pub(crate) fn spent(sql: &Sql, request: RequestId) -> Result<Amount, Trouble> {
    let account: i64 = one(
        sql,
        "SELECT account FROM requests WHERE id = ?1",
        [request.key()],
        |row| get(row, 0),
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    let running = all(
        sql,
        "SELECT a.committed_tokens, a.committed_money, a.committed_wall, \
         a.committed_iterations FROM jobs j JOIN accounts a ON a.n = j.account \
         WHERE j.request = ?1 AND j.ended IS NULL",
        [request.key()],
        |row| account::amount(row, 0),
    )?;
    Ok(running
        .into_iter()
        .fold(account::load(sql, account)?.committed, Amount::plus))
}

fn open_grant(
    verb: &mut Verb<'_>,
    lease: &Lease,
    attempt: Option<AttemptId>,
) -> Result<GrantId, Trouble> {
    lease::verify(verb, lease)?;
    let (request, account): (RequestId, i64) = match attempt {
        Some(attempt) => {
            let held = attempt::held(verb, lease.job()?)?;
            if held.attempt != Some(attempt) {
                return Err(Error::Invalid(format!(
                    "the attempt {attempt} is not the one that the lease {} holds",
                    lease.id
                ))
                .into());
            }
            (held.request, held.account)
        }
        None => {
            let request = lease.request()?;
            let account = one(
                verb,
                "SELECT account FROM requests WHERE id = ?1",
                [request.key()],
                |row| get(row, 0),
            )?;
            let account = account.ok_or_else(|| Error::missing("request", request))?;
            (request, account)
        }
    };
    let grant: GrantId = verb.id();
    run(
        verb,
        "INSERT INTO grants (id, lease, request, attempt, account, \
         reserved_tokens, reserved_money, reserved_wall, reserved_iterations, \
         spent_tokens, spent_money, spent_wall, spent_iterations, closed) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
        (
            grant.key(),
            number(lease.token),
            request.key(),
            attempt.map(Key::key),
            account,
        ),
    )?;
    Ok(grant)
}

fn settle(
    verb: &mut Verb<'_>,
    grant: GrantId,
    called: Body,
    exchange: Option<Exchange>,
) -> Result<(), Trouble> {
    let mut row = grant::load(verb, grant)?;
    let Body::ModelCalled {
        attempt,
        call,
        spent,
        ..
    } = &called
    else {
        return Err(Error::Invalid(format!("a `{}` settles no call", called.kind())).into());
    };
    let (call, spent) = (*call, *spent);
    if *attempt != row.attempt {
        return Err(Error::Invalid(format!("the grant {grant} is of another attempt")).into());
    }
    let exchanged = to_maybe_json(exchange.as_ref())?;
    let digest = digest(&called, exchanged.as_deref())?;
    let Some(reserved) = row.pending.end(call) else {
        return match settled(verb, row.n, call)? {
            Some(known) if known == digest => Ok(()),
            Some(_) => Err(Error::CallTaken { grant, call }.into()),
            None if row.closed => Err(Refused::Closed.into()),
            None => Err(Refused::NotReserved.into()),
        };
    };
    let account = account::load(verb, row.account)?.settle(reserved, spent)?;
    account::store(verb, row.account, account)?;
    grant::set_pending(verb, &row)?;
    grant::add_spent(verb, &row, spent)?;
    run(
        verb,
        "INSERT INTO calls (granted, call, exchange, digest) VALUES (?1, ?2, ?3, ?4)",
        (row.n, number(call), exchanged, digest),
    )?;
    references::refer(verb, exchange.iter().flat_map(Exchange::blobs))?;
    verb.event(row.session, Some(row.request), called);
    Ok(())
}

/// The digest of what a call was settled with, if it was settled; empty where it was settled
/// before digests were kept.
fn settled(sql: &Sql, grant: i64, call: u64) -> Result<Option<Vec<u8>>, Trouble> {
    one(
        sql,
        "SELECT digest FROM calls WHERE granted = ?1 AND call = ?2",
        (grant, number(call)),
        |row| get(row, 0),
    )
}

/// By which a settlement is known when it comes again.
fn digest(called: &Body, exchange: Option<&str>) -> Result<Vec<u8>, Trouble> {
    let mut digest = Sha256::new();
    digest.update(to_json(called)?);
    digest.update(exchange.unwrap_or_default());
    Ok(digest.finalize().to_vec())
}

/// Spends without a reservation: what an attempt used of its job's account.
pub(crate) fn spend(
    verb: &Verb<'_>,
    account: i64,
    attempt: AttemptId,
    spent: Amount,
) -> Result<(), Trouble> {
    let after = account::load(verb, account)?.settle(Amount::ZERO, spent)?;
    account::store(verb, account, after)?;
    grant::add_to_attempt(verb, attempt, spent)
}
