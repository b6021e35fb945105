//! The tool `shell`.

use std::ffi::OsString;

use serde_json::{Map, Value};

use super::output::{TOLD_BYTES, compact};
use super::tools::text_argument;
use crate::agent::{Context, Error, Task, ToolOutput};
use crate::exec::Request;

/// The longest command, in bytes: the kernel takes 128 KiB for one argument.
const MAX_COMMAND: usize = 100_000;

/// How much of the output is kept before it is made to fit.
const CAPTURED_BYTES: usize = 128 << 10;

/// Runs `$1` with bash where there is one. Both outputs become one, in the order in which they
/// were written.
const SCRIPT: &str = "exec 2>&1
if command -v bash >/dev/null; then exec bash -c \"$1\"; else exec sh -c \"$1\"; fi";

/// What keeps programs from waiting for a person, or drawing for one.
const QUIET: [(&str, &str); 6] = [
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_EDITOR", "true"),
    ("TERM", "dumb"),
    ("NO_COLOR", "1"),
];

/// A command of the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shell {
    command: String,
}

impl Shell {
    pub(super) fn parse(arguments: &Map<String, Value>) -> Result<Self, String> {
        let command = text_argument(arguments, "shell", "command")?
            .filter(|command| !command.trim().is_empty())
            .ok_or("`shell` needs `command`. Nothing was done.")?;
        if command.len() > MAX_COMMAND {
            return Err(format!(
                "The command has {} bytes, and at most {MAX_COMMAND} are taken. Nothing was done. \
Use `edit` to write large files.",
                command.len()
            ));
        }
        if command.contains('\0') {
            return Err("The command holds a NUL byte. Nothing was done.".into());
        }
        Ok(Self { command })
    }

    pub(super) async fn run(
        &self,
        task: &Task,
        context: &Context<'_>,
    ) -> Result<ToolOutput, Error> {
        let mut env = context.env.clone();
        env.extend(QUIET.map(|(name, value)| (OsString::from(name), OsString::from(value))));
        let output = context
            .exec
            .exec(Request {
                argv: ["/bin/sh", "-c", SCRIPT, "sh", &self.command]
                    .map(OsString::from)
                    .into(),
                env,
                cwd: task.workspace.clone(),
                stdin: Vec::new(),
                timeout: task.limits.command,
                max_output: CAPTURED_BYTES,
            })
            .await?;
        let told = compact(&output.stdout, TOLD_BYTES);
        let mut text = told.text;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if output.exit.timed_out {
            let seconds = task.limits.command.as_secs();
            text.push_str(&format!("[stopped: it ran longer than {seconds} s]"));
        } else {
            text.push_str(&format!("[{}]", output.exit));
        }
        Ok(ToolOutput {
            text,
            ok: output.exit.success(),
            exit: output.exit.code,
            omitted: told.omitted,
        })
    }
}
