//! Who is told: from the `[[notify]]` tables of the configuration.

use super::{Environment, File};
use domain::RequestState;
use gateway::{Hook, Secret};
use serde::Deserialize;
use server::{Sink, Target};
use std::{collections::BTreeSet, fmt};

/// The most tables.
const MAX: usize = 16;
/// The longest name, in bytes.
const MAX_NAME: usize = 64;
/// The most words of a command.
const MAX_WORDS: usize = 100;

/// An address that may hold a secret, so that it is never shown.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Address(String);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(..)")
    }
}

/// Who is told.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notify {
    /// What it is called; else its kind, and its host or program.
    name: Option<String>,
    /// The address of a webhook.
    webhook: Option<Address>,
    /// The variable of the environment that holds the address of a webhook.
    webhook_env: Option<String>,
    /// What the webhook takes.
    format: Option<Format>,
    /// A program with its arguments.
    command: Option<Vec<String>>,
    /// Whether it is the desktop.
    #[serde(default)]
    desktop: bool,
    /// What is told.
    on: Option<Vec<On>>,
}

/// What a webhook takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    CloudEvents,
    Slack,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum On {
    Done,
    Failed,
    Partial,
    Cancelled,
    Waiting,
}

impl On {
    const ALL: [Self; 5] = [
        Self::Done,
        Self::Failed,
        Self::Partial,
        Self::Cancelled,
        Self::Waiting,
    ];

    const fn state(self) -> RequestState {
        match self {
            Self::Done => RequestState::Done,
            Self::Failed => RequestState::Failed,
            Self::Partial => RequestState::Partial,
            Self::Cancelled => RequestState::Cancelled,
            Self::Waiting => RequestState::Waiting,
        }
    }
}

impl Notify {
    /// The variable that holds its address.
    pub(crate) fn variable(&self) -> Option<&String> {
        self.webhook_env.as_ref()
    }

