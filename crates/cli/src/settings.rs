//! What a command that runs agents works with: flags over the environment over the configuration.

use crate::{
    config::{
        Budget, DEFAULT_AGENT, DEFAULT_PARALLEL, Error as ConfigError, MAX_PARALLEL,
        egress::Watched, forges, notify, providers::Configured, shares::Image,
    },
    context::Context,
    report::Error,
};
use domain::{Amount, entity::Ask};
use gateway::Providers;
use sandbox::Kind;
use std::sync::Arc;

/// What the flags of a command say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--agent`.
    pub(crate) agent: Option<String>,
    /// `--model`.
    pub(crate) model: Option<String>,
    /// `--budget`, all of them.
    pub(crate) budget: Budget,
    /// `--parallel`.
    pub(crate) parallel: Option<u32>,
    /// `--sandbox`.
    pub(crate) sandbox: Option<Kind>,
    /// `--image`, which asks for a container.
    pub(crate) image: Option<Image>,
    /// That the root is the host's, whatever image is configured.
    pub(crate) host_root: bool,
}

/// What a command that runs agents works with.
pub(crate) struct Settings {
    /// The agent.
    pub(crate) agent: String,
    /// The model, if one was named.
    pub(crate) model: Option<String>,
    /// The most that may be spent, if anything was said.
    pub(crate) budget: Option<Amount>,
    /// How many jobs run at once.
    pub(crate) parallel: u32,
    /// How a node is opened.
    pub(crate) options: server::Options,
}

impl Settings {
    /// Puts together what the flags, the environment and the configuration say.
    ///
    /// # Errors
    /// The first thing that is wrong with one of them.
    pub(crate) fn read(context: &Context, flags: Flags) -> Result<Self, Error> {
        let (file, path) = context.config()?;
        let env = &context.env;
        let configured = Configured::read(&file, &path, env)?;
        let budget = match env.text("SKEP_BUDGET") {
            Some(text) => flags
                .budget
                .or(Budget::parse(&text).map_err(|message| variable("SKEP_BUDGET", message))?),
            None => flags.budget,
        }
        .or(file.budget);
        let parallel = match flags.parallel {
            Some(parallel) => Some(parallel),
            None => env_parallel(env.text("SKEP_PARALLEL"))?,
        };
        let mut container = file.sandbox.container();
        if flags.host_root {
            container.image = None;
        }
        let mut sandbox = flags.sandbox;
        if let Some(Image(name)) = flags.image {
            container.image = Some(name);
            sandbox = Some(Kind::Container);
        }
        Ok(Self {
            agent: flags
                .agent
                .or_else(|| env.text("SKEP_AGENT"))
                .or_else(|| file.agent.clone())
                .unwrap_or_else(|| DEFAULT_AGENT.into()),
            model: flags
                .model
                .or_else(|| env.text("SKEP_MODEL"))
                .or_else(|| file.model.clone()),
            budget: with_tokens(budget),
            parallel: parallel.or(file.parallel).unwrap_or(DEFAULT_PARALLEL),
            options: server::Options {
                data: context.data(&file)?,
                path: env.get("PATH").unwrap_or_default(),
                home: env.home()?,
                env: env.without(configured.key_variables),
                providers: Providers::new(configured.settings, configured.prices)?,
                default_model: None,
                container,
                sandbox: sandbox.or(file.sandbox.kind()).unwrap_or(Kind::Namespace),
                notify: notify::sinks(&file, env),
                disk: server::DiskBounds {
                    store: file.store.bounds(),
                    ..server::DiskBounds::default()
                },
                shares: file.sandbox.shares(),
                devices: file.sandbox.devices().to_vec(),
                nested: file.sandbox.nested(),
                admission: file.limits.admission(),
                egress: Arc::new(Watched::new(path, env)),
                forges: forges::known(&file.forges, env),
            },
        })
    }
}

