//! The environment of the program, and where its files are.

use super::Error;
use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// The variables of the environment. Passed on instead of read where they are needed, so that
/// tests have their own.
#[derive(Clone)]
pub(crate) struct Environment(Arc<Lookup>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        Self(Arc::new(|name| std::env::var_os(name)))
    }

    /// An environment of these variables only.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables: std::collections::BTreeMap<String, OsString> = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), OsString::from(value)))
            .collect();
        Self(Arc::new(move |name| variables.get(name).cloned()))
    }

    /// A variable; one that is empty counts as not set.
    pub(crate) fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A variable that is text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.into_string().ok()
    }

    /// The variables that rooms below may look at: all but those that hold a key.
    pub(crate) fn without(&self, secret: Vec<String>) -> Arc<Lookup> {
        let lookup = Arc::clone(&self.0);
        Arc::new(move |name| {
            if secret.iter().any(|other| other == name) || Self::looks_secret(name) {
                return None;
            }
            lookup(name)
        })
    }

    /// Whether a variable is one for a secret, by its name.
    pub(crate) fn looks_secret(name: &str) -> bool {
        ["_KEY", "_TOKEN", "_SECRET", "_PASSWORD"]
            .iter()
            .any(|end| name.ends_with(end))
    }

    /// The home directory.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn home(&self) -> Result<PathBuf, Error> {
        self.directory("HOME").ok_or(Error::NoHome)
    }

    /// A directory that is named by an absolute path: others do not count, as the XDG
    /// specification says.
    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }

    /// The configuration file.
    ///
    /// # Errors
    /// When there is no home directory and nothing else names the place.
    pub(crate) fn config_file(&self) -> Result<PathBuf, Error> {
        if let Some(path) = self.get("SKEP_CONFIG") {
            return Ok(path.into());
        }
        let base = match self.directory("XDG_CONFIG_HOME") {
            Some(base) => base,
            None => self.home()?.join(".config"),
        };
        Ok(base.join("skep/config.toml"))
    }

    /// The directory that holds what Skep keeps, where no flag names another.
    ///
    /// # Errors
    /// When there is no home directory and nothing else names the place.
    pub(crate) fn data(&self, configured: Option<&Path>) -> Result<PathBuf, Error> {
        if let Some(path) = self.get("SKEP_DATA") {
            return Ok(path.into());
        }
        if let Some(path) = configured {
            return Ok(path.into());
        }
        let base = match self.directory("XDG_DATA_HOME") {
            Some(base) => base,
            None => self.home()?.join(".local/share"),
        };
        Ok(base.join("skep"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_where_the_xdg_specification_says() {
        let home = Environment::of([("HOME", "/home/ann")]);
        assert_eq!(
            home.config_file().unwrap(),
            Path::new("/home/ann/.config/skep/config.toml")
        );
        assert_eq!(
            home.data(None).unwrap(),
            Path::new("/home/ann/.local/share/skep")
        );
        let xdg = Environment::of([
            ("HOME", "/home/ann"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_DATA_HOME", "relative"),
        ]);
        assert_eq!(xdg.config_file().unwrap(), Path::new("/c/skep/config.toml"));
        assert_eq!(
            xdg.data(None).unwrap(),
            Path::new("/home/ann/.local/share/skep")
        );
        assert_eq!(
            Environment::of([("SKEP_DATA", "/d"), ("HOME", "/h")])
                .data(Some(Path::new("/e")))
                .unwrap(),
            Path::new("/d")
        );
        assert!(matches!(Environment::of([]).data(None), Err(Error::NoHome)));
    }

    #[test]
    fn keys_are_not_passed_on() {
        let all = Environment::of([
            ("OPENAI_API_KEY", "x"),
            ("MINE", "x"),
            ("GITHUB_TOKEN", "x"),
            ("CARGO_HOME", "/c"),
        ]);
        let passed = all.without(vec!["MINE".into()]);
        for hidden in ["OPENAI_API_KEY", "MINE", "GITHUB_TOKEN"] {
            assert_eq!(passed(hidden), None, "{hidden}");
        }
        assert_eq!(passed("CARGO_HOME").unwrap(), "/c");
    }
}