    fn validate(&self) -> Result<(), String> {
        let ways = [
            self.webhook.is_some(),
            self.webhook_env.is_some(),
            self.command.is_some(),
            self.desktop,
        ];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            return Err(
                "it needs one of `webhook`, `webhook_env`, `command` and `desktop = true`".into(),
            );
        }
        if self.format.is_some() && self.webhook.is_none() && self.webhook_env.is_none() {
            return Err("`format` is only for webhooks".into());
        }
        if let Some(name) = &self.name
            && (name.trim().is_empty() || name.len() > MAX_NAME || name.contains(char::is_control))
        {
            return Err(format!("`name` must be up to {MAX_NAME} bytes of text"));
        }
        if let Some(Address(address)) = &self.webhook {
            Hook::new(Secret::new(address)).map_err(|error| error.to_string())?;
        }
        if let Some(variable) = &self.webhook_env
            && !super::file::is_variable(variable)
        {
            return Err(
                "`webhook_env` is not the name of a variable: it names the variable \
                        that holds the address, and is not the address itself"
                    .into(),
            );
        }
        if let Some(words) = &self.command
            && (words.len() > MAX_WORDS || words.first().is_none_or(|word| word.is_empty()))
        {
            return Err(
                "`command` must be a program and its arguments: `[\"prog\", \"arg\"]`".into(),
            );
        }
        if self.on.as_ref().is_some_and(Vec::is_empty) {
            return Err("`on` is empty: it would be told nothing".into());
        }
        Ok(())
    }

    fn sink(&self, env: &Environment) -> Sink {
        let (kind, target) = match (&self.webhook, &self.webhook_env, &self.command) {
            (Some(Address(address)), ..) => self.webhook(address),
            (None, Some(variable), _) => match env.text(variable) {
                Some(address) => self.webhook(&address),
                None => (
                    format!("webhook of {variable}"),
                    Target::Missing(format!("{variable} is not set in the environment")),
                ),
            },
            (None, None, Some(words)) => {
                let program = words.first().map_or("", |word| last_part(word));
                (format!("command {program}"), Target::Command(words.clone()))
            }
            (None, None, None) => ("desktop".into(), Target::Desktop),
        };
        let on: &[On] = self.on.as_deref().unwrap_or(&On::ALL);
        Sink {
            name: self.name.clone().unwrap_or(kind),
            target,
            on: on.iter().map(|on| on.state()).collect(),
        }
    }

    fn webhook(&self, address: &str) -> (String, Target) {
        let named = |hook: &Hook| format!("webhook {}", hook.host());
        match Hook::new(Secret::new(address)) {
            Ok(hook) => (
                self.variable()
                    .map_or_else(|| named(&hook), |variable| format!("webhook of {variable}")),
                Target::Webhook {
                    hook,
                    format: match self.format {
                        Some(Format::Slack) => server::Format::Slack,
                        Some(Format::CloudEvents) | None => server::Format::CloudEvents,
                    },
                },
            ),
            Err(error) => (
                format!("webhook of {}", self.variable().map_or("", |name| name)),
                Target::Missing(error.to_string()),
            ),
        }
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The first thing that is wrong with these tables.
///
/// # Errors
/// Says which table it is, and nothing of an address.
pub(crate) fn validate(tables: &[Notify]) -> Result<(), String> {
    if tables.len() > MAX {
        return Err(format!("there are more than {MAX} `[[notify]]` tables"));
    }
    let mut names = BTreeSet::new();
    for (place, table) in (1..).zip(tables) {
        table
            .validate()
            .map_err(|what| format!("the `[[notify]]` table {place}: {what}"))?;
        if let Some(name) = &table.name
            && !names.insert(name)
        {
            return Err(format!(
                "the `[[notify]]` table {place}: another one has the same name"
            ));
        }
    }
    Ok(())
}

/// Who is told, each with a name of its own.
pub(crate) fn sinks(file: &File, env: &Environment) -> Vec<Sink> {
    let mut names = BTreeSet::new();
    let mut sinks: Vec<Sink> = file.notify.iter().map(|table| table.sink(env)).collect();
    for sink in &mut sinks {
        let plain = sink.name.clone();
        for place in 2.. {
            if names.insert(sink.name.clone()) {
                break;
            }
            sink.name = format!("{plain} ({place})");
        }
    }
    sinks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str) -> Result<File, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        validate(&file.notify)?;
        Ok(file)
    }

    #[test]
    fn every_kind_of_sink_has_a_name_of_its_own_that_shows_no_address() {
        let file = tables(
            r#"
            [[notify]]
            webhook = "https://hooks.example/hidden"
            [[notify]]
            webhook = "https://hooks.example/other-hidden"
            format = "slack"
            [[notify]]
            webhook_env = "TEAM_HOOK"
            on = ["failed", "waiting"]
            [[notify]]
            webhook_env = "NOT_SET"
            [[notify]]
            command = ["/usr/bin/tell", "me"]
            [[notify]]
            name = "screen"
            desktop = true
            "#,
        )
        .unwrap();
        let env = Environment::of([("TEAM_HOOK", "http://127.0.0.1:9/hidden")]);
        let sinks = sinks(&file, &env);
        let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "webhook hooks.example",
                "webhook hooks.example (2)",
                "webhook of TEAM_HOOK",
                "webhook of NOT_SET",
                "command tell",
                "screen"
            ]
        );
        assert_eq!(sinks[2].on, [RequestState::Failed, RequestState::Waiting]);
        assert_eq!(sinks[0].on.len(), 5, "all, where nothing is said");
        assert!(matches!(sinks[3].target, Target::Missing(_)));
        let shown = format!("{sinks:?}{file:?}");
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused_without_showing_its_address() {
        for (text, expected) in [
            ("", "one of `webhook`"),
            ("desktop = true\ncommand = ['x']", "one of `webhook`"),
            ("desktop = true\nformat = 'slack'", "only for webhooks"),
            ("webhook = 'hidden'", "https://HOST/PATH"),
            ("webhook = 'https://ann:hidden@x/'", "https://HOST/PATH"),
            ("webhook_env = 'https://hidden'", "not the address itself"),
            ("command = []", "a program and its arguments"),
            ("desktop = true\non = []", "told nothing"),
            ("desktop = true\non = ['queued']", "unknown variant"),
            ("name = ''\ndesktop = true", "bytes of text"),
        ] {
            let error = tables(&format!("[[notify]]\n{text}\n")).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("hidden"), "{text}: {error}");
        }
    }
}
