//! Keys: what is asked for again under the key of its first time is done once.
//!
//! A key belongs to the request that it was used for, and goes with it.

use crate::{
    error::{Error, Trouble},
    sql::{Key as _, get, id, one, run},
    writer::Verb,
};
use domain::RequestId;
use sha2::{Digest, Sha256};

/// The longest key, in bytes.
const MAX: usize = 200;

/// A key with the digest of all that was asked for under it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    name: String,
    digest: Vec<u8>,
}

/// A key that may be used at all.
pub(crate) fn valid(name: Option<&str>) -> Result<Option<String>, Error> {
    match name {
        Some(name) if name.is_empty() || name.len() > MAX => {
            Err(Error::Invalid(format!("a key has one to {MAX} bytes")))
        }
        name => Ok(name.map(str::to_owned)),
    }
}

impl Key {
    /// A key of what these parts describe: each verb has parts of its own.
    pub(crate) fn new(name: &str, parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        parts.iter().for_each(|part| digest.update(part));
        Self {
            name: name.into(),
            digest: digest.finalize().to_vec(),
        }
    }

    /// The request that it was used for, if it was.
    ///
    /// # Errors
    /// [`Error::KeyTaken`] when it was used for something else.
    pub(crate) fn used(&self, verb: &Verb<'_>) -> Result<Option<RequestId>, Trouble> {
        let known = one(
            verb,
            "SELECT digest, request FROM submissions WHERE key = ?1",
            [&self.name],
            |row| Ok((get::<Vec<u8>>(row, 0)?, id::<RequestId>(row, 1)?)),
        )?;
        match known {
            Some((digest, request)) if digest == self.digest => Ok(Some(request)),
            Some(_) => Err(Error::KeyTaken {
                key: self.name.clone(),
            }
            .into()),
            None => Ok(None),
        }
    }

    /// Uses it for a request.
    pub(crate) fn uses(&self, verb: &Verb<'_>, request: RequestId) -> Result<(), Trouble> {
        run(
            verb,
            "INSERT INTO submissions (key, digest, request) VALUES (?1, ?2, ?3)",
            (&self.name, &self.digest, request.key()),
        )?;
        Ok(())
    }
}
