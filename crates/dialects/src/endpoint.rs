//! Which protocol a path belongs to.

use serde::{Deserialize, Serialize};

/// A protocol in which a model is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// OpenAI's `POST /v1/chat/completions`, which most servers imitate.
    ChatCompletions,
    /// Anthropic's `POST /v1/messages`.
    Messages,
}

impl Dialect {
    /// Every dialect, in a stable order.
    pub const ALL: [Self; 2] = [Self::ChatCompletions, Self::Messages];

    /// The name used in configuration and records: `chat-completions` or `messages`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat-completions",
            Self::Messages => "messages",
        }
    }

    /// The dialect of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// The path that a model is called at, on the provider's side.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
        }
    }

    /// What a request to this path is, if it is one that Skep lets through.
    ///
    /// The same as [`Endpoint::from_path`].
    #[must_use]
    pub fn from_path(method: &str, path: &str) -> Option<Endpoint> {
        Endpoint::from_path(method, path)
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request to a model server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A call of a model, which costs something.
    Generate(Dialect),
    /// Counting the tokens of a request without calling the model; it costs nothing.
    CountTokens(Dialect),
    /// The list of models, or one of them (`/v1/models`, `/v1/models/NAME`). Both vendors use
    /// this path, so it tells nothing about the dialect.
    Models,
}

impl Endpoint {
    /// What `method` on `path` is. The path may carry a query (`?beta=true`) and may lack the
    /// leading `/v1`, because clients differ in what they take for the base URL. Anything
    /// else is `None`: the gateway passes nothing that it cannot name.
    #[must_use]
    pub fn from_path(method: &str, path: &str) -> Option<Self> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = path.strip_prefix("/v1").unwrap_or(path);
        match (method, path) {
            ("POST", "/chat/completions") => Some(Self::Generate(Dialect::ChatCompletions)),
            ("POST", "/messages") => Some(Self::Generate(Dialect::Messages)),
            ("POST", "/messages/count_tokens") => Some(Self::CountTokens(Dialect::Messages)),
            ("GET", "/models") => Some(Self::Models),
            ("GET", other) => {
                let name = other.strip_prefix("/models/")?;
                let plain = !name.is_empty() && !name.split('/').any(|s| s == ".." || s == ".");
                plain.then_some(Self::Models)
            }
            _ => None,
        }
    }

    /// The dialect, where the path tells it.
    #[must_use]
    pub fn dialect(self) -> Option<Dialect> {
        match self {
            Self::Generate(d) | Self::CountTokens(d) => Some(d),
            Self::Models => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_that_real_clients_use_are_known_and_no_others() {
        let chat = Some(Endpoint::Generate(Dialect::ChatCompletions));
        let messages = Some(Endpoint::Generate(Dialect::Messages));
        for (method, path, expected) in [
            ("POST", "/v1/chat/completions", chat),
            ("POST", "/chat/completions", chat),
            ("POST", "/v1/messages", messages),
            ("POST", "/v1/messages?beta=true", messages),
            ("POST", "/v1/messages/?beta=true", messages),
            (
                "POST",
                "/v1/messages/count_tokens?beta=true",
                Some(Endpoint::CountTokens(Dialect::Messages)),
            ),
            ("GET", "/v1/models", Some(Endpoint::Models)),
            ("GET", "/v1/models?limit=1000", Some(Endpoint::Models)),
            ("GET", "/v1/models/openai/gpt-5", Some(Endpoint::Models)),
            ("GET", "/v1/models/../files", None),
            ("GET", "/v1/messages", None),
            ("POST", "/v1/models", None),
            ("POST", "/v1/messages/batches", None),
            ("POST", "/v1/v1/messages", None),
            ("POST", "/v1/embeddings", None),
            ("POST", "", None),
        ] {
            assert_eq!(
                Endpoint::from_path(method, path),
                expected,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_dialect_is_found_by_its_name() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
            assert_eq!(serde_json::to_value(dialect).unwrap(), dialect.name());
        }
        assert_eq!(Dialect::from_name("gopher"), None);
    }
}
