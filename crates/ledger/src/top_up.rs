//! Topping up: a person adds to the budget of a request that is under way.

use crate::{
    account::{load, store},
    error::{Error, Trouble},
    key::{self, Key},
    ledger::Ledger,
    sql::{Key as _, all, get, one, to_json},
    writer::Verb,
};
use domain::{Amount, Micros, RequestId};

impl Ledger {
    /// Adds to the budget of a request that has not ended. Its jobs that have not ended get equal
    /// parts of it, and the rest is free for what comes. With a key, the same is added once,
    /// however often it is asked for.
    ///
    /// # Errors
    /// [`Error::KeyTaken`] when the key came with something else; [`Error::NotFound`];
    /// [`Error::Ended`].
    pub async fn top_up(
        &self,
        request: RequestId,
        amount: Amount,
        key: Option<&str>,
    ) -> Result<(), Error> {
        let key = key::valid(key)?;
        self.write("add to a budget", move |verb| {
            let key = match key {
                Some(name) => Some(key_of(&name, request, amount)?),
                None => None,
            };
            if let Some(key) = &key
                && key.used(verb)?.is_some()
            {
                return Ok(());
            }
            top_up(verb, request, amount)?;
            key.map_or(Ok(()), |key| key.uses(verb, request))
        })
        .await
    }
}

fn key_of(name: &str, request: RequestId, amount: Amount) -> Result<Key, Trouble> {
    let amount = to_json(&amount)?;
    let request = request.bits().to_le_bytes();
    Ok(Key::new(name, &[b"top up", &request, amount.as_bytes()]))
}

fn top_up(verb: &Verb<'_>, request: RequestId, amount: Amount) -> Result<(), Trouble> {
    let (account, ended) = one(
        verb,
        "SELECT account, ended IS NOT NULL FROM requests WHERE id = ?1",
        [request.key()],
        |row| Ok((get::<i64>(row, 0)?, get::<bool>(row, 1)?)),
    )?
    .ok_or_else(|| Error::missing("request", request))?;
    if ended {
        return Err(Error::Ended {
            kind: "request",
            name: request.to_string(),
        }
        .into());
    }
    let mut own = load(verb, account)?.top_up(amount);
    let jobs = all(
        verb,
        "SELECT account FROM jobs WHERE request = ?1 AND ended IS NULL ORDER BY n",
        [request.key()],
        |row| get::<i64>(row, 0),
    )?;
    let parts = (jobs.len() as u64).max(1);
    let part = Amount {
        tokens: amount.tokens / parts,
        money: Micros(amount.money.0 / parts),
        wall_ms: amount.wall_ms / parts,
        iterations: amount.iterations / parts,
    };
    for job in jobs {
        // What paid a debt is not there to be given on.
        let Ok(reserved) = own.reserve(part) else {
            break;
        };
        own = reserved;
        store(verb, job, load(verb, job)?.top_up(part))?;
    }
    store(verb, account, own)
}
