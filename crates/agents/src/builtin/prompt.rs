//! What the built-in agent is told. Nothing here may depend on anything but the task.

use crate::agent::Task;

/// Longest instructions of a repository that are passed on, in bytes.
const MAX_INSTRUCTIONS: usize = 32 << 10;

/// The system text.
pub(super) fn system(task: &Task) -> String {
    let mut text = format!(
        "You are a software engineer. You work alone on a git repository, checked out at \
{workspace}.

The checkout is sealed: {network}, and nothing outside it is kept. Nobody can answer \
questions while you work; where the task leaves something open, choose what a careful \
maintainer would choose.

How to work:
- Look at the code before you change it. Read the parts of files that matter, not everything.
- Change what the task needs and nothing else. Follow the style of the code around.
- Find the cause of a failure instead of hiding it. Never weaken or delete a test to make it \
pass.
- After a change, run the tests or commands that show that it works.
- Leave your work in the files of the checkout. You need not commit.

Tools:
- `shell` runs a command with the checkout as its working directory. Each command is a new \
shell that cannot be answered: nothing interactive, and what still runs in the background when \
it ends is stopped. Output that is long is cut in the middle.
- `edit` replaces a piece of text in a file, or writes a whole file.

You have finished when you answer without using a tool. Say then, in a few sentences, what you \
changed and how you know that it works.",
        workspace = task.workspace.display(),
        network = task.network(),
    );
    if !task.checks.is_empty() {
        text.push_str("\n\nYour work counts only if these checks pass on it, in a fresh checkout:");
        for check in &task.checks {
            text.push_str(&format!("\n- {}: {}", check.name, check.command));
        }
    }
    if !task.rules.is_empty() {
        text.push_str("\n\nRules for this task:");
        for rule in &task.rules {
            text.push_str(&format!("\n- {rule}"));
        }
    }
    if let Some(instructions) = task.instructions.as_deref().map(str::trim) {
        let end = instructions.floor_char_boundary(MAX_INSTRUCTIONS);
        let kept = instructions.get(..end).unwrap_or_default();
        if !kept.is_empty() {
            text.push_str("\n\nThe repository says this to everyone who works on it:\n\n");
            text.push_str(kept);
        }
        if end < instructions.len() {
            text.push_str("\n[The rest was left out.]");
        }
    }
    text
}

/// What opens a turn after the first.
pub(super) fn feedback(text: &str) -> String {
    format!(
        "Your work was checked, and it is not finished:\n\n{text}\n\nPlease mend this. The \
checkout is as you left it."
    )
}

/// An answer had neither words nor a call.
pub(super) const EMPTY: &str = "Your answer was empty. Go on with the task, or, if it is \
finished, say what you changed.";

/// An answer reached the limit of its length.
pub(super) const CUT: &str = "Your answer was cut off because it was too long. Go on in smaller \
steps.";

/// The same thing was done again and again.
pub(super) const REPEATED: &str = "You have done the same thing several times with the same \
result. Do something else, or, if the task cannot be done, say why and stop.";

/// What opens a turn that goes on after an interruption.
pub(super) fn interrupted(text: Option<&str>) -> String {
    let mut said = String::from(
        "The work was interrupted. What a command that ran at that moment did is unknown: look at \
the state of the checkout, then go on.",
    );
    if let Some(text) = text {
        said.push_str("\n\n");
        said.push_str(&feedback(text));
    }
    said
}

/// What is told of a call whose result was lost.
pub(super) const UNKNOWN_RESULT: &str = "Whether this ran, and what it gave, is unknown: the \
work was interrupted. Look at the state of the checkout before you go on.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::CheckNote;

    #[test]
    fn the_system_text_names_the_checks_and_the_rules() {
        let mut task = Task::new("x", "/workspace/repo");
        let bare = system(&task);
        assert!(bare.contains("/workspace/repo"));
        assert!(!bare.contains("checks pass"));
        task.checks.push(CheckNote {
            name: "test".into(),
            command: "make test".into(),
        });
        task.rules.push("Change only files below src/.".into());
        task.instructions = Some(format!("Use tabs.\n{}", "é".repeat(40_000)));
        let full = system(&task);
        assert!(full.starts_with(&bare));
        assert!(full.contains("- test: make test"));
        assert!(full.contains("- Change only files below src/."));
        assert!(full.contains("Use tabs."));
        assert!(full.ends_with("[The rest was left out.]"));
        assert_eq!(full, system(&task.clone()));
    }
}
