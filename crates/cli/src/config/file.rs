//! The configuration file.

use super::{
    Budget, MAX_PARALLEL,
    forges::{self, Forge},
    limits::Limits,
    notify::{self, Notify},
    shares::Sandbox,
    store::Store,
};
use domain::{origin::Origin, time::parse_duration};
use gateway::Times;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest configuration, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is there and cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{}, line {line}: {message}{}", path.display(), suggestion(nearest.as_deref()))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: usize,
        /// What is wrong there.
        message: String,
        /// The known key that is most like the unknown one.
        nearest: Option<String>,
    },
    /// A value makes no sense.
    #[error("{}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A variable of the environment makes no sense.
    #[error("{name} in the environment: {message}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        message: String,
    },
    /// There is no home directory.
    #[error("there is no home directory: HOME is not set to an absolute path")]
    NoHome,
    /// A key cannot be read.
    #[error("the key of the provider `{provider}` cannot be read from {}", path.display())]
    Key {
        /// The provider.
        provider: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// The configuration file, as it is written.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// The model that is meant where none is named.
    pub(crate) model: Option<String>,
    /// The agent.
    pub(crate) agent: Option<String>,
    /// The budget of a request.
    #[serde(deserialize_with = "budget")]
    pub(crate) budget: Budget,
    /// How many jobs run at once.
    pub(crate) parallel: Option<u32>,
    /// The directory that holds what Skep keeps.
    pub(crate) data: Option<PathBuf>,
    /// Who serves models, by name.
    pub(crate) providers: BTreeMap<String, Provider>,
    /// Who is told when a request has ended or waits for a person.
    pub(crate) notify: Vec<Notify>,
    /// How much is taken before a submission is refused.
    pub(crate) limits: Limits,
    /// What sandboxes get of the machine.
    pub(crate) sandbox: Sandbox,
    /// What a person's own sandboxes get.
    pub(crate) shell: Shell,
    /// What bases, workspaces and mirrors may take on disk.
    pub(crate) store: Store,
    /// What may leave sandboxes.
    pub(crate) egress: domain::egress::Users,
    /// Hosts that serve repositories and issues, by name.
    pub(crate) forges: BTreeMap<String, Forge>,
}

/// What the sandboxes get that a person asks for: `skep shell` and `skep sandbox`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Shell {
    /// The person's settings for programs: a directory, or a URL.
    pub(crate) dotfiles: Option<String>,
}

/// Who serves models.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    /// What it speaks.
    pub(crate) dialect: Dialect,
    /// Where it is.
    pub(crate) base_url: String,
    /// The variable of the environment that holds its key.
    pub(crate) key_env: Option<String>,
    /// The file that holds its key.
    pub(crate) key_file: Option<PathBuf>,
    /// The model that is meant where none is named.
    pub(crate) default_model: Option<String>,
    /// Models that it has, so that a bare name finds it.
    #[serde(default)]
    pub(crate) models: Vec<String>,
    /// How long it may send nothing.
    #[serde(default, deserialize_with = "time_limit")]
    pub(crate) silence_timeout: Option<Duration>,
    /// How long a call of it may take.
    #[serde(default, deserialize_with = "time_limit")]
    pub(crate) call_timeout: Option<Duration>,
    /// What its models cost, where Skep does not know it or knows it wrongly.
    #[serde(default)]
    pub(crate) prices: BTreeMap<String, Price>,
}

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    /// OpenAI's Chat Completions, and what is compatible with it.
    ChatCompletions,
    /// Anthropic's Messages.
    Messages,
}

/// What a model costs, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    /// Input.
    pub(crate) input: f64,
    /// Output.
    pub(crate) output: f64,
    /// Input read from a cache.
    pub(crate) cache_read: Option<f64>,
    /// Input written to a cache.
    pub(crate) cache_write: Option<f64>,
}

impl Price {
    /// Dollars for a million tokens, as millionths of a dollar for a million tokens.
    pub(crate) fn micros(dollars: f64) -> u64 {
        // Refused when read if it is not in this range.
        (dollars * 1e6).round() as u64
    }

    fn is_sane(&self) -> bool {
        [
            Some(self.input),
            Some(self.output),
            self.cache_read,
            self.cache_write,
        ]
        .into_iter()
        .flatten()
        .all(|dollars| (0.0..1e6).contains(&dollars))
    }
}

fn budget<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Budget, D::Error> {
    let text = String::deserialize(from)?;
    Budget::parse(&text).map_err(serde::de::Error::custom)
}

fn time_limit<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let limit = parse_duration(&text).map_err(serde::de::Error::custom)?;
    if (Times::LEAST..=Times::MOST).contains(&limit) {
        return Ok(Some(limit));
    }
    Err(serde::de::Error::custom(format!(
        "`{text}` is no limit for a provider: write one from `1s` to `1h`"
    )))
}

