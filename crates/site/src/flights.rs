//! Setups that are under way, and those who wait for them: in this process, and in others.

use crate::{error::Error, open::lock};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use workspace::{Moment, SetupBuilder};

/// Setups that are under way in this process, by key.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Arc<Flight>>>);

/// Those who wait for one setup.
#[derive(Default)]
pub(crate) struct Flight {
    pub(crate) turn: tokio::sync::Mutex<()>,
    failed: Mutex<Failed>,
}

/// How often it failed, and how the last time.
#[derive(Default)]
struct Failed {
    times: u64,
    last: Option<Failure>,
}

/// How a setup failed.
#[derive(Clone)]
pub(crate) struct Failure {
    command: String,
    how: String,
    output: String,
}

impl Failure {
    /// What others are told of; nothing where the setup itself did not fail.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Setup {
                command,
                how,
                output,
            } => Some(Self {
                command: command.clone(),
                how: how.clone(),
                output: output.clone(),
            }),
            _ => None,
        }
    }

    fn into_error(self) -> Error {
        Error::Setup {
            command: self.command,
            how: self.how,
            output: self.output,
        }
    }

    /// For another process. A command that ran holds no zero byte, and what is said of its end neither.
    pub(crate) fn text(&self) -> String {
        format!("{}\0{}\0{}", self.command, self.how, self.output)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '\0').map(str::to_owned);
        Some(Self {
            command: parts.next()?,
            how: parts.next()?,
            output: parts.next()?,
        })
    }
}

impl Flights {
    pub(crate) fn of(&self, key: &str) -> Arc<Flight> {
        let mut all = lock(&self.0);
        all.retain(|_, flight| Arc::strong_count(flight) > 1);
        Arc::clone(all.entry(key.to_owned()).or_default())
    }
}

impl Flight {
    pub(crate) fn failures(&self) -> u64 {
        lock(&self.failed).times
    }

    pub(crate) fn fail(&self, error: &Error) {
        if let Some(failure) = Failure::of(error) {
            let mut failed = lock(&self.failed);
            failed.times += 1;
            failed.last = Some(failure);
        }
    }

    /// The failure of one that was under way, or began, since it had failed so often.
    pub(crate) fn failed_since(&self, times: u64) -> Option<Error> {
        let failed = lock(&self.failed);
        let last = failed.last.clone().filter(|_| failed.times > times)?;
        Some(last.into_error())
    }
}

/// What the builder before this one said of its failure, if it began after this moment.
pub(crate) fn failed_since(builder: &SetupBuilder, asked: Moment) -> Result<Option<Error>, Error> {
    let said = builder.failed_since(asked)?;
    let failure = said.as_deref().and_then(Failure::from_text);
    Ok(failure.map(Failure::into_error))
}
