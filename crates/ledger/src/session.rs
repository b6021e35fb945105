//! Sessions and repositories: what requests belong to.

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    sql::{Key, all, count, get, id, one, run, time},
    writer::Verb,
};
use domain::{RepositoryId, SessionId, Timestamp, event::Body};

/// The longest name of a session, in bytes.
pub(crate) const MAX_NAME: usize = 200;
/// The longest path of a repository, in bytes.
pub(crate) const MAX_PATH: usize = 4_096;

/// An ordered event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// When it began.
    pub created: Timestamp,
    /// The sequence of its last event.
    pub sequence: u64,
    /// The sequence of the first event that is kept.
    pub first: u64,
}

impl Ledger {
    /// The session of this name; it begins where there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is empty, too long, or has control characters.
    pub async fn session(&self, name: &str) -> Result<SessionId, Error> {
        if name.trim().is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(Error::Invalid(format!(
                "`{}` is not a name of a session: use up to {MAX_NAME} bytes of text",
                name.escape_debug().take(40).collect::<String>()
            )));
        }
        let name = name.to_owned();
        self.write("open a session", move |verb| session(verb, name))
            .await
    }

    /// Every session, the newest first.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn sessions(&self) -> Result<Vec<Session>, Error> {
        self.read("list sessions", |sql| {
            all(
                sql,
                "SELECT id, name, created, sequence, first FROM sessions ORDER BY n DESC",
                [],
                |row| {
                    Ok(Session {
                        id: id(row, 0)?,
                        name: get(row, 1)?,
                        created: time(row, 2)?,
                        sequence: count(row, 3)?,
                        first: count(row, 4)?,
                    })
                },
            )
        })
        .await
    }

    /// The repository at this path; it becomes known where it is not. The path is the canonical
    /// one, as the caller found it: the ledger may be on another machine and does not look.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the path is not absolute or too long.
    pub async fn repository(&self, path: &str) -> Result<RepositoryId, Error> {
        if !path.starts_with('/') || path.len() > MAX_PATH {
            return Err(Error::Invalid(format!(
                "`{}` is not the absolute path of a repository",
                path.escape_debug().take(200).collect::<String>()
            )));
        }
        let path = path.to_owned();
        self.write("register a repository", move |verb| {
            let known = one(
                verb,
                "SELECT id FROM repositories WHERE path = ?1",
                [&path],
                |row| id(row, 0),
            )?;
            if let Some(known) = known {
                return Ok(known);
            }
            let repository: RepositoryId = verb.id();
            run(
                verb,
                "INSERT INTO repositories (id, path, created) VALUES (?1, ?2, ?3)",
                (repository.key(), &path, verb.now.0),
            )?;
            Ok(repository)
        })
        .await
    }

    /// Where a repository is.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn repository_path(&self, repository: RepositoryId) -> Result<String, Error> {
        self.read("read a repository", move |sql| {
            one(
                sql,
                "SELECT path FROM repositories WHERE id = ?1",
                [repository.key()],
                |row| get(row, 0),
            )?
            .ok_or_else(|| Error::missing("repository", repository).into())
        })
        .await
    }
}

fn session(verb: &mut Verb<'_>, name: String) -> Result<SessionId, Trouble> {
    let known = one(
        verb,
        "SELECT id FROM sessions WHERE name = ?1",
        [&name],
        |row| id(row, 0),
    )?;
    if let Some(known) = known {
        return Ok(known);
    }
    let session: SessionId = verb.id();
    run(
        verb,
        "INSERT INTO sessions (id, name, created, sequence) VALUES (?1, ?2, ?3, 0)",
        (session.key(), &name, verb.now.0),
    )?;
    verb.event(session, None, Body::SessionCreated { name });
    Ok(session)
}
