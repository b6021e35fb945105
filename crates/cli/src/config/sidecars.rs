//! Containers beside sandboxes.

use super::shares::{Image, LEAST_MEMORY, LEAST_PROCESSES, processors, size};
use domain::time::parse_duration;
use sandbox::{
    Limits,
    container::{self, Hidden, LONGEST_VALUE, When},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Sidecars beside one sandbox, at most, and how long each of its lists may be.
const MOST: usize = 8;
const MOST_WORDS: usize = 256;
const LONGEST_NAME: usize = 40;
/// What one gets where nothing else is said.
const MEMORY: u64 = 1 << 30;
const PROCESSES: u64 = 512;
/// How long one may take to be ready, where nothing else is said and at most.
const WITHIN: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);

/// A table of `[[sandbox.sidecar]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sidecar {
    name: String,
    image: Image,
    /// Who its command runs as.
    user: Option<String>,
    /// What its entrypoint gets.
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Value>,
    /// Directories in memory.
    #[serde(default)]
    writable: Vec<PathBuf>,
    ready: Option<Ready>,
    #[serde(default, deserialize_with = "size")]
    memory: Option<u64>,
    processes: Option<u64>,
    #[serde(default, deserialize_with = "processors")]
    cpus: Option<u64>,
}

/// A value that may be a secret: no error repeats it.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "toml::Value")]
struct Value(String);

impl TryFrom<toml::Value> for Value {
    type Error = &'static str;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err("a value in `env` of a sidecar must be a text in quotes"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// When one can be used: one of the two.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ready {
    port: Option<u16>,
    command: Option<Vec<String>>,
    #[serde(default, deserialize_with = "within")]
    within: Option<Duration>,
}

fn within<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let time = parse_duration(&text).map_err(serde::de::Error::custom)?;
    match (Duration::from_secs(1)..=LONGEST).contains(&time) {
        true => Ok(Some(time)),
        false => Err(serde::de::Error::custom(format!(
            "`{text}` is no time for a sidecar to be ready: write one from `1s` to `10m`"
        ))),
    }
}

/// Says which of them makes no sense.
pub(super) fn validate(all: &[Sidecar]) -> Result<(), String> {
    if all.len() > MOST {
        return Err(format!(
            "there are {} tables `[[sandbox.sidecar]]`; {MOST} is the most",
            all.len()
        ));
    }
    for (index, one) in all.iter().enumerate() {
        one.validate()?;
        if all.iter().take(index).any(|other| other.name == one.name) {
            return Err(format!("two sidecars are called `{}`", one.name));
        }
        let port = one.ready.as_ref().and_then(|ready| ready.port);
        let same = all.iter().take(index).find(|other| {
            port.is_some() && other.ready.as_ref().and_then(|ready| ready.port) == port
        });
        if let (Some(other), Some(port)) = (same, port) {
            return Err(format!(
                "the sidecars `{}` and `{}` both have the port {port} in `ready`, and they share one loopback: let one of them listen elsewhere",
                other.name, one.name
            ));
        }
    }
    Ok(())
}

impl Sidecar {
    fn validate(&self) -> Result<(), String> {
        let name = self.name.escape_debug();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > LONGEST_NAME || !self.name.chars().all(fits) {
            return Err(format!(
                "`{name}` is no name of a sidecar: use up to {LONGEST_NAME} of a-z, 0-9 and `-`"
            ));
        }
        let wrong = |what: &str| Err(format!("the sidecar `{name}` {what}"));
        let ready = self.ready.as_ref();
        let look = ready.and_then(|ready| ready.command.as_ref());
        let zero = |text: &str| text.contains('\0');
        let words = self.command.iter().chain(look.into_iter().flatten());
        if words.clone().count() > MOST_WORDS || words.clone().any(|word| zero(word)) {
            return wrong("has a command of too many words, or one with a zero byte");
        }
        let variable = |(name, value): (&String, &Value)| {
            !name.is_empty() && !name.contains('=') && !zero(name) && !zero(&value.0)
        };
        if self.env.len() > MOST_WORDS || !self.env.iter().all(variable) {
            return wrong("has a variable whose name or value cannot be one, or too many of them");
        }
        if self.env.values().any(|value| value.0.len() > LONGEST_VALUE) {
            return wrong("has a value in `env` of more than 32 KiB");
        }
        let plain = |path: &PathBuf| {
            let text = path.to_str().unwrap_or_default();
            path.is_absolute()
                && text != "/"
                && !text.contains(['\0', ',', ':'])
                && !text.contains("..")
        };
        if self.writable.len() > MOST_WORDS || !self.writable.iter().all(plain) {
            return wrong("has something in `writable` that is no absolute path below `/`");
        }
        let is_kernels = |path: &PathBuf| {
            let places = ["/dev", "/proc", "/sys"].map(Path::new);
            places.iter().any(|place| path.starts_with(place)) && path != Path::new("/dev/shm")
        };
        if self.writable.iter().any(is_kernels) {
            return wrong(
                "has something of `/dev`, `/proc` or `/sys` in `writable`, which are the kernel's: name directories of its image",
            );
        }
        match ready.map(|ready| (ready.port, &ready.command)) {
            None | Some((Some(1..), None)) => {}
            Some((None, Some(words))) if !words.is_empty() => {}
            Some(_) => return wrong("needs one of `port` and `command` in `ready`"),
        }
        if self.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            return wrong("has too little `memory`; it must be at least `16MiB`");
        }
        match self.processes {
            Some(count) if count < LEAST_PROCESSES => {
                wrong("has too few `processes`; it must be at least 8")
            }
            _ => Ok(()),
        }
    }

    /// What is set, and what is usual where nothing is.
    pub(super) fn made(&self) -> container::Sidecar {
        let env = self.env.iter();
        container::Sidecar {
            name: self.name.clone(),
            image: self.image.0.clone(),
            user: self.user.clone(),
            command: self.command.clone(),
            env: env
                .map(|(name, value)| (name.clone(), Hidden::new(&value.0)))
                .collect(),
            writable: self.writable.clone(),
            ready: self.ready.as_ref().and_then(Ready::made),
            limits: Limits {
                memory_bytes: self.memory.or(Some(MEMORY)),
                processes: self.processes.or(Some(PROCESSES)),
                cpu_milli: self.cpus,
                ..Limits::default()
            },
        }
    }
}

