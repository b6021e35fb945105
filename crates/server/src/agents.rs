//! Finding agents by name: the shipped profiles, and commands given in place.

use agents::{
    find,
    profile::{Adapter, Profile},
};
use domain::{Failure, Reason};
use std::{ffi::OsString, sync::Arc};
use worker::{Agents, Ready};

/// What begins the name of an agent that is a command line: `command:./agent.sh`.
const COMMAND: &str = "command:";

/// Finds agents in the `PATH` of the host.
pub(crate) struct HostAgents {
    pub(crate) path: OsString,
}

impl Agents for HostAgents {
    fn find(&self, name: &str) -> Result<Ready, Failure> {
        let missing = |text: String| Failure::new(Reason::AgentMissing, text);
        let (profile, given) = match name.strip_prefix(COMMAND) {
            Some(line) if !line.trim().is_empty() => {
                let argv = ["sh", "-c", line].map(OsString::from).to_vec();
                (Profile::named("command"), Some(argv))
            }
            _ => (Profile::named(name), None),
        };
        let profile = profile.map_err(|error| missing(error.to_string()))?;
        let found = find::find(&profile, &self.path);
        if let (Some(program), None) = (&profile.program, &found) {
            return Err(missing(format!(
                "`{}` is not in PATH: install it with `{}`",
                program.binary, program.install
            )));
        }
        let argv = given.or_else(|| found.as_ref().map(find::Found::argv));
        let agent = profile.agent(argv).map_err(|error| {
            missing(format!(
                "{error}: name it as `--agent 'command:PROGRAM ARGUMENTS'`"
            ))
        })?;
        Ok(Ready {
            agent: Arc::from(agent),
            programs: found.map(|found| vec![found.path]).unwrap_or_default(),
            dialects: profile.dialects,
            needs_model: profile.adapter != Adapter::Command,
            is_trusted_loop: profile.adapter == Adapter::Builtin,
        })
    }
}
