//! Containers beside a sandbox's, such as a database, as a configuration names them.

use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::{Limits, hidden};

/// The longest value of a variable, in bytes: what is longer could not be found in what is printed.
pub const LONGEST_VALUE: usize = 32 << 10;

/// A container beside the sandbox's. It shares the sandbox's loopback, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// Its name, for people.
    pub name: String,
    /// Its image, which the engine must have.
    pub image: String,
    /// Who its command runs as, as the image's files name users; else whom the image says.
    pub user: Option<String>,
    /// What its entrypoint gets; else what the image says.
    pub command: Vec<String>,
    /// Variables beside those of the image.
    pub env: Vec<(String, Hidden)>,
    /// Directories that are in memory and may be written, beside the usual ones and the image's
    /// volumes.
    pub writable: Vec<PathBuf>,
    /// When it can be used; without a word of that, once its command has started.
    pub ready: Option<Ready>,
    /// How much it may use.
    pub limits: Limits,
}

/// When a sidecar can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// What shows it.
    pub when: When,
    /// How long that may take.
    pub within: Duration,
}

/// What shows that a sidecar can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// A connection to this port of the loopback can be made.
    Port(u16),
    /// This command succeeds in it.
    Command(Vec<String>),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "nothing answers at port {port}"),
            Self::Command(words) => write!(
                f,
                "`{}` does not succeed",
                words.first().map_or("", String::as_str)
            ),
        }
    }
}

/// A value that may be a secret: it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub(super) fn value(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hidden::IN_PLACE)
    }
}

impl Sidecar {
    /// A number that changes with what is in it, its secrets included, and that tells none of them.
    pub(super) fn mark(&self) -> u64 {
        let mut mark = std::hash::DefaultHasher::new();
        (&self.name, &self.user, &self.command, &self.writable).hash(&mut mark);
        for (name, value) in &self.env {
            (name, value.value()).hash(&mut mark);
        }
        mark.finish()
    }

    /// The same text without the values of its variables.
    pub(super) fn without_values(&self, text: String) -> String {
        let values = self.env.iter().map(|(_, value)| value.value());
        hidden::without(values.collect(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_variables_are_shown_nowhere() {
        let sidecar = Sidecar {
            name: "db".into(),
            image: "x".into(),
            user: None,
            command: Vec::new(),
            env: [
                ("A", "hush"),
                ("B", "hushhush"),
                ("C", "on"),
                ("D", "one\ntwofold\n"),
            ]
            .map(|(name, value)| (name.to_owned(), Hidden::new(value)))
            .into(),
            writable: Vec::new(),
            ready: None,
            limits: Limits::default(),
        };
        let shown = format!("{sidecar:?}");
        assert!(
            !shown.contains("hush") && shown.contains("\"A\""),
            "{shown}"
        );
        let said = sidecar.without_values("it is on: hushhush, hush, twofold".into());
        assert_eq!(said, "it is on: [hidden], [hidden], [hidden]");
    }
}
