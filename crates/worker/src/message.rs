//! The message of a change's commit, from the policy's template.

use domain::policy;

/// What a template may name.
pub(crate) struct Facts<'a> {
    pub(crate) title: &'a str,
    pub(crate) summary: &'a str,
    pub(crate) request: String,
    pub(crate) job: String,
    pub(crate) attempt: String,
    pub(crate) agent: &'a str,
    pub(crate) model: &'a str,
}

/// The most bytes of an agent's summary that a message holds.
const MAX_SUMMARY: usize = 4_000;

/// The most bytes of a title, an agent or a model in a message.
const MAX_LINE: usize = 200;

/// Fills in the template. What an agent wrote is cut and freed of control characters, and cannot
/// add a trailer of its own.
pub(crate) fn message(commit: &policy::Commit, facts: &Facts<'_>) -> String {
    let summary = without_trailers(facts.summary);
    let (title, model) = (line(facts.title), line(facts.model));
    // Whoever reads the history needs no command line, which may hold anything.
    let agent = match facts.agent.split_once(':') {
        Some(("command", _)) => "command".to_owned(),
        _ => line(facts.agent),
    };
    let mut text = String::new();
    let mut rest = commit.message.as_str();
    while let Some(start) = rest.find('{') {
        let (before, after) = rest.split_at(start);
        text.push_str(before);
        let known = [
            ("{title}", title.as_str()),
            ("{summary}", summary.as_str()),
            ("{request}", facts.request.as_str()),
            ("{job}", facts.job.as_str()),
            ("{attempt}", facts.attempt.as_str()),
            ("{agent}", agent.as_str()),
            ("{model}", model.as_str()),
        ];
        match known
            .iter()
            .find_map(|(name, value)| Some((after.strip_prefix(name)?, value)))
        {
            Some((following, value)) => {
                text.push_str(value);
                rest = following;
            }
            None => {
                text.push('{');
                rest = after.get(1..).unwrap_or_default();
            }
        }
    }
    text.push_str(rest);
    tidy(&text)
}

/// One blank line between paragraphs, and a newline at the end.
fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if !line.is_empty() || lines.last().is_some_and(|last| !last.is_empty()) {
            lines.push(line);
        }
    }
    while lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// One line of a person's or a model's text, without what cannot be seen, and cut.
fn line(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|&c| !is_hidden(c))
        .collect();
    let shown = shown.split(' ').filter(|word| !word.is_empty());
    let mut text = shown.collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text
}

/// Control characters, and those that turn text around or have no width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn without_trailers(summary: &str) -> String {
    let end = summary.floor_char_boundary(MAX_SUMMARY);
    let cut = summary.get(..end).unwrap_or_default();
    cut.lines()
        .map(|line| line.chars().filter(|&c| !is_hidden(c)).collect::<String>())
        .filter(|line| !line.trim_start().to_ascii_lowercase().starts_with("skep-"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(summary: &str) -> Facts<'_> {
        Facts {
            title: "Accept {summary} commas",
            summary,
            request: "r-1".into(),
            job: "j-1".into(),
            attempt: "a-1".into(),
            agent: "builtin",
            model: "scripted/demo",
        }
    }

    #[test]
    fn the_default_message_holds_the_title_the_summary_and_where_it_came_from() {
        let text = message(
            &policy::Commit::default(),
            &facts("Done.\u{1b}[31m\nSkep-Job: forged"),
        );
        assert_eq!(
            text,
            "Accept {summary} commas\n\nDone.[31m\n\nSkep-Request: r-1\nSkep-Job: j-1\nSkep-Attempt: a-1\nSkep-Agent: builtin\nSkep-Model: scripted/demo\n"
        );
    }

    #[test]
    fn nothing_that_was_written_elsewhere_adds_a_line_or_a_trailer() {
        let facts = Facts {
            title: "Mend\r\nSkep-Job:\u{7} forged\n",
            agent: "command:TOKEN=x ./agent.sh",
            ..facts("Done.\n\u{1b}\u{200b}Skep-Job: forged")
        };
        let text = message(&policy::Commit::default(), &facts);
        assert_eq!(
            text,
            "Mend Skep-Job: forged\n\nDone.\n\nSkep-Request: r-1\nSkep-Job: j-1\nSkep-Attempt: a-1\nSkep-Agent: command\nSkep-Model: scripted/demo\n"
        );
    }

    #[test]
    fn an_empty_summary_leaves_no_hole_and_unknown_names_stay() {
        let commit = policy::Commit {
            message: "{title}\n\n{summary}\n\n{other}".into(),
            ..policy::Commit::default()
        };
        assert_eq!(
            message(&commit, &facts("")),
            "Accept {summary} commas\n\n{other}\n"
        );
    }
}
