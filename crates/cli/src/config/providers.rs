//! Who serves models: from the configuration, and from keys in the environment.

use super::{
    Environment, Error, File,
    file::{Dialect, Price, Provider},
};
use dialects::Prices;
use gateway::{Secret, Settings, Times};
use std::path::{Path, PathBuf};

/// Anthropic's model for most work, as its page of models says (platform.claude.com, 2026-11).
const ANTHROPIC_MODEL: &str = "claude-opus-5-5";
/// The newest model of OpenAI that takes tools on Chat Completions as they are. Those after it
/// want the Responses protocol for tools, or no reasoning (github.com/livekit/agents, 7169).
const OPENAI_MODEL: &str = "gpt-5.4";

/// The providers that may be called, with the prices that were configured.
pub(crate) struct Configured {
    /// Their settings, in order of preference.
    pub(crate) settings: Vec<Settings>,
    /// What models cost.
    pub(crate) prices: Prices,
    /// Variables of the environment that hold keys.
    pub(crate) key_variables: Vec<String>,
}

impl Configured {
    /// Reads keys, and puts together who may be called: what the environment names first, then
    /// what the configuration adds. A provider of the configuration replaces the one of the
    /// environment with the same name.
    ///
    /// # Errors
    /// When a file with a key cannot be read.
    pub(crate) fn read(file: &File, config_path: &Path, env: &Environment) -> Result<Self, Error> {
        let mut all = Self {
            settings: Vec::new(),
            prices: Prices::builtin(),
            key_variables: vec!["ANTHROPIC_API_KEY".into(), "OPENAI_API_KEY".into()],
        };
        for (name, known, base_url, model) in [
            (
                "anthropic",
                anthropic as fn(Secret) -> Settings,
                "ANTHROPIC_BASE_URL",
                ANTHROPIC_MODEL,
            ),
            ("openai", openai, "OPENAI_BASE_URL", OPENAI_MODEL),
        ] {
            let key_variable = format!("{}_API_KEY", name.to_uppercase());
            let Some(key) = env.text(&key_variable).map(Secret::new) else {
                continue;
            };
            if file.providers.contains_key(name) {
                continue;
            }
            let mut settings = known(key);
            settings.default_model = Some(model.into());
            if let Some(url) = env.text(base_url) {
                settings.base_url = url;
            }
            all.settings.push(settings);
        }
        for (name, provider) in &file.providers {
            all.settings
                .push(settings(name, provider, config_path, env)?);
            all.key_variables.extend(provider.key_env.clone());
            for (model, price) in &provider.prices {
                all.prices.set(format!("{name}/{model}"), converted(*price));
            }
        }
        // An address may be as good as a key.
        let addresses = file.notify.iter().filter_map(|table| table.variable());
        all.key_variables.extend(addresses.cloned());
        Ok(all)
    }
}

fn anthropic(key: Secret) -> Settings {
    Settings::anthropic(key)
}

fn openai(key: Secret) -> Settings {
    Settings::openai(key)
}

fn settings(
    name: &str,
    provider: &Provider,
    config_path: &Path,
    env: &Environment,
) -> Result<Settings, Error> {
    let key = match (&provider.key_env, &provider.key_file) {
        (Some(variable), _) => env.text(variable).map(Secret::new),
        (None, Some(path)) => {
            let path = resolved(path, config_path, env);
            let text = std::fs::read_to_string(&path).map_err(|source| Error::Key {
                provider: name.into(),
                path,
                source,
            })?;
            Some(Secret::new(text))
        }
        (None, None) => match name {
            "anthropic" | "openai" => env
                .text(&format!("{}_API_KEY", name.to_uppercase()))
                .map(Secret::new),
            _ => None,
        },
    };
    let usual = Times::default();
    Ok(Settings {
        name: name.into(),
        dialects: vec![match provider.dialect {
            Dialect::ChatCompletions => dialects::Dialect::ChatCompletions,
            Dialect::Messages => dialects::Dialect::Messages,
        }],
        base_url: provider.base_url.clone(),
        key,
        default_model: provider.default_model.clone(),
        models: provider.models.clone(),
        times: Times {
            silence: provider.silence_timeout.unwrap_or(usual.silence),
            call: provider.call_timeout.unwrap_or(usual.call),
        },
    })
}

