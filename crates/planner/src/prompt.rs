//! What a model is told when it plans. The same repository and request always give the same words.

use domain::plan::{MAX_JOBS, Plan};

/// What is known of the repository at the base commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    /// Paths of files, as many as are worth reading, in git's order.
    pub files: Vec<String>,
    /// How many files there are in all.
    pub file_count: usize,
    /// What the repository tells agents (`AGENTS.md`), if anything.
    pub instructions: Option<String>,
    /// The names and commands of the repository's checks.
    pub checks: Vec<(String, String)>,
    /// What is shown beside it, a line for each.
    pub beside: Vec<String>,
}

/// The system text.
pub(crate) fn system() -> String {
    let schema = Plan::schema_for_models();
    format!(
        "You plan work on a git repository for coding agents. Each job of your plan is done by one \
         agent in a sandboxed checkout of its own, without network; its change is then checked and \
         merged onto one branch.\n\
         \n\
         Rules:\n\
         - Prefer one job. Make several only where the parts are independent, or where one must \
         build on the merged result of another. At most {MAX_JOBS}.\n\
         - Jobs that would edit the same lines must follow each other: name the earlier one in `after`.\n\
         - A job's agent sees nothing but its own prompt and the repository: write the prompt so \
         that it stands alone, with the files that matter and what must be true at the end.\n\
         - Give `scope.write` only when you are sure which paths are needed.\n\
         - `checks` are shell commands that pass only when the job is done; leave them out when the \
         repository's own checks tell.\n\
         \n\
         Answer with one JSON object and nothing else. It must match this schema:\n{schema:#}\n"
    )
}

/// The first message: the request and the repository.
pub(crate) fn request(prompt: &str, repository: &Repository) -> String {
    let mut text = format!(
        "The request:\n\n{prompt}\n\nThe repository has {} files",
        repository.file_count
    );
    if repository.files.len() < repository.file_count {
        text.push_str(&format!("; the first {} are", repository.files.len()));
    }
    text.push_str(":\n\n");
    for file in &repository.files {
        text.push_str(file);
        text.push('\n');
    }
    if !repository.checks.is_empty() {
        text.push_str("\nEvery change is checked by:\n\n");
        for (name, command) in &repository.checks {
            text.push_str(&format!("- {name}: {command}\n"));
        }
    }
    if !repository.beside.is_empty() {
        text.push_str("\nBeside it, every agent sees:\n\n");
        for line in &repository.beside {
            text.push_str(&format!("- {line}\n"));
        }
    }
    if let Some(instructions) = &repository.instructions {
        text.push_str("\nWhat the repository tells agents:\n\n");
        text.push_str(instructions);
        text.push('\n');
    }
    text
}

/// The message of the repair round.
pub(crate) fn repair(error: &str) -> String {
    format!(
        "That plan cannot be used: {error}\n\nAnswer again with one JSON object that matches the schema, and nothing else."
    )
}

/// The JSON object in an answer: models like to wrap it in words or in a fence.
pub(crate) fn object(answer: &str) -> Option<&str> {
    let start = answer.find('{')?;
    let end = answer.rfind('}')?;
    answer.get(start..=end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_found_within_words_and_fences() {
        assert_eq!(
            object("Here:\n```json\n{\"job\": []}\n```\n"),
            Some("{\"job\": []}")
        );
        assert_eq!(object("I cannot plan this."), None);
        assert_eq!(object("} {"), None);
    }

    #[test]
    fn a_model_is_told_the_request_the_files_and_the_checks() {
        let repository = Repository {
            files: vec!["src/lib.rs".into()],
            file_count: 3,
            instructions: Some("Use tabs.".into()),
            checks: vec![("test".into(), "cargo test".into())],
            beside: Vec::new(),
        };
        insta::assert_snapshot!(request("Accept trailing commas", &repository), @r"
        The request:

        Accept trailing commas

        The repository has 3 files; the first 1 are:

        src/lib.rs

        Every change is checked by:

        - test: cargo test

        What the repository tells agents:

        Use tabs.
        ");
    }

    #[test]
    fn the_schema_that_a_model_is_given_names_what_it_may_choose_and_nothing_else() {
        let text = system();
        for key in [
            "name",
            "prompt",
            "after",
            "scope",
            "criteria",
            "checks",
            "may_change_nothing",
        ] {
            assert!(text.contains(&format!("\"{key}\"")), "{key}");
        }
        for key in ["agent", "model", "tokens"] {
            assert!(!text.contains(&format!("\"{key}\":")), "{key}");
        }
    }
}