/// A configuration as text. Of one that is none, the line is said in which it is not.
fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let before = error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to());
        Error::Line {
            path: path.into(),
            line: before.filter(|byte| **byte == b'\n').count() + 1,
            message: "it is no text in UTF-8".into(),
            nearest: None,
        }
    })
}

impl File {
    /// The configuration in this file; the empty one if there is no such file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable {
            path: path.into(),
            source,
        };
        let text = match std::fs::metadata(path) {
            Ok(found) if found.len() > MAX_BYTES => {
                return Err(Error::Value {
                    path: path.into(),
                    message: format!("it is longer than {MAX_BYTES} bytes"),
                });
            }
            Ok(_) => text_of(path, std::fs::read(path).map_err(unreadable)?)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(error)),
        };
        Self::parse(path, &text)
    }

    /// What a configuration says of the data directory, whatever else is wrong with it; nothing where that
    /// cannot be told.
    pub(crate) fn data_of(path: &Path) -> Option<Option<PathBuf>> {
        if std::fs::metadata(path).ok()?.len() > MAX_BYTES {
            return None;
        }
        let text = std::fs::read_to_string(path).ok()?;
        let table: toml::Table = toml::from_str(&text).ok()?;
        let Some(data) = table.get("data") else {
            return Some(None);
        };
        let data = PathBuf::from(data.as_str()?);
        data.is_absolute().then_some(Some(data))
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let file: Self = toml::from_str(text).map_err(|error| line_error(path, text, &error))?;
        file.validate(path)?;
        Ok(file)
    }

    fn validate(&self, path: &Path) -> Result<(), Error> {
        let wrong = |message: String| {
            Err(Error::Value {
                path: path.into(),
                message,
            })
        };
        if let Some(parallel) = self.parallel
            && !(1..=MAX_PARALLEL).contains(&parallel)
        {
            return wrong(format!(
                "`parallel` is {parallel}; it must be from 1 to {MAX_PARALLEL}"
            ));
        }
        if let Some(data) = &self.data
            && !data.is_absolute()
        {
            return wrong("`data` must be an absolute path".into());
        }
        if let Some(dotfiles) = &self.shell.dotfiles {
            match dotfiles.parse() {
                Ok(Origin::Path(path)) if !path.is_absolute() => {
                    return wrong(
                        "`dotfiles` in `[shell]` must be an absolute path, or a URL".into(),
                    );
                }
                Ok(_) => {}
                Err(error) => return wrong(format!("`dotfiles` in `[shell]`: {error}")),
            }
        }
        let checked = notify::validate(&self.notify)
            .and_then(|()| self.limits.validate())
            .and_then(|()| self.sandbox.validate())
            .and_then(|()| forges::validate(&self.forges));
        if let Err(message) = checked {
            return wrong(message);
        }
        if let Err(error) = self.egress.validate() {
            return wrong(error.to_string());
        }
        for (name, provider) in &self.providers {
            if provider.key_env.is_some() && provider.key_file.is_some() {
                return wrong(format!(
                    "the provider `{name}` has both `key_env` and `key_file`: keep one"
                ));
            }
            if let Some(variable) = &provider.key_env
                && !is_variable(variable)
            {
                return wrong(format!(
                    "`key_env` of the provider `{name}` is not the name of a variable: \
                     it names the variable that holds the key, and is not the key itself"
                ));
            }
            if let Some((model, _)) = provider.prices.iter().find(|(_, price)| !price.is_sane()) {
                return wrong(format!(
                    "the price of `{model}` must be in dollars for a million tokens"
                ));
            }
        }
        Ok(())
    }
}

pub(crate) fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && name.len() <= 100
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(plain)
}