/// The kind of sandbox in which a request is worked on: the one that it was asked for in, whatever is
/// configured meanwhile. `otherwise` is for requests of versions that did not keep it.
pub(crate) fn kind_of(ask: &Ask, otherwise: Kind) -> Kind {
    let asked = ask.sandbox.as_deref().and_then(Kind::named);
    asked.unwrap_or(otherwise)
}

/// A budget in money alone would not hold for a model whose price is unknown: tokens are limited
/// as by default then.
fn with_tokens(budget: Budget) -> Option<Amount> {
    let tokens = budget
        .money
        .and(budget.tokens.or(Some(server::DEFAULT_TOKENS)));
    Budget {
        tokens: budget.tokens.or(tokens),
        ..budget
    }
    .amount()
}

fn variable(name: &'static str, message: String) -> ConfigError {
    ConfigError::Variable { name, message }
}

fn env_parallel(text: Option<String>) -> Result<Option<u32>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(parallel) if (1..=MAX_PARALLEL).contains(&parallel) => Ok(Some(parallel)),
        _ => Err(variable(
            "SKEP_PARALLEL",
            format!("`{text}` is not a number from 1 to {MAX_PARALLEL}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::Global, config::Environment};

    fn read<const N: usize>(
        flags: Flags,
        config: &str,
        variables: [(&str, &str); N],
    ) -> Result<Settings, Error> {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().join("config.toml");
        std::fs::write(&at, config).unwrap();
        let mut all = vec![("HOME", "/home/ann"), ("SKEP_CONFIG", at.to_str().unwrap())];
        all.extend(variables);
        let all: [(&str, &str); 8] = std::array::from_fn(|i| *all.get(i).unwrap_or(&("NONE", "")));
        let context = Context::new(
            Global {
                directory: None,
                data: None,
                json: false,
            },
            Environment::of(all),
        )
        .unwrap();
        Settings::read(&context, flags)
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_configuration() {
        let config = "model = 'c/m'\nagent = 'claude-code'\nparallel = 5\nbudget = '1k, $1'";
        let from_file = read(Flags::default(), config, []).unwrap();
        assert_eq!(from_file.agent, "claude-code");
        assert_eq!(from_file.parallel, 5);
        assert_eq!(from_file.budget.unwrap().tokens, 1_000);
        let from_env = read(
            Flags::default(),
            config,
            [
                ("SKEP_MODEL", "e/m"),
                ("SKEP_BUDGET", "2k"),
                ("SKEP_PARALLEL", "6"),
            ],
        )
        .unwrap();
        assert_eq!(from_env.model.as_deref(), Some("e/m"));
        assert_eq!(from_env.budget.unwrap().tokens, 2_000);
        assert_eq!(from_env.budget.unwrap().money.0, 1_000_000);
        assert_eq!(from_env.parallel, 6);
        let flags = Flags {
            model: Some("f/m".into()),
            parallel: Some(1),
            ..Flags::default()
        };
        let from_flags = read(flags, config, [("SKEP_MODEL", "e/m")]).unwrap();
        assert_eq!(from_flags.model.as_deref(), Some("f/m"));
        assert_eq!(from_flags.parallel, 1);
        assert_eq!(
            from_flags.options.data,
            std::path::Path::new("/home/ann/.local/share/skep")
        );
    }

    #[test]
    fn a_budget_in_money_still_limits_tokens() {
        let budget = |text| with_tokens(Budget::parse(text).unwrap()).unwrap();
        assert_eq!(budget("$2").tokens, server::DEFAULT_TOKENS);
        assert_eq!(budget("$2, 5k").tokens, 5_000);
        assert_eq!(budget("5k").money.0, Amount::UNBOUNDED);
        assert_eq!(with_tokens(Budget::default()), None);
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let error = read(Flags::default(), "", [("SKEP_PARALLEL", "many")])
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "SKEP_PARALLEL in the environment: `many` is not a number from 1 to 64"
        );
    }
}
