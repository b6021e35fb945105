//! Finding an entity by the beginning of its id.

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    sql::{Sql, all, get},
};
use domain::{AttemptId, ChangeId, EventId, JobId, RequestId, SessionId};
use std::fmt;

/// The most matches that an ambiguous prefix is answered with.
pub const MAX_MATCHES: usize = 10;

/// What an id or its beginning names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// A session.
    Session(SessionId),
    /// A request.
    Request(RequestId),
    /// A job.
    Job(JobId),
    /// An attempt.
    Attempt(AttemptId),
    /// A change.
    Change(ChangeId),
    /// A notification that was given up, or is to be told.
    Notification(EventId),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => id.fmt(f),
            Self::Request(id) => id.fmt(f),
            Self::Job(id) => id.fmt(f),
            Self::Attempt(id) => id.fmt(f),
            Self::Change(id) => id.fmt(f),
            Self::Notification(id) => id.fmt(f),
        }
    }
}

impl Ledger {
    /// What a prefix of the text of an id names, with or without its letter and dash. A notification
    /// is named with them only: few look for one, and it should make no other prefix ambiguous.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Ambiguous`] with some of the matches.
    pub async fn find(&self, prefix: &str) -> Result<Found, Error> {
        let prefix = prefix.trim().to_ascii_lowercase();
        self.read("find an id", move |sql| find(sql, &prefix)).await
    }
}

/// A kind of entity: the letter of its ids, how its range of ids is read, and what it makes.
struct Kind {
    letter: char,
    query: &'static str,
    make: fn(u64) -> Found,
}

const KINDS: [Kind; 6] = [
    Kind {
        letter: RequestId::PREFIX,
        query: "SELECT id FROM requests WHERE id BETWEEN ?1 AND ?2 LIMIT ?3",
        make: |bits| Found::Request(RequestId::from_bits(bits)),
    },
    Kind {
        letter: JobId::PREFIX,
        query: "SELECT id FROM jobs WHERE id BETWEEN ?1 AND ?2 LIMIT ?3",
        make: |bits| Found::Job(JobId::from_bits(bits)),
    },
    Kind {
        letter: AttemptId::PREFIX,
        query: "SELECT id FROM attempts WHERE id BETWEEN ?1 AND ?2 LIMIT ?3",
        make: |bits| Found::Attempt(AttemptId::from_bits(bits)),
    },
    Kind {
        letter: ChangeId::PREFIX,
        query: "SELECT id FROM changes WHERE id BETWEEN ?1 AND ?2 LIMIT ?3",
        make: |bits| Found::Change(ChangeId::from_bits(bits)),
    },
    Kind {
        letter: SessionId::PREFIX,
        query: "SELECT id FROM sessions WHERE id BETWEEN ?1 AND ?2 LIMIT ?3",
        make: |bits| Found::Session(SessionId::from_bits(bits)),
    },
    Kind {
        letter: EventId::PREFIX,
        query: "SELECT event FROM undelivered WHERE event BETWEEN ?1 AND ?2 \
                UNION SELECT event FROM outbox WHERE event BETWEEN ?1 AND ?2 LIMIT ?3",
        make: |bits| Found::Notification(EventId::from_bits(bits)),
    },
];

/// How many characters an id has after its dash.
const LENGTH: usize = 12;

fn find(sql: &Sql, prefix: &str) -> Result<Found, Trouble> {
    let missing = || {
        Error::missing(
            "session, request, job, attempt, change or untold notification",
            prefix,
        )
    };
    let (letter, rest) = match prefix.split_once('-') {
        Some((letter, rest)) => (Some(letter), rest),
        None => (None, prefix),
    };
    let (low, high) = range(rest).ok_or_else(missing)?;
    let mut matches = Vec::new();
    let wanted = |kind: &&Kind| match letter {
        Some(letter) => letter.chars().eq([kind.letter]),
        None => kind.letter != EventId::PREFIX,
    };
    for kind in KINDS.iter().filter(wanted) {
        let ids: Vec<i64> = all(sql, kind.query, (low, high, MAX_MATCHES as i64), |row| {
            get(row, 0)
        })?;
        matches.extend(ids.into_iter().map(|id| (kind.make)(id.cast_unsigned())));
    }
    match matches.as_slice() {
        [] => Err(missing().into()),
        [only] => Ok(*only),
        _ => {
            matches.truncate(MAX_MATCHES);
            Err(Error::Ambiguous {
                prefix: prefix.into(),
                matches,
            }
            .into())
        }
    }
}

/// The first and the last id whose text begins so.
fn range(prefix: &str) -> Option<(i64, i64)> {
    if prefix.is_empty() || prefix.len() > LENGTH {
        return None;
    }
    let bits = |fill: &str| {
        let text = format!(
            "{}-{prefix}{}",
            RequestId::PREFIX,
            fill.repeat(LENGTH - prefix.len())
        );
        let id: RequestId = text.parse().ok()?;
        Some(id.bits().cast_signed())
    };
    Some((bits("0")?, bits("z")?))
}