fn line_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start);
    let line = 1 + text
        .bytes()
        .take(start)
        .filter(|&byte| byte == b'\n')
        .count();
    let message = error.message().trim().to_owned();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (message, nearest) = match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(unknown)) => {
            let nearest = quoted
                .map(|name| (strsim::jaro_winkler(unknown, name), name))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness > 0.6)
                .map(|(_, name)| name.to_owned());
            let hint = match unknown {
                "key" | "api_key" => {
                    ": a key is never written here; name the variable that holds it with `key_env`"
                }
                "token" => {
                    ": a key is never written here; name the variable that holds it with `key_env`, \
                     or `token_env` for a forge"
                }
                _ => "",
            };
            (
                format!("unknown key `{unknown}`{hint}"),
                nearest.filter(|_| hint.is_empty()),
            )
        }
        _ => (message, None),
    };
    Error::Line {
        path: path.into(),
        line,
        message,
        nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(Path::new("config.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_that_is_no_text_is_refused_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, b"# caf\xc3\xa9\nmodel = 'caf\xe9'\n").unwrap();
        let error = File::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: it is no text in UTF-8"), "{error}");
    }

    #[test]
    fn every_part_of_a_configuration_reads() {
        let file = parse(
            r#"
            model = "local/qwen"
            agent = "builtin"
            budget = "200k, $2"
            parallel = 4
            [limits]
            per_minute = 20
            [store]
            max = "50GiB"
            [providers.local]
            dialect = "chat-completions"
            base_url = "http://127.0.0.1:8000/v1"
            models = ["qwen"]
            [providers.proxy]
            dialect = "messages"
            base_url = "https://proxy.example"
            key_env = "PROXY_KEY"
            silence_timeout = "10m"
            call_timeout = "1h"
            [providers.proxy.prices."claude-x"]
            input = 3.0
            output = 15
            "#,
        )
        .unwrap();
        assert_eq!(file.budget.tokens, Some(200_000));
        let admission = file.limits.admission();
        assert_eq!(
            (admission.per_minute, admission.waiting),
            (Some(20), 10_000)
        );
        assert_eq!(file.store.bounds().max, Some(50 << 30));
        assert_eq!(file.store.bounds().free, None);
        assert_eq!(file.providers["local"].dialect, Dialect::ChatCompletions);
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        assert_eq!(file.providers["proxy"].silence_timeout, minutes(10));
        assert_eq!(file.providers["proxy"].call_timeout, minutes(60));
        assert_eq!(file.providers["local"].call_timeout, None);
        assert_eq!(
            Price::micros(file.providers["proxy"].prices["claude-x"].input),
            3_000_000
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
        assert_eq!(
            parse("model = 'a'\nparalel = 2\n").unwrap_err(),
            "config.toml, line 2: unknown key `paralel`; did you mean `parallel`?"
        );
        assert_eq!(
            parse("[providers.x]\ndialect='messages'\nbase_ur='y'\n").unwrap_err(),
            "config.toml, line 3: unknown key `base_ur`; did you mean `base_url`?"
        );
    }

    #[test]
    fn a_key_in_the_file_is_refused_without_showing_it() {
        let error = parse("[providers.x]\ndialect='messages'\nbase_url='y'\napi_key='sk-hidden'\n")
            .unwrap_err();
        assert!(
            error.contains("`key_env`") && !error.contains("hidden"),
            "{error}"
        );
        let error = parse("[providers.x]\ndialect='messages'\nbase_url='y'\nkey_env='sk-hidden'\n")
            .unwrap_err();
        assert!(
            error.contains("not the key itself") && !error.contains("hidden"),
            "{error}"
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (text, expected) in [
            ("parallel = 0", "from 1 to 64"),
            ("budget = 'lots'", "is not a budget"),
            ("data = 'here'", "absolute path"),
            ("[limits]\nwaiting = 0", "`waiting` in `[limits]` is 0"),
            ("[store]\nmax = '50'", "line 2: `50` is no size"),
            ("[limits]\nper_minute = 70000", "from 1 to 60000"),
            ("[limits]\nper_minut = 7", "did you mean `per_minute`?"),
            ("[sandbox]\nmemory = '8'", "line 2: `8` is no size"),
            ("[sandbox]\nmemroy = '8GiB'", "did you mean `memory`?"),
            ("[forges.'https://h/x']\nkind='gitlab'", "named by a host"),
            ("[forges.h]\nkind='svn'", "unknown variant"),
            ("[forges.h]\napi='h/api'", "not an address"),
            ("[forges.h]\ntoken_env='ghp-x'", "not the token itself"),
            (
                "[providers.x]\ndialect='messages'\nbase_url='y'\nkey_env='A'\nkey_file='b'",
                "keep one",
            ),
            (
                "[providers.x]\ndialect='other'\nbase_url='y'",
                "unknown variant",
            ),
            (
                "[providers.x]\ndialect='messages'\nbase_url='y'\n[providers.x.prices.m]\ninput=-1.0\noutput=1.0",
                "dollars for a million tokens",
            ),
            (
                "[providers.x]\ndialect='messages'\nbase_url='y'\nsilence_timeout='2h'",
                "line 4: `2h` is no limit for a provider: write one from `1s` to `1h`",
            ),
            (
                "[providers.x]\ndialect='messages'\nbase_url='y'\ncall_timeout='0s'",
                "from `1s` to `1h`",
            ),
            (
                "[providers.x]\ndialect='messages'\nbase_url='y'\ncall_timeout='soon'",
                "`soon` is not a duration",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_example_of_the_documentation_is_valid() {
        let page = include_str!("../../../../docs/configuration.md");
        let example = page.split("```toml").nth(1).unwrap();
        let file = parse(example.split("```").next().unwrap()).unwrap();
        assert_eq!(file.providers.len(), 2);
        assert_eq!(file.budget.tokens, Some(500_000));
    }

    #[test]
    fn no_file_is_an_empty_configuration() {
        let file = File::read(Path::new("/nonexistent/skep/config.toml")).unwrap();
        assert_eq!(file, File::default());
    }
}
