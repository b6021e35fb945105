//! Who serves models, and which of them a name means.

use std::sync::Arc;

use dialects::{Dialect, Price, Prices};

use crate::provider::{Provider, Settings};

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
        Self {
            provider: Arc::new(Provider::offline(dialect)),
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
    use crate::Secret;
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
}