/// A path of the configuration: `~/` is the home directory, and what is relative is beside the
/// configuration.
fn resolved(path: &Path, config_path: &Path, env: &Environment) -> PathBuf {
    if let (Ok(rest), Ok(home)) = (path.strip_prefix("~"), env.home()) {
        return home.join(rest);
    }
    match config_path.parent() {
        Some(beside) => beside.join(path),
        None => path.into(),
    }
}

fn converted(price: Price) -> dialects::Price {
    dialects::Price {
        cache_read: price.cache_read.map(Price::micros),
        cache_write: price.cache_write.map(Price::micros),
        ..dialects::Price::flat(Price::micros(price.input), Price::micros(price.output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(config: &str, variables: [(&str, &str); N]) -> Configured {
        let file: File = toml::from_str(config).unwrap();
        Configured::read(
            &file,
            Path::new("/c/config.toml"),
            &Environment::of(variables),
        )
        .unwrap()
    }

    fn shown(configured: &Configured) -> Vec<(String, String, Option<String>, bool)> {
        configured
            .settings
            .iter()
            .map(|s| {
                (
                    s.name.clone(),
                    s.base_url.clone(),
                    s.default_model.clone(),
                    s.key.is_some(),
                )
            })
            .collect()
    }

    #[test]
    fn a_key_in_the_environment_is_enough() {
        let one = read("", [("ANTHROPIC_API_KEY", "k")]);
        assert_eq!(
            shown(&one),
            [(
                "anthropic".into(),
                "https://api.anthropic.com".into(),
                Some(ANTHROPIC_MODEL.into()),
                true
            )]
        );
        let both = read(
            "",
            [
                ("ANTHROPIC_API_KEY", "k"),
                ("OPENAI_API_KEY", "k"),
                ("OPENAI_BASE_URL", "http://localhost:1"),
            ],
        );
        assert_eq!(both.settings.len(), 2);
        assert_eq!(both.settings[1].base_url, "http://localhost:1");
        assert!(read("", [("OPENAI_API_KEY", "")]).settings.is_empty());
    }

    #[test]
    fn the_configuration_adds_providers_and_replaces_the_known_ones() {
        let all = read(
            r#"
            [providers.openai]
            dialect = "chat-completions"
            base_url = "https://gateway.example/v1"
            [providers.local]
            dialect = "chat-completions"
            base_url = "http://127.0.0.1:8000"
            key_env = "LOCAL"
            [providers.local.prices.qwen]
            input = 0.25
            output = 1.0
            "#,
            [("OPENAI_API_KEY", "k"), ("LOCAL", "k")],
        );
        let names: Vec<_> = all.settings.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["local", "openai"]);
        assert!(all.settings.iter().all(|s| s.key.is_some()));
        assert_eq!(all.prices.get("local/qwen").unwrap().input, 250_000);
        assert!(all.key_variables.contains(&"LOCAL".to_owned()));
    }

    #[test]
    fn a_key_may_be_in_a_file_beside_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "k\n").unwrap();
        let file: File = toml::from_str(
            "[providers.x]\ndialect='messages'\nbase_url='https://x'\nkey_file='key'",
        )
        .unwrap();
        let config = dir.path().join("config.toml");
        let env = Environment::of([]);
        assert!(
            Configured::read(&file, &config, &env).unwrap().settings[0]
                .key
                .is_some()
        );
        std::fs::remove_file(dir.path().join("key")).unwrap();
        let error = Configured::read(&file, &config, &env).err().unwrap();
        assert!(
            error.to_string().contains("provider `x` cannot be read"),
            "{error}"
        );
    }
}
