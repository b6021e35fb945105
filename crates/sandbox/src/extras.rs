//! What a sandbox gets beyond what every one has, because its user asked for it by name: never because
//! a repository or an agent did.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::devices::Device;
use crate::{Error, hidden};

/// The directory inside that holds secrets, each a file of its own.
pub const SECRETS: &str = "/run/skep/secrets";

/// Secrets in one sandbox, at most.
pub const MOST_SECRETS: usize = 32;
/// The longest secret, in bytes.
pub const LONGEST_SECRET: usize = 64 << 10;
/// What all of one sandbox take, at most, in bytes: they are in memory that is never swapped.
pub const ALL_SECRETS: usize = 256 << 10;
const LONGEST_NAME: usize = 64;

/// What a sandbox gets beyond what every one has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// Files in memory that commands can read.
    pub secrets: Vec<Secret>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Whether what runs inside may make namespaces of its own: containers, or sandboxes.
    pub nested: bool,
}

impl Extras {
    /// Whether there is nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what no sandbox may be given.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Spec { what });
        if self.secrets.len() > MOST_SECRETS {
            return refuse(format!("it has more than {MOST_SECRETS} secrets"));
        }
        let all: usize = self.secrets.iter().map(|one| one.value.len()).sum();
        if all > ALL_SECRETS {
            return refuse(format!("its secrets have more than {ALL_SECRETS} bytes"));
        }
        for (index, one) in self.secrets.iter().enumerate() {
            let mut before = self.secrets.iter().take(index);
            if before.any(|other| other.name == one.name) {
                return refuse(format!("two of its secrets have the name `{}`", one.name));
            }
        }
        Ok(())
    }

    /// The same text without the values of secrets.
    pub(crate) fn hide(&self, text: String) -> String {
        let values = self.secrets.iter();
        let values = values.filter_map(|one| std::str::from_utf8(&one.value).ok());
        hidden::without(values.collect(), text)
    }
}

/// A file in memory that commands can read, and that no disk ever holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    value: Vec<u8>,
}

impl Secret {
    /// A secret with a name that can be a file's.
    ///
    /// # Errors
    /// [`Error::Spec`] where the name cannot be one, or the value is longer than any may be.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let (name, value) = (name.into(), value.into());
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty()
            || name.starts_with('.')
            || name.len() > LONGEST_NAME
            || !name.chars().all(fits)
        {
            return Err(Error::Spec {
                what: format!(
                    "`{}` cannot be the name of a secret: it takes up to {LONGEST_NAME} letters, digits, `-`, `_` and `.`",
                    name.escape_debug()
                ),
            });
        }
        if value.len() > LONGEST_SECRET {
            return Err(Error::Spec {
                what: format!("the secret `{name}` has more than {LONGEST_SECRET} bytes"),
            });
        }
        Ok(Self { name, value })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as commands see it.
    pub fn inside(&self) -> PathBuf {
        Path::new(SECRETS).join(&self.name)
    }

    /// What is in it, for whoever hands it on.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, hidden::IN_PLACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_value_is_shown_nowhere() {
        let extras = Extras {
            secrets: vec![
                Secret::new("token", "hush-hush\n").unwrap(),
                Secret::new("pair", "user\nopen sesame").unwrap(),
            ],
            ..Extras::default()
        };
        let shown = format!("{extras:?}");
        assert!(
            shown.contains("token") && !shown.contains("hush"),
            "{shown}"
        );
        let kept = extras.hide("it is hush-hush, or open sesame".into());
        assert_eq!(kept, "it is [hidden], or [hidden]");
    }

    #[test]
    fn secrets_have_bounds_and_names_that_are_files() {
        for name in ["", ".", "..", ".x", "a/b", "a b", "a\n", &"x".repeat(65)] {
            assert!(Secret::new(name, "value").is_err(), "{name:?}");
        }
        assert!(Secret::new("API_KEY.txt", vec![0; LONGEST_SECRET]).is_ok());
        assert!(Secret::new("x", vec![0; LONGEST_SECRET + 1]).is_err());
        let of = |names: &[&str], bytes: usize| {
            let secrets = names.iter();
            let secrets = secrets.map(|name| Secret::new(*name, vec![b'x'; bytes]).unwrap());
            let extras = Extras {
                secrets: secrets.collect(),
                ..Extras::default()
            };
            extras.check()
        };
        assert!(of(&["a", "b"], 1).is_ok());
        assert!(of(&["a", "a"], 1).is_err(), "two of one name");
        assert!(of(&["a", "b", "c", "d", "e"], LONGEST_SECRET).is_err());
        let names: Vec<String> = (0..=MOST_SECRETS).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(of(&names, 1).is_err(), "too many");
    }
}
