//! Profiles: what Skep knows of an agent, as data.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use dialects::Dialect;
use serde::Deserialize;

use crate::agent::{Agent, Context};
use crate::builtin::Builtin;
use crate::claude::ClaudeCode;
use crate::command::Command;

const BUILTIN: &str = include_str!("profiles/builtin.toml");
const COMMAND: &str = include_str!("profiles/command.toml");
const CLAUDE_CODE: &str = include_str!("profiles/claude-code.toml");

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what a profile must be.
    #[error("the profile is not valid")]
    Invalid(#[source] toml::de::Error),
    /// It lacks a command line.
    #[error("the profile {name} has no command line: give it `argv` under [run]")]
    NoCommand {
        /// The profile.
        name: String,
    },
    /// There is no profile of this name.
    #[error("there is no agent {name:?}: the agents are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
}

/// What Skep knows of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name that a person uses.
    pub name: String,
    /// What it is, in one line.
    pub summary: String,
    /// The code that speaks with it.
    pub adapter: Adapter,
    /// The dialects that it speaks with its model, the best first.
    #[serde(deserialize_with = "dialect_names")]
    pub dialects: Vec<Dialect>,
    /// The program that must be installed, if one must.
    #[serde(default)]
    pub program: Option<Program>,
    /// How it is run, if it is a program.
    #[serde(default)]
    pub run: Run,
}

/// The code that speaks with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adapter {
    /// The built-in agent.
    Builtin,
    /// A program whose output is only shown.
    Command,
    /// Claude Code's stream of JSON lines.
    ClaudeCode,
}

/// A program that must be installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its name in `PATH`.
    pub binary: String,
    /// The arguments that make it print its version.
    #[serde(default)]
    pub version: Vec<String>,
    /// How a person installs it.
    pub install: String,
}

/// How a program is run.
///
/// In arguments and values, `{prompt}`, `{workspace}`, `{home}`, `{gateway}` and `{model}` stand
/// for what they name; other braces stand for themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The arguments; for a profile without [`Program`], the program too.
    #[serde(default)]
    pub argv: Vec<String>,
    /// How it gets the prompt.
    #[serde(default)]
    pub prompt: Prompt,
    /// What is added to its environment. A variable whose value names the gateway or the model
    /// is left out where there is none.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// How a program gets the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prompt {
    /// On its standard input.
    #[default]
    Stdin,
    /// Where `{prompt}` stands in its arguments.
    Argument,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// When the text is not TOML, lacks something, or has a key that no profile has.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(Error::Invalid)
    }

    /// The profiles that Skep ships with.
    ///
    /// # Errors
    ///
    /// Never: they are tested.
    pub fn shipped() -> Result<Vec<Self>, Error> {
        [BUILTIN, CLAUDE_CODE, COMMAND]
            .into_iter()
            .map(Self::parse)
            .collect()
    }

    /// The shipped profile of this name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, Error> {
        let shipped = Self::shipped()?;
        let known = shipped
            .iter()
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        shipped
            .into_iter()
            .find(|profile| profile.name == name)
            .ok_or_else(|| Error::Unknown {
                name: name.to_owned(),
                known,
            })
    }

    /// The agent of this profile. `program` is how its program is called inside the sandbox
    /// ([`crate::find::Found::argv`]); without one, it is looked up in the `PATH` there.
    ///
    /// # Errors
    ///
    /// When the profile has no command line.
    pub fn agent(&self, program: Option<Vec<OsString>>) -> Result<Box<dyn Agent>, Error> {
        let mut argv = program.unwrap_or_else(|| {
            self.program
                .iter()
                .map(|program| OsString::from(&program.binary))
                .collect()
        });
        argv.extend(self.run.argv.iter().map(OsString::from));
        if self.adapter != Adapter::Builtin && argv.is_empty() {
            return Err(Error::NoCommand {
                name: self.name.clone(),
            });
        }
        let launch = Launch {
            name: self.name.clone(),
            argv,
            prompt: self.run.prompt,
            env: self.run.env.clone(),
        };
        Ok(match self.adapter {
            Adapter::Builtin => Box::new(Builtin::default()),
            Adapter::Command => Box::new(Command::new(launch)),
            Adapter::ClaudeCode => Box::new(ClaudeCode::new(launch)),
        })
    }
}

