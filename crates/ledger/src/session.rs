//! Sessions and repositories: what requests belong to.

use crate::{
    error::{Error, Trouble},
    ledger::Ledger,
    sql::{Key, all, count, get, id, number, one, run, time},
    writer::Verb,
};
use domain::{RepositoryId, SessionId, Timestamp, event::Body};

/// The longest name of a session, in bytes.
pub(crate) const MAX_NAME: usize = 200;
/// The most sessions of one answer.
pub(crate) const MAX_SESSIONS: usize = 10_000;
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
    /// The session of this name; it begins where there is none. One that began under this name and
    /// has another one now is still found by it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is empty, too long, or has control characters.
    pub async fn session(&self, name: &str) -> Result<SessionId, Error> {
        let name = named(name)?;
        self.write("open a session", move |verb| session(verb, name))
            .await
    }

    /// Gives a session another name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when the name is none, or another session has it.
    pub async fn rename_session(&self, session: SessionId, name: &str) -> Result<(), Error> {
        let name = named(name)?;
        self.write("rename a session", move |verb| rename(verb, session, name))
            .await
    }

    /// The newest sessions, all or those with this text in their names; the case of ASCII letters
    /// does not matter.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn sessions(&self, text: Option<&str>, limit: usize) -> Result<Vec<Session>, Error> {
        let like = text.map(containing);
        let limit = number(limit.min(MAX_SESSIONS) as u64);
        self.read("list sessions", move |sql| {
            all(
                sql,
                "SELECT id, name, created, sequence, first FROM sessions \
                 WHERE ?1 IS NULL OR name LIKE ?1 ESCAPE '\\' ORDER BY n DESC LIMIT ?2",
                (like, limit),
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

fn named(name: &str) -> Result<String, Error> {
    if name.trim().is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err(Error::Invalid(format!(
            "`{}` is not a name of a session: use up to {MAX_NAME} bytes of text",
            name.escape_debug().take(40).collect::<String>()
        )));
    }
    Ok(name.to_owned())
}

/// The pattern of what has this text somewhere in it.
fn containing(text: &str) -> String {
    let mut like = String::from("%");
    for character in text.chars().take(MAX_NAME) {
        if matches!(character, '%' | '_' | '\\') {
            like.push('\\');
        }
        like.push(character);
    }
    like.push('%');
    like
}

fn rename(verb: &mut Verb<'_>, session: SessionId, name: String) -> Result<(), Trouble> {
    let taken = one(
        verb,
        "SELECT id FROM sessions WHERE (name = ?1 OR key = ?1) AND id <> ?2",
        (&name, session.key()),
        |row| id::<SessionId>(row, 0),
    )?;
    if let Some(other) = taken {
        return Err(Error::Invalid(format!(
            "the session {other} has this name: use another one"
        ))
        .into());
    }
    let renamed = run(
        verb,
        "UPDATE sessions SET name = ?2 WHERE id = ?1",
        (session.key(), &name),
    )?;
    if renamed == 0 {
        return Err(Error::missing("session", session).into());
    }
    verb.event(session, None, Body::SessionRenamed { name });
    Ok(())
}

fn session(verb: &mut Verb<'_>, name: String) -> Result<SessionId, Trouble> {
    let known = one(
        verb,
        "SELECT id FROM sessions WHERE key = ?1 OR name = ?1",
        [&name],
        |row| id(row, 0),
    )?;
    if let Some(known) = known {
        return Ok(known);
    }
    let session: SessionId = verb.id();
    run(
        verb,
        "INSERT INTO sessions (id, name, key, created, sequence) VALUES (?1, ?2, ?2, ?3, 0)",
        (session.key(), &name, verb.now.0),
    )?;
    verb.event(session, None, Body::SessionCreated { name });
    Ok(session)
}