impl Ready {
    fn made(&self) -> Option<container::Ready> {
        let when = match (self.port, &self.command) {
            (Some(port), _) => When::Port(port),
            (None, Some(words)) => When::Command(words.clone()),
            (None, None) => return None,
        };
        Some(container::Ready {
            when,
            within: self.within.unwrap_or(WITHIN),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::shares::Sandbox;

    fn read(text: &str) -> Result<Vec<container::Sidecar>, String> {
        let text = format!("kind = 'container'\n{text}");
        let table: Sandbox = toml::from_str(&text).map_err(|error| error.to_string())?;
        table.validate().map(|()| table.container().sidecars)
    }

    #[test]
    fn a_sidecar_is_read_with_what_is_usual_where_nothing_is_said() {
        let all = read("[[sidecar]]\nname = 'db'\nimage = 'postgres:16'").unwrap();
        assert_eq!(
            (all[0].name.as_str(), all[0].image.as_str()),
            ("db", "postgres:16")
        );
        assert_eq!(all[0].limits.memory_bytes, Some(MEMORY));
        assert_eq!(
            (all[0].limits.processes, &all[0].ready),
            (Some(PROCESSES), &None)
        );
        let text = "[[sidecar]]\nname = 'db'\nimage = 'x'\nuser = 'postgres'\ncommand = ['a', 'b']\nenv = { KEY = 'hush' }\nwritable = ['/data']\nready = { port = 5432, within = '1m' }\nmemory = '64MiB'\nprocesses = 20\ncpus = 0.5";
        let one = read(text).unwrap().remove(0);
        let ready = one.ready.as_ref().unwrap();
        assert_eq!(
            (&ready.when, ready.within.as_secs()),
            (&When::Port(5432), 60)
        );
        assert_eq!(one.env, [("KEY".into(), Hidden::new("hush"))]);
        assert_eq!(one.limits.cpu_milli, Some(500));
        assert!(!format!("{one:?}").contains("hush"));
        let text = "[[sidecar]]\nname = 'db'\nimage = 'x'\nready = { command = ['check'] }";
        let ready = read(text).unwrap().remove(0).ready.unwrap();
        assert_eq!(
            (ready.when, ready.within),
            (When::Command(vec!["check".into()]), WITHIN)
        );
    }

    // docs/bad-input.md: Two sidecars that are ready at one port, or something of `/dev`, `/proc` or `/sys` in `writable`
    #[test]
    fn sidecars_that_make_no_sense_are_refused_and_no_value_is_told() {
        let one = |more: &str| format!("[[sidecar]]\nname = 'db'\nimage = 'x'\n{more}\n");
        for (text, expected) in [
            (one("ready = {}"), "one of `port` and `command`"),
            (one("ready = { port = 0 }"), "one of `port` and `command`"),
            (
                one("ready = { port = 1, command = ['x'] }"),
                "one of `port` and `command`",
            ),
            (
                one("ready = { port = 1, within = '11m' }"),
                "from `1s` to `10m`",
            ),
            (one("writable = ['data']"), "no absolute path"),
            (one("writable = ['/']"), "no absolute path"),
            (one("writable = ['/dev']"), "which are the kernel's"),
            (one("writable = ['/proc/x']"), "which are the kernel's"),
            (
                one("ready = { port = 9 }") + &one("ready = { port = 9 }").replace("db", "cache"),
                "`db` and `cache` both have the port 9",
            ),
            (
                "[[sidecar]]\nname = 'a'\nimage = 'x:y:z'".into(),
                "is no name of an image",
            ),
            (one("memory = '1MiB'"), "at least `16MiB`"),
            (one("processes = 1"), "at least 8"),
            (one("env = { 'A=B' = 'hush' }"), "a variable whose name"),
            (one("env = { PIN = 4711 }"), "must be a text in quotes"),
            (one("port = 1"), "unknown field `port`"),
            (one("") + &one(""), "two sidecars are called `db`"),
            (
                "[[sidecar]]\nname = 'A'\nimage = 'x'".into(),
                "is no name of a sidecar",
            ),
            ("[[sidecar]]\nname = 'a'".into(), "missing field `image`"),
            (one("").repeat(9), "8 is the most"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            let message = error.lines().last().unwrap();
            assert!(
                !message.contains("hush") && !message.contains("4711"),
                "{message}"
            );
        }
        let elsewhere: Sandbox = toml::from_str(&one("")).unwrap();
        let error = elsewhere.validate().unwrap_err();
        assert!(error.contains("`kind = \"container\"`"), "{error}");
    }
}
