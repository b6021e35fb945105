//! The two tools of the built-in agent.

use dialects::{Arguments, Tool, ToolCall};
use serde_json::{Map, Value, json};

use super::{edit, shell};
use crate::agent::{Context, Error, Task, ToolOutput};

/// A call that can be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Shell(shell::Shell),
    Edit(edit::Edit),
}

/// The tools, as the model is told of them. Where something may be reached, the task says so itself.
pub(super) fn described(is_cut_off: bool) -> Vec<Tool> {
    let network = if is_cut_off { " and no network" } else { "" };
    vec![
        Tool {
            name: "shell".into(),
            description: format!(
                "Runs a shell command (bash, where there is one) in the checkout, and returns what \
                 it printed and its exit code. There is no input{network}."
            ),
            schema: json!({
                "type": "object",
                "properties": {
                    "command": {"type": "string", "description": "The command."}
                },
                "required": ["command"],
                "additionalProperties": false
            }),
        },
        Tool {
            name: "edit".into(),
            description: "Changes one file. With `old` and `new`: replaces the text `old`, which \
must occur exactly once in the file, by `new`; give enough lines around it to make it unique, \
with their exact indentation. With `content`: writes the whole file, making it and its \
directories if need be."
                .into(),
            schema: json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "The file, relative to the checkout."},
                    "old": {"type": "string", "description": "The text to replace."},
                    "new": {"type": "string", "description": "The text to put in its place."},
                    "content": {"type": "string", "description": "The whole new content, instead of `old` and `new`."}
                },
                "required": ["path"],
                "additionalProperties": false
            }),
        },
    ]
}

/// What a call asks for, or what is wrong with it, in words for the model.
pub(super) fn understand(call: &ToolCall) -> Result<Action, String> {
    let arguments = match &call.arguments {
        Arguments::Object(map) => map,
        Arguments::Invalid { reason, .. } => {
            return Err(format!(
                "The arguments of this call are not valid JSON ({reason}). Nothing was done. Call \
the tool again with one JSON object."
            ));
        }
    };
    match call.name.as_str() {
        "shell" => shell::Shell::parse(arguments).map(Action::Shell),
        "edit" => edit::Edit::parse(arguments).map(Action::Edit),
        other => Err(format!(
            "There is no tool {:?}. The tools are `shell` and `edit`.",
            other.chars().take(60).collect::<String>()
        )),
    }
}

/// Carries an action out, inside the sandbox.
///
/// # Errors
///
/// When commands cannot be run at all. That a command fails, or an edit does not fit, is told
/// to the model instead.
pub(super) async fn carry_out(
    action: &Action,
    task: &Task,
    context: &Context<'_>,
) -> Result<ToolOutput, Error> {
    match action {
        Action::Shell(shell) => shell.run(task, context).await,
        Action::Edit(edit) => edit.run(task, context).await,
    }
}

/// What the model is told when nothing was done.
pub(super) fn not_done(text: impl Into<String>) -> ToolOutput {
    ToolOutput {
        text: text.into(),
        ok: false,
        exit: None,
        omitted: 0,
    }
}

/// A text argument, or what is wrong with it.
pub(super) fn text_argument(
    arguments: &Map<String, Value>,
    tool: &str,
    name: &str,
) -> Result<Option<String>, String> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!(
            "`{name}` of `{tool}` must be text. Nothing was done."
        )),
    }
}
