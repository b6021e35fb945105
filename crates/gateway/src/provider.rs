//! One provider: how it is set up, and how it is called.

use std::{fmt, time::Duration};

use dialects::Dialect;
use http::{HeaderValue, Uri};

use crate::{providers::Error, secret::Secret};

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
    pub(crate) name: String,
    pub(crate) dialects: Vec<Dialect>,
    base: String,
    secure: bool,
    key: Option<Secret>,
    api_key: Option<HeaderValue>,
    bearer: Option<HeaderValue>,
    pub(crate) default_model: Option<String>,
    pub(crate) models: Vec<String>,
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
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
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

    /// One that nobody calls.
    pub(crate) fn offline(dialect: Dialect) -> Self {
        Self {
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
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use dialects::Dialect::{ChatCompletions, Messages};

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
            let error = Provider::new(settings).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("hidden"), "{error}");
        }
    }
}
