//! Who serves models, and which of them a name means.

use std::{fmt, sync::Arc, time::Duration};

use dialects::{Dialect, Price, Prices};
use http::{HeaderValue, Uri};

use crate::secret::Secret;

/// Why a model cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No provider speaks what the agent speaks.
    #[error(
        "no provider speaks {wanted}: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or add a provider to the configuration"
    )]
    NoProvider {
        /// The dialects that the agent speaks.
        wanted: String,
    },
    /// The model names a provider that is not there.
    #[error("there is no provider `{name}`{}", hint(nearest.as_deref()))]
    UnknownProvider {
        /// What was asked for.
        name: String,
        /// The provider with the most similar name.
        nearest: Option<String>,
    },
    /// The provider is there, but speaks another dialect than the agent.
    #[error("the provider `{provider}` does not speak {wanted}: choose another agent or provider")]
    OtherDialect {
        /// The provider.
        provider: String,
        /// The dialects that the agent speaks.
        wanted: String,
    },
    /// Several providers could be meant.
    #[error("the model `{model}` could be any of {}: write one of them", choices.join(", "))]
    Ambiguous {
        /// What was asked for.
        model: String,
        /// The names that leave no doubt.
        choices: Vec<String>,
    },
    /// No model was named, and the provider has no default.
    #[error("no model was chosen for the provider `{provider}`: name one with `--model`")]
    NoModel {
        /// The provider.
        provider: String,
    },
    /// A provider's settings are wrong.
    #[error("the provider `{name}` cannot be used: {what}")]
    Invalid {
        /// The provider.
        name: String,
        /// What is wrong, and what to write instead.
        what: &'static str,
    },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!(": did you mean `{name}`?"),
        None => ": a model is written PROVIDER/NAME".into(),
    }
}

/// How long a provider may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long it may send nothing, before its answer and within it.
    pub silence: Duration,
    /// How long a call may take in all.
    pub call: Duration,
}

impl Times {
    /// The least that makes sense.
    pub const LEAST: Duration = Duration::from_secs(1);
    /// The most: a turn of an agent has no more either.
    pub const MOST: Duration = Duration::from_secs(3600);
}

impl Default for Times {
    /// Five minutes and half an hour.
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(300),
            call: Duration::from_secs(1800),
        }
    }
}

/// What a caller knows of a provider.
#[derive(Clone)]
pub struct Settings {
    /// Its name in `provider/model`: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it speaks, best first.
    pub dialects: Vec<Dialect>,
    /// Where it is. For Chat Completions the address with the version
    /// (`https://api.openai.com/v1`), for Messages with or without it
    /// (`https://api.anthropic.com`). Plain `http` is used only where it says so.
    pub base_url: String,
    /// Its key; none for a server that asks for none.
    pub key: Option<Secret>,
    /// The model that is meant when none is named.
    pub default_model: Option<String>,
    /// Models that it is known to have; they decide which provider a bare name means.
    pub models: Vec<String>,
    /// How long it may take.
    pub times: Times,
}

impl Settings {
    /// Anthropic's own service.
    #[must_use]
    pub fn anthropic(key: Secret) -> Self {
        Self {
            name: "anthropic".into(),
            dialects: vec![Dialect::Messages],
            base_url: "https://api.anthropic.com".into(),
            key: Some(key),
            default_model: None,
            models: Vec::new(),
            times: Times::default(),
        }
    }

    /// OpenAI's own service.
    #[must_use]
    pub fn openai(key: Secret) -> Self {
        Self {
            name: "openai".into(),
            dialects: vec![Dialect::ChatCompletions],
            base_url: "https://api.openai.com/v1".into(),
            key: Some(key),
            default_model: None,
            models: Vec::new(),
            times: Times::default(),
        }
    }
}