fn dialect_names<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Dialect>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names
        .into_iter()
        .map(|name| {
            Dialect::from_name(&name)
                .ok_or_else(|| serde::de::Error::custom(format!("unknown dialect {name:?}")))
        })
        .collect()
}

/// How a program of a profile is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) argv: Vec<OsString>,
    prompt: Prompt,
    env: BTreeMap<String, String>,
}

/// A program's arguments, environment and input for one turn.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) stdin: Vec<u8>,
}

impl Launch {
    /// Fills in what the placeholders stand for.
    pub(crate) fn fill(&self, prompt: &str, workspace: &Path, context: &Context<'_>) -> Start {
        let gateway = context.gateway.as_ref();
        let home = context.home();
        let value = |name: &str| -> Option<OsString> {
            match name {
                "prompt" => Some(prompt.into()),
                "workspace" => Some(workspace.into()),
                "home" => Some(home.clone().into()),
                "gateway" => Some(gateway?.url.clone().into()),
                "model" => Some(gateway?.model.clone().into()),
                _ => None,
            }
        };
        let mut env = context.env.clone();
        for (name, template) in &self.env {
            let needs_gateway = template.contains("{gateway}") || template.contains("{model}");
            if gateway.is_none() && needs_gateway {
                continue;
            }
            env.retain(|(known, _)| known != name.as_str());
            env.push((name.into(), expand(template, &value)));
        }
        let argv = self
            .argv
            .iter()
            .map(|arg| {
                arg.to_str()
                    .map_or_else(|| arg.clone(), |text| expand(text, &value))
            })
            .collect();
        let stdin = match self.prompt {
            Prompt::Stdin => prompt.as_bytes().to_vec(),
            Prompt::Argument => Vec::new(),
        };
        Start { argv, env, stdin }
    }
}

/// Replaces `{name}` where `value` knows the name, in one pass, so that what is filled in is
/// never read as a template.
fn expand(template: &str, value: &dyn Fn(&str) -> Option<OsString>) -> OsString {
    let mut out = OsString::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push(before);
        let filled = after
            .split_once('}')
            .and_then(|(name, tail)| Some((value(name)?, tail)));
        rest = match filled {
            Some((filled, tail)) => {
                out.push(filled);
                tail
            }
            None => {
                out.push("{");
                after
            }
        };
    }
    out.push(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_are_valid() {
        let names: Vec<String> = Profile::shipped()
            .unwrap()
            .into_iter()
            .map(|profile| profile.name)
            .collect();
        assert_eq!(names, ["builtin", "claude-code", "command"]);
        assert_eq!(
            Profile::named("builtin")
                .unwrap()
                .agent(None)
                .unwrap()
                .name(),
            "builtin"
        );
        let claude = Profile::named("claude-code").unwrap();
        assert_eq!(claude.dialects, [Dialect::Messages]);
        assert_eq!(claude.agent(None).unwrap().name(), "claude-code");
        let error = Profile::named("codex").unwrap_err();
        assert!(
            error.to_string().contains("builtin, claude-code, command"),
            "{error}"
        );
        let command = Profile::named("command").unwrap();
        assert!(matches!(command.agent(None), Err(Error::NoCommand { .. })));
        assert!(command.agent(Some(vec!["true".into()])).is_ok());
    }

    #[test]
    fn a_profile_with_a_key_that_no_profile_has_is_refused() {
        for wrong in [
            "name = 'x'",
            "name = 'x'\nsummary = ''\nadapter = 'magic'\ndialects = []",
            "name = 'x'\nsummary = ''\nadapter = 'command'\ndialects = ['latin']",
            "name = 'x'\nsummary = ''\nadapter = 'command'\ndialects = []\nargs = []",
        ] {
            assert!(
                matches!(Profile::parse(wrong), Err(Error::Invalid(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_filled_in_is_never_read_as_a_template() {
        let value = |name: &str| match name {
            "prompt" => Some("use {model} {".into()),
            "model" => Some("m".into()),
            _ => None,
        };
        for (template, expected) in [
            ("{prompt}", "use {model} {"),
            ("a{model}b{model}", "ambm"),
            ("{other} {} {model", "{other} {} {model"),
            ("{{model}}", "{m}"),
            ("", ""),
        ] {
            assert_eq!(expand(template, &value), expected, "{template}");
        }
    }
}
