//! Limits: how many jobs may be under way at once, of a repository, an agent or a provider.

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    queue::{self, Candidate},
    sql::{Key, Sql, all, get, number, one, run, small},
};
use domain::{JobId, RepositoryId};

/// The longest name of an agent or provider, in bytes.
const MAX_NAME: usize = 200;

/// What a limit is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limited {
    /// The jobs of a repository.
    Repository(RepositoryId),
    /// The jobs of an agent, by the name of its profile.
    Agent(String),
    /// The jobs whose model is of a provider, by its name.
    Provider(String),
}

impl Limited {
    fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Repository(id) => ("repository", id.key().to_string()),
            Self::Agent(name) => ("agent", name.clone()),
            Self::Provider(name) => ("provider", name.clone()),
        }
    }

    fn read(kind: &str, name: String) -> Result<Self, Trouble> {
        match kind {
            "repository" => name
                .parse()
                .map(|key| Self::Repository(Key::read(key)))
                .map_err(|_| Trouble::Row(format!("`{name}` is not the key of a repository"))),
            "agent" => Ok(Self::Agent(name)),
            "provider" => Ok(Self::Provider(name)),
            other => Err(Trouble::Row(format!("a limit is about a `{other}`"))),
        }
    }
}

/// How many jobs may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub of: Limited,
    /// How many.
    pub most: u32,
}

impl Ledger {
    /// Limits how many jobs of something may be under way at once; none takes the limit away.
    /// Jobs that are under way go on.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a name is empty or too long.
    pub async fn set_limit(&self, of: Limited, most: Option<u32>) -> Result<(), Error> {
        let (kind, name) = of.columns();
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Error::Invalid(format!(
                "the name of {} {kind} has 1 to {MAX_NAME} bytes, not {}",
                if kind == "agent" { "an" } else { "a" },
                name.len()
            )));
        }
        self.write("set a limit", move |verb| {
            match most {
                Some(most) => run(
                    verb,
                    "INSERT INTO limits (kind, name, most) VALUES (?1, ?2, ?3) \
                     ON CONFLICT DO UPDATE SET most = ?3",
                    (kind, &name, number(most.into())),
                )?,
                None => run(
                    verb,
                    "DELETE FROM limits WHERE kind = ?1 AND name = ?2",
                    (kind, &name),
                )?,
            };
            Ok(())
        })
        .await
    }

    /// The limits that are set.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn limits(&self) -> Result<Vec<Limit>, Error> {
        self.read("read limits", all_of).await
    }
}

pub(crate) fn all_of(sql: &Sql) -> Result<Vec<Limit>, Trouble> {
    all(
        sql,
        "SELECT kind, name, most FROM limits ORDER BY kind, name",
        [],
        |row| {
            Ok(Limit {
                of: Limited::read(&get::<String>(row, 0)?, get(row, 1)?)?,
                most: small(row, 2)?,
            })
        },
    )
}

/// Whether one more job of this queue may be held.
pub(crate) fn allow(sql: &Sql, limits: &[Limit], queue: &Candidate) -> Result<bool, Trouble> {
    for limit in limits {
        if is_reached(sql, limit, queue)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The limits that keep a job from being claimed now.
pub(crate) fn reached(sql: &Sql, job: JobId) -> Result<Vec<Limit>, Trouble> {
    let queue = one(
        sql,
        queue::candidate!(" FROM jobs j JOIN queues q ON q.n = j.queue WHERE j.id = ?1"),
        [job.key()],
        Candidate::read,
    )?;
    let Some(queue) = queue else {
        return Ok(Vec::new());
    };
    let mut reached = Vec::new();
    for limit in all_of(sql)? {
        if is_reached(sql, &limit, &queue)? {
            reached.push(limit);
        }
    }
    Ok(reached)
}

fn is_reached(sql: &Sql, limit: &Limit, queue: &Candidate) -> Result<bool, Trouble> {
    let (text, concerned) = match &limit.of {
        Limited::Repository(id) => (
            "SELECT COALESCE(SUM(held), 0) FROM queues WHERE kind = 1 AND repository = ?1",
            id.key() == queue.repository,
        ),
        Limited::Agent(name) => (
            "SELECT COALESCE(SUM(held), 0) FROM queues WHERE kind = 1 AND agent = ?1",
            *name == queue.agent,
        ),
        Limited::Provider(name) => (
            "SELECT COALESCE(SUM(held), 0) FROM queues WHERE kind = 1 AND provider = ?1",
            *name == queue.provider,
        ),
    };
    if !concerned {
        return Ok(false);
    }
    let (_, name) = limit.of.columns();
    let held = one(sql, text, [name], |row| small(row, 0))?.unwrap_or(0);
    Ok(held >= limit.most)
}