/// A provider that can be called.
pub struct Provider {
    name: String,
    dialects: Vec<Dialect>,
    base: String,
    secure: bool,
    key: Option<Secret>,
    api_key: Option<HeaderValue>,
    bearer: Option<HeaderValue>,
    default_model: Option<String>,
    models: Vec<String>,
    times: Times,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("dialects", &self.dialects)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Provider {
    fn new(settings: Settings) -> Result<Self, Error> {
        let Settings {
            name,
            dialects,
            base_url,
            key,
            default_model,
            models,
            times,
        } = settings;
        let invalid = |what| Error::Invalid {
            name: name.clone(),
            what,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(invalid(
                "its name must be letters, digits, `-`, `_` or `.`, at most 64 of them",
            ));
        }
        if dialects.is_empty() {
            return Err(invalid(
                "it speaks no dialect: give `messages` or `chat-completions`",
            ));
        }
        let uri: Uri = base_url
            .trim()
            .parse()
            .map_err(|_| invalid("its base URL is not a URL: write https://HOST/PATH"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid("its base URL must begin with https:// or http://")),
        };
        let host = uri.authority().filter(|a| !a.host().is_empty());
        let host = host.ok_or_else(|| invalid("its base URL names no host"))?;
        if host.as_str().contains('@') {
            return Err(invalid(
                "its base URL holds credentials: give the key by itself",
            ));
        }
        if uri.query().is_some() {
            return Err(invalid("its base URL must not have a query"));
        }
        let base = format!(
            "{}://{host}{}",
            if secure { "https" } else { "http" },
            uri.path().trim_end_matches('/')
        );
        let key = key.filter(|key| !key.is_empty());
        let header = |prefix| match &key {
            None => Ok(None),
            Some(key) => key
                .header(prefix)
                .map(Some)
                .ok_or_else(|| invalid("its key holds characters that no key has")),
        };
        Ok(Self {
            api_key: header("")?,
            bearer: header("Bearer ")?,
            name,
            dialects,
            base,
            secure,
            key,
            default_model,
            models,
            times,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it speaks, best first.
    #[must_use]
    pub fn dialects(&self) -> &[Dialect] {
        &self.dialects
    }

    /// Where it is.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// A model that it is known to have: its default, or the first that is listed.
    #[must_use]
    pub fn some_model(&self) -> Option<&str> {
        let first = self.models.first();
        self.default_model.as_deref().or(first.map(String::as_str))
    }

    pub(crate) fn times(&self) -> Times {
        self.times
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    pub(crate) fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// The header that carries the key in this dialect.
    pub(crate) fn credential(&self, dialect: Dialect) -> Option<(&'static str, HeaderValue)> {
        match dialect {
            Dialect::Messages => Some(("x-api-key", self.api_key.clone()?)),
            Dialect::ChatCompletions => Some(("authorization", self.bearer.clone()?)),
        }
    }

    /// The address of a call: `rest` is what stands after `/v1`, with its slash.
    pub(crate) fn address(&self, dialect: Dialect, rest: &str) -> Option<Uri> {
        let path = self.base.splitn(4, '/').nth(3).unwrap_or_default();
        let version = match dialect {
            // What OpenAI's clients take for the base has the version in it.
            Dialect::ChatCompletions if path.is_empty() => "/v1",
            Dialect::ChatCompletions => "",
            // What Anthropic's clients take for the base has not.
            Dialect::Messages if path == "v1" || path.ends_with("/v1") => "",
            Dialect::Messages => "/v1",
        };
        format!("{}{version}{rest}", self.base).parse().ok()
    }
}

/// Where calls go: a provider, the model in its words, and the dialect.
#[derive(Debug, Clone)]
pub struct Route {
    /// The provider.
    pub provider: Arc<Provider>,
    /// The model, as the provider calls it.
    pub model: String,
    /// What is spoken on it.
    pub dialect: Dialect,
    /// What the model costs, where that is known.
    pub price: Option<Price>,
}

impl Route {
    /// A route for a replay, which calls nobody: there is no provider behind it, and a live call
    /// on it fails.
    #[must_use]
    pub fn offline(model: impl Into<String>, dialect: Dialect) -> Self {
        let provider = Provider {
            name: "recording".into(),
            dialects: vec![dialect],
            // The top-level name that is never given to anyone (RFC 6761).
            base: "http://recording.invalid".into(),
            secure: false,
            key: None,
            api_key: None,
            bearer: None,
            default_model: None,
            models: Vec::new(),
            times: Times::default(),
        };
        Self {
            provider: Arc::new(provider),
            model: model.into(),
            dialect,
            price: None,
        }
    }

    /// `provider/model`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.provider.name, self.model)
    }
}

/// All providers that may be called, in order of preference, and what their models cost.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    providers: Vec<Arc<Provider>>,
    prices: Prices,
}

impl Providers {
    /// The providers of these settings.
    ///
    /// # Errors
    /// When a setting is wrong, or two providers have the same name.
    pub fn new(
        settings: impl IntoIterator<Item = Settings>,
        prices: Prices,
    ) -> Result<Self, Error> {
        let mut providers: Vec<Arc<Provider>> = Vec::new();
        for settings in settings {
            let provider = Provider::new(settings)?;
            if providers.iter().any(|other| other.name == provider.name) {
                return Err(Error::Invalid {
                    name: provider.name,
                    what: "there are two with this name",
                });
            }
            providers.push(Arc::new(provider));
        }
        Ok(Self { providers, prices })
    }

    /// The providers, in order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.providers.iter().map(Arc::as_ref)
    }

    /// Finds what is meant by `model` for an agent that speaks these dialects, best first.
    ///
    /// `model` is `provider/name` or a bare name. A bare name means the provider that speaks one
    /// of the dialects; of several, the only one that lists the model. No name means the default
    /// model of the first provider that has one.
    ///
    /// # Errors
    /// When no provider, or more than one, could be meant.
    pub fn route(&self, model: Option<&str>, dialects: &[Dialect]) -> Result<Route, Error> {
        let wanted = || {
            let names: Vec<_> = dialects.iter().map(|d| d.name()).collect();
            names.join(" or ")
        };
        let spoken = |provider: &Provider| {
            dialects
                .iter()
                .copied()
                .find(|d| provider.dialects.contains(d))
        };
        let able: Vec<(&Arc<Provider>, Dialect)> = self
            .providers
            .iter()
            .filter_map(|p| Some((p, spoken(p)?)))
            .collect();
        let none = || Error::NoProvider { wanted: wanted() };

        let Some(model) = model else {
            let first = able.first().ok_or_else(none)?;
            let with_default = able
                .iter()
                .find_map(|(p, dialect)| Some((*p, *dialect, p.default_model.as_deref()?)));
            return match with_default {
                Some((provider, dialect, model)) => Ok(self.made(provider, model, dialect)),
                None => Err(Error::NoModel {
                    provider: first.0.name.clone(),
                }),
            };
        };
        if let Some((name, rest)) = model.split_once('/') {
            let provider = self.providers.iter().find(|p| p.name == name);
            let provider = provider.ok_or_else(|| self.unknown(name))?;
            let dialect = spoken(provider).ok_or_else(|| Error::OtherDialect {
                provider: name.into(),
                wanted: wanted(),
            })?;
            if rest.is_empty() {
                return Err(Error::NoModel {
                    provider: name.into(),
                });
            }
            return Ok(self.made(provider, rest, dialect));
        }
        if model.is_empty() {
            return self.route(None, dialects);
        }
        let lists = |p: &Provider| {
            p.models.iter().any(|m| m == model) || p.default_model.as_deref() == Some(model)
        };
        let listing: Vec<_> = able.iter().filter(|(p, _)| lists(p)).collect();
        match (able.as_slice(), listing.as_slice()) {
            ([], _) => Err(none()),
            ([(provider, dialect)], _) | (_, [(provider, dialect)]) => {
                Ok(self.made(provider, model, *dialect))
            }
            (all, _) => Err(Error::Ambiguous {
                model: model.into(),
                choices: all
                    .iter()
                    .map(|(p, _)| format!("{}/{model}", p.name))
                    .collect(),
            }),
        }
    }

    fn made(&self, provider: &Arc<Provider>, model: &str, dialect: Dialect) -> Route {
        let full = format!("{}/{model}", provider.name);
        Route {
            provider: Arc::clone(provider),
            model: model.into(),
            dialect,
            price: self.prices.get(&full).or_else(|| self.prices.get(model)),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let nearest = self
            .providers
            .iter()
            .map(|p| (strsim::jaro_winkler(&p.name, name), &p.name))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name.clone());
        Error::UnknownProvider {
            name: name.chars().take(80).collect(),
            nearest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialects::Dialect::{ChatCompletions, Messages};

    fn providers() -> Providers {
        let local = Settings {
            name: "local".into(),
            base_url: "http://127.0.0.1:8000/v1/".into(),
            key: None,
            models: vec!["qwen".into()],
            ..Settings::openai(Secret::new(""))
        };
        let anthropic = Settings {
            default_model: Some("claude-opus-5-5".into()),
            ..Settings::anthropic(Secret::new("sk-ant-one"))
        };
        Providers::new(
            [anthropic, Settings::openai(Secret::new("sk-two\n")), local],
            Prices::builtin(),
        )
        .unwrap()
    }

    #[test]
    fn a_model_is_found_by_provider_by_dialect_or_by_list() {
        let providers = providers();
        for (model, dialects, expected) in [
            (
                Some("openai/gpt-5.5"),
                &[ChatCompletions][..],
                "openai/gpt-5.5",
            ),
            (
                Some("local/Qwen/Qwen3"),
                &[ChatCompletions],
                "local/Qwen/Qwen3",
            ),
            (Some("claude-x"), &[Messages], "anthropic/claude-x"),
            (Some("qwen"), &[ChatCompletions], "local/qwen"),
            (Some("qwen"), &[Messages, ChatCompletions], "local/qwen"),
            (
                None,
                &[ChatCompletions, Messages],
                "anthropic/claude-opus-5-5",
            ),
        ] {
            assert_eq!(providers.route(model, dialects).unwrap().name(), expected);
        }
        assert!(providers.route(None, &[Messages]).unwrap().price.is_some());
        assert!(
            providers
                .route(Some("local/qwen"), &[ChatCompletions])
                .unwrap()
                .price
                .is_none()
        );
    }

    #[test]
    fn what_cannot_be_found_says_what_to_write() {
        let providers = providers();
        let refused =
            |model, dialects: &[Dialect]| providers.route(model, dialects).unwrap_err().to_string();
        assert_eq!(
            refused(Some("opnai/gpt"), &[ChatCompletions]),
            "there is no provider `opnai`: did you mean `openai`?"
        );
        assert_eq!(
            refused(Some("gpt"), &[ChatCompletions]),
            "the model `gpt` could be any of openai/gpt, local/gpt: write one of them"
        );
        assert_eq!(
            refused(None, &[ChatCompletions]),
            "no model was chosen for the provider `openai`: name one with `--model`"
        );
        assert_eq!(
            refused(Some("anthropic/claude"), &[ChatCompletions]),
            "the provider `anthropic` does not speak chat-completions: choose another agent or provider"
        );
        let none = Providers::default().route(None, &[Messages]).unwrap_err();
        assert!(matches!(none, Error::NoProvider { .. }));
    }

    #[test]
    fn an_address_is_where_the_vendors_clients_would_look() {
        let at = |base: &str, dialect, rest| {
            let settings = Settings {
                base_url: base.into(),
                ..Settings::anthropic(Secret::new("k"))
            };
            let provider = Provider::new(settings).unwrap();
            provider.address(dialect, rest).unwrap().to_string()
        };
        for (base, dialect, rest, expected) in [
            (
                "https://a.example",
                Messages,
                "/messages?beta=true",
                "https://a.example/v1/messages?beta=true",
            ),
            (
                "https://a.example/v1/",
                Messages,
                "/messages",
                "https://a.example/v1/messages",
            ),
            (
                "https://a.example/anthropic",
                Messages,
                "/messages",
                "https://a.example/anthropic/v1/messages",
            ),
            (
                "https://a.example/v1",
                ChatCompletions,
                "/chat/completions",
                "https://a.example/v1/chat/completions",
            ),
            (
                "http://a.example:8000",
                ChatCompletions,
                "/chat/completions",
                "http://a.example:8000/v1/chat/completions",
            ),
            (
                "https://a.example/api/v4",
                ChatCompletions,
                "/chat/completions",
                "https://a.example/api/v4/chat/completions",
            ),
        ] {
            assert_eq!(at(base, dialect, rest), expected);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_without_showing_the_key() {
        let base = || Settings::openai(Secret::new("sk-hidden\u{7f}"));
        for settings in [
            base(),
            Settings {
                base_url: "https://user:sk-hidden@x".into(),
                ..base()
            },
            Settings {
                base_url: "ftp://x".into(),
                ..base()
            },
            Settings {
                base_url: "/v1".into(),
                ..base()
            },
            Settings {
                name: "a/b".into(),
                ..base()
            },
            Settings {
                dialects: vec![],
                ..base()
            },
        ] {
            let error = Providers::new([settings], Prices::builtin()).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("hidden"), "{error}");
        }
    }
}
