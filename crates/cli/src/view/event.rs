//! One event, in words.

mod full;

pub(crate) use self::full::full;

use super::{
    format::{short, span},
    paint::{BAD, FAINT, GOOD},
    story::Story,
    text,
};
use domain::{
    ChangeState, JobState, RequestState,
    entity::{Evidence, Verdict},
    event::{Agent, Body, Envelope},
};
use std::time::Duration;

/// What an agent did, for the line of its job; none for what a line does not need.
pub(crate) fn action(event: &Agent) -> Option<String> {
    let said = |words: String| (!words.is_empty()).then_some(words);
    match event {
        Agent::Turn { round: 1, .. } => Some("starts".into()),
        Agent::Turn { round, .. } => Some(format!("round {round}: mends what the checks found")),
        Agent::Text { text } => said(text::first_line(text)),
        Agent::Reasoning { .. } => Some("thinks".into()),
        Agent::ToolCall { tool, input, .. } => Some(tool_call(tool, input)),
        Agent::Retry { reason, .. } => Some(format!("asks again: {}", text::first_line(reason))),
        Agent::Session { .. } | Agent::ToolResult { .. } | Agent::Usage { .. } => None,
        Agent::Question { text } => said(format!("asks: {}", text::first_line(text))),
        Agent::Error { text } => said(format!("error: {}", text::first_line(text))),
        Agent::Finished { summary } => said(text::first_line(summary)),
    }
}

/// A call of a tool: the command, or the file, rather than the JSON around it.
pub(crate) fn tool_call(tool: &str, input: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(input).ok();
    let field = |name: &str| {
        parsed
            .as_ref()
            .and_then(|value| value.get(name))
            .and_then(serde_json::Value::as_str)
            .map(text::line)
    };
    let tool = text::line(tool);
    if let Some(command) = field("command") {
        return format!("$ {command}");
    }
    if let Some(path) = field("path").or_else(|| field("file_path")) {
        return format!("{tool} {path}");
    }
    let input = text::line(input);
    if input.is_empty() || input == "{}" {
        tool
    } else {
        format!("{tool} {input}")
    }
}

/// What a person should know of the inputs of a setup.
fn setup_notes(misfit: Option<&str>, unmatched: &[String]) -> Option<String> {
    let misfit = misfit.map(|path| {
        format!("it writes {path}, which the commit has and `setup.inputs` does not name")
    });
    let unmatched = (!unmatched.is_empty()).then(|| {
        let globs: Vec<String> = unmatched.iter().map(|glob| format!("`{glob}`")).collect();
        format!("no file matches {} of `setup.inputs`", globs.join(", "))
    });
    let notes: Vec<String> = misfit.into_iter().chain(unmatched).collect();
    (!notes.is_empty()).then(|| notes.join("\n"))
}

/// How a setup went: `cached`, or how long it took.
pub(crate) fn setup_words(cached: bool, duration_ms: u64) -> String {
    match cached {
        true => "cached".into(),
        false => format!("ran, {}", span(Duration::from_millis(duration_ms))),
    }
}

/// A check, for the line of its job.
pub(crate) fn check_action(evidence: &Evidence) -> String {
    format!(
        "check {}: {}",
        text::line(&evidence.check),
        verdict(evidence)
    )
}

/// What a check found, in words.
pub(crate) fn verdict(evidence: &Evidence) -> String {
    let word = match evidence.verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::NotNeeded => "not needed",
        Verdict::Broken => "could not run",
    };
    match (evidence.verdict, evidence.exit_code) {
        (Verdict::Passed | Verdict::Failed | Verdict::Broken, Some(code)) => {
            format!("{word}, exit {code}")
        }
        _ => word.into(),
    }
}

/// The style for a verdict.
pub(crate) fn verdict_style(verdict: Verdict) -> anstyle::Style {
    match verdict {
        Verdict::Passed => GOOD,
        Verdict::Failed | Verdict::Broken => BAD,
        Verdict::NotNeeded => FAINT,
    }
}

/// The line for a change of state, where there is no terminal to draw on; none for events that
/// change no state. The story has already taken the event in.
pub(crate) fn progress(envelope: &Envelope, story: &Story) -> Option<String> {
    let said = match &envelope.body {
        Body::RequestChanged { to, failure, .. } => match (to, failure) {
            (RequestState::Queued, None) => return None,
            (to, Some(failure)) => format!("request {to}: {failure}"),
            (to, None) => format!("request {to}"),
        },
        Body::Planned { jobs, note, .. } => {
            let names: Vec<_> = jobs.iter().map(|job| text::line(&job.name)).collect();
            let note = note
                .as_ref()
                .map(|note| format!(" ({})", text::line(note)))
                .unwrap_or_default();
            format!("planned {}{note}", names.join(", "))
        }
        Body::JobChanged {
            job, to, failure, ..
        } => {
            if matches!(to, JobState::Leased | JobState::Ready) && failure.is_none() {
                return None;
            }
            let name = story.job(*job).map_or("", |job| job.name.as_str());
            let why = failure
                .as_ref()
                .map(|failure| format!(": {failure}"))
                .unwrap_or_default();
            format!("{name}  {to}{why}")
        }
        Body::Agent {
            attempt,
            event: Agent::Turn { round, .. },
        } if *round > 1 => {
            let name = story.job_of(*attempt).map_or("", |job| job.name.as_str());
            format!("{name}  round {round}: the findings go back to the agent")
        }
        Body::Checked {
            attempt,
            change,
            evidence,
            ..
        } if is_worth_a_line(evidence) => {
            let name = story.job_of(*attempt).map_or("", |job| job.name.as_str());
            let on = if change.is_some() {
                " on the merged tree"
            } else {
                ""
            };
            format!(
                "{name}  {}, {}{on}",
                check_action(evidence),
                span(Duration::from_millis(evidence.duration_ms))
            )
        }
        Body::ChangeChanged {
            change,
            to,
            conflicts,
            failure,
            integrated,
            ..
        } => {
            let name = story
                .job_of_change(*change)
                .map_or("", |job| job.name.as_str());
            let more = match (to, integrated, failure) {
                (ChangeState::Integrated, Some(commit), _) => format!(" as {}", short(commit)),
                (ChangeState::Conflicted, ..) => format!(" in {}", conflicts.join(", ")),
                (_, _, Some(failure)) => format!(": {failure}"),
                _ => String::new(),
            };
            // One that is put back says why.
            if matches!(to, ChangeState::Merging | ChangeState::Checking)
                || (*to == ChangeState::Queued && failure.is_none())
            {
                return None;
            }
            format!("{name}  {to}{more}")
        }
        Body::Published {
            branch,
            commit,
            refused,
            ..
        } => match refused {
            None => format!("{branch} is at {}", short(commit)),
            Some(why) => format!("{branch} was not moved: {why}"),
        },
        Body::Note { text } => text.clone(),
        _ => return None,
    };
    Some(text::parts(&said).0)
}

/// Rules that hold are many and say little.
pub(crate) fn is_worth_a_line(evidence: &Evidence) -> bool {
    match evidence.verdict {
        Verdict::NotNeeded => false,
        Verdict::Passed => evidence.command.is_some(),
        Verdict::Failed | Verdict::Broken => true,
    }
}
