//! Accounts and grants: nothing is spent that was not reserved durably before.
//!
//! A request has an account; each job's is carved from it. A grant draws on the account of its
//! attempt's job, or on the request's where a planner spends. When a grant closes, what it had
//! reserved counts as spent; when a job ends, what its account committed is committed in the
//! request's, and the rest is free there again.

use crate::{
    attempt,
    blob::references,
    cassette::Exchange,
    error::{Error, Trouble},
    lease::{self, Lease},
    ledger::Ledger,
    pending::{Asked, Pending},
    sql::{Key, all, count, get, id, json, number, one, run, to_json, to_maybe_json},
    writer::Verb,
};
use domain::{
    Amount, AttemptId, GrantId, JobId, Micros, RequestId, SessionId,
    budget::{Account, Refused},
    event::Body,
};
use rusqlite::{Connection, Row, params_from_iter};
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
            let mut row = open(verb, grant)?;
            let asked = row.pending.reserve(grant, row.calls, call, amount)?;
            if asked == Asked::Again {
                return Ok(());
            }
            let account = load(verb, row.account)?;
            if is_closed_above(verb, row.account)? {
                return Err(Refused::Closed.into());
            }
            store(verb, row.account, account.reserve(amount)?)?;
            row.calls = call;
            set_pending(verb, &row)
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
            let mut row = open(verb, grant)?;
            let Some(reserved) = row.pending.end(call) else {
                return match settled(verb, row.n, call)? {
                    Some(_) => Err(Error::Settled { grant, call }.into()),
                    None if (1..=row.calls).contains(&call) => Ok(()),
                    None => Err(Refused::NotReserved.into()),
                };
            };
            let account = load(verb, row.account)?.settle(reserved, Amount::ZERO)?;
            store(verb, row.account, account)?;
            set_pending(verb, &row)
        })
        .await
    }

    /// Closes a grant; what it had reserved counts as spent. Closing it again does nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn close_grant(&self, grant: GrantId) -> Result<(), Error> {
        self.write("close a grant", move |verb| {
            let row = grant_row(verb, grant)?;
            close_grant(verb, &row)
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
            load(
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
            load(sql, account.ok_or_else(|| Error::missing("job", job))?)
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
pub(crate) fn spent(sql: &Connection, request: RequestId) -> Result<Amount, Trouble> {
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
        |row| amount(row, 0),
    )?;
    Ok(running
        .into_iter()
        .fold(load(sql, account)?.committed, Amount::plus))
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
    let mut row = grant_row(verb, grant)?;
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
    let account = load(verb, row.account)?.settle(reserved, spent)?;
    store(verb, row.account, account)?;
    set_pending(verb, &row)?;
    add_spent(verb, &row, spent)?;
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
fn settled(sql: &Connection, grant: i64, call: u64) -> Result<Option<Vec<u8>>, Trouble> {
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

struct GrantRow {
    n: i64,
    request: RequestId,
    session: SessionId,
    attempt: Option<AttemptId>,
    account: i64,
    closed: bool,
    /// The calls that are under way.
    pending: Pending,
    /// How many calls were reserved: the number of the last one.
    calls: u64,
}

fn read_grant(row: &Row<'_>) -> Result<GrantRow, Trouble> {
    Ok(GrantRow {
        n: get(row, 0)?,
        request: id(row, 1)?,
        session: id(row, 2)?,
        attempt: get::<Option<i64>>(row, 3)?.map(Key::read),
        account: get(row, 4)?,
        closed: get(row, 5)?,
        pending: json(row, 6)?,
        calls: count(row, 7)?,
    })
}

fn grant_row(verb: &Verb<'_>, grant: GrantId) -> Result<GrantRow, Trouble> {
    one(
        verb,
        "SELECT g.n, g.request, r.session, g.attempt, g.account, g.closed, \
         g.pending, g.calls FROM grants g JOIN requests r ON r.id = g.request WHERE g.id = ?1",
        [grant.key()],
        read_grant,
    )?
    .ok_or_else(|| Error::missing("grant", grant).into())
}

fn open(verb: &Verb<'_>, grant: GrantId) -> Result<GrantRow, Trouble> {
    let row = grant_row(verb, grant)?;
    if row.closed {
        return Err(Refused::Closed.into());
    }
    Ok(row)
}

/// Closes every open grant of a lease.
pub(crate) fn close_grants(verb: &mut Verb<'_>, lease: i64) -> Result<(), Trouble> {
    let open = all(
        verb,
        "SELECT g.n, g.request, r.session, g.attempt, g.account, g.closed, \
         g.pending, g.calls FROM grants g JOIN requests r ON r.id = g.request WHERE g.lease = ?1 AND g.closed = 0",
        [lease],
        read_grant,
    )?;
    open.iter().try_for_each(|row| close_grant(verb, row))
}

fn close_grant(verb: &Verb<'_>, row: &GrantRow) -> Result<(), Trouble> {
    if row.closed {
        return Ok(());
    }
    let reserved = row.pending.total();
    if reserved != Amount::ZERO {
        let account = load(verb, row.account)?.settle(reserved, reserved)?;
        store(verb, row.account, account)?;
        add_spent(verb, row, reserved)?;
    }
    run(
        verb,
        "UPDATE grants SET closed = 1, pending = '{}', reserved_tokens = 0, reserved_money = 0, \
         reserved_wall = 0, reserved_iterations = 0 WHERE n = ?1",
        [row.n],
    )?;
    Ok(())
}

/// Stores which calls of a grant are under way.
fn set_pending(sql: &Connection, row: &GrantRow) -> Result<(), Trouble> {
    let [tokens, money, wall, iterations] = columns(row.pending.total());
    run(
        sql,
        "UPDATE grants SET pending = ?2, calls = ?3, reserved_tokens = ?4, reserved_money = ?5, \
         reserved_wall = ?6, reserved_iterations = ?7 WHERE n = ?1",
        (
            row.n,
            to_json(&row.pending)?,
            number(row.calls),
            tokens,
            money,
            wall,
            iterations,
        ),
    )?;
    Ok(())
}

fn add_spent(verb: &Verb<'_>, grant: &GrantRow, spent: Amount) -> Result<(), Trouble> {
    let [tokens, money, wall, iterations] = columns(spent);
    run(
        verb,
        "UPDATE grants SET spent_tokens = spent_tokens + ?2, spent_money = spent_money + ?3, \
         spent_wall = spent_wall + ?4, spent_iterations = spent_iterations + ?5 WHERE n = ?1",
        (grant.n, tokens, money, wall, iterations),
    )?;
    match grant.attempt {
        Some(attempt) => add_to_attempt(verb, attempt, spent),
        None => Ok(()),
    }
}

fn add_to_attempt(verb: &Verb<'_>, attempt: AttemptId, spent: Amount) -> Result<(), Trouble> {
    let [tokens, money, wall, iterations] = columns(spent);
    run(
        verb,
        "UPDATE attempts SET tokens = tokens + ?2, money = money + ?3, wall = wall + ?4, \
         iterations = iterations + ?5 WHERE id = ?1",
        (attempt.key(), tokens, money, wall, iterations),
    )?;
    Ok(())
}

/// Spends without a reservation: what an attempt used of its job's account.
pub(crate) fn spend(
    verb: &Verb<'_>,
    account: i64,
    attempt: AttemptId,
    spent: Amount,
) -> Result<(), Trouble> {
    let after = load(verb, account)?.settle(Amount::ZERO, spent)?;
    store(verb, account, after)?;
    add_to_attempt(verb, attempt, spent)
}

/// A new account with all of `total` free.
pub(crate) fn create(sql: &Connection, total: Amount, parent: Option<i64>) -> Result<i64, Trouble> {
    run(
        sql,
        "INSERT INTO accounts VALUES (NULL, ?21, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
         ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, 0)",
        params_from_iter(
            account_columns(Account::new(total))
                .map(Some)
                .chain([parent]),
        ),
    )?;
    Ok(sql.last_insert_rowid())
}

/// A new account whose total is reserved in its parent.
pub(crate) fn carve(sql: &Connection, parent: i64, total: Amount) -> Result<i64, Trouble> {
    let above = load(sql, parent)?.reserve(total)?;
    store(sql, parent, above)?;
    create(sql, total, Some(parent))
}

/// Closes an account without a parent. What is still reserved counts as spent; mostly nothing is,
/// and then nothing else changes.
pub(crate) fn close(sql: &Connection, account: i64) -> Result<(), Trouble> {
    let closed = run(
        sql,
        "UPDATE accounts SET closed = 1 WHERE n = ?1 AND reserved_tokens = 0 \
         AND reserved_money = 0 AND reserved_wall = 0 AND reserved_iterations = 0",
        [account],
    )?;
    match closed {
        0 => store(sql, account, load(sql, account)?.close()),
        _ => Ok(()),
    }
}

/// Closes an account: its parent commits what it committed and frees the rest.
pub(crate) fn close_child(sql: &Connection, account: i64) -> Result<(), Trouble> {
    let parent: Option<i64> = one(
        sql,
        "SELECT parent FROM accounts WHERE n = ?1",
        [account],
        |row| get(row, 0),
    )?
    .flatten();
    let closed = load(sql, account)?.close();
    store(sql, account, closed)?;
    let Some(parent) = parent else { return Ok(()) };
    let above = load(sql, parent)?.settle(closed.total, closed.committed)?;
    store(sql, parent, above)
}

/// Whether an account above this one is closed.
fn is_closed_above(sql: &Connection, account: i64) -> Result<bool, Trouble> {
    let closed = one(
        sql,
        "WITH RECURSIVE above(n) AS (SELECT parent FROM accounts WHERE n = ?1 \
         UNION SELECT a.parent FROM accounts a JOIN above USING (n) WHERE a.parent IS NOT NULL) \
         SELECT 1 FROM above JOIN accounts USING (n) WHERE closed = 1 LIMIT 1",
        [account],
        |_| Ok(()),
    )?;
    Ok(closed.is_some())
}

/// An account.
pub(crate) fn load(sql: &Connection, account: i64) -> Result<Account, Trouble> {
    one(
        sql,
        "SELECT * FROM accounts WHERE n = ?1",
        [account],
        |row| read_account(row, 2),
    )?
    .ok_or_else(|| Trouble::Row(format!("the account {account} is missing")))
}

/// An account from its twenty-one columns, beginning with this one.
pub(crate) fn read_account(row: &Row<'_>, first: usize) -> Result<Account, Trouble> {
    Ok(Account {
        total: amount(row, first)?,
        free: amount(row, first + 4)?,
        reserved: amount(row, first + 8)?,
        committed: amount(row, first + 12)?,
        overdraft: amount(row, first + 16)?,
        closed: get(row, first + 20)?,
    })
}

/// Stores an account.
pub(crate) fn store(sql: &Connection, n: i64, account: Account) -> Result<(), Trouble> {
    run(
        sql,
        "UPDATE accounts SET total_tokens = ?1, total_money = ?2, total_wall = ?3, \
         total_iterations = ?4, free_tokens = ?5, free_money = ?6, free_wall = ?7, \
         free_iterations = ?8, reserved_tokens = ?9, reserved_money = ?10, reserved_wall = ?11, \
         reserved_iterations = ?12, committed_tokens = ?13, committed_money = ?14, \
         committed_wall = ?15, committed_iterations = ?16, overdraft_tokens = ?17, \
         overdraft_money = ?18, overdraft_wall = ?19, overdraft_iterations = ?20, closed = ?21 \
         WHERE n = ?22",
        params_from_iter(account_columns(account).chain([i64::from(account.closed), n])),
    )?;
    Ok(())
}

fn account_columns(account: Account) -> impl Iterator<Item = i64> {
    [
        account.total,
        account.free,
        account.reserved,
        account.committed,
        account.overdraft,
    ]
    .into_iter()
    .flat_map(columns)
}

fn columns(amount: Amount) -> [i64; 4] {
    [
        number(amount.tokens),
        number(amount.money.0),
        number(amount.wall_ms),
        number(amount.iterations),
    ]
}

/// An amount from its four columns, beginning with this one.
pub(crate) fn amount(row: &Row<'_>, first: usize) -> Result<Amount, Trouble> {
    Ok(Amount {
        tokens: count(row, first)?,
        money: Micros(count(row, first + 1)?),
        wall_ms: count(row, first + 2)?,
        iterations: count(row, first + 3)?,
    })
}
