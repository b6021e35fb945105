//! One event, in words.

use super::{
    format::{money, short, span, tokens},
    paint::{BAD, FAINT, GOOD, LOOK, STRONG, paint},
    story::Story,
    text,
};
use domain::{
    ChangeState, JobState, RequestState,
    entity::{Evidence, Verdict},
    event::{Agent, Body, Envelope},
    machine::Machine,
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

/// The event as `skep log` shows it: what it concerns, and what happened; perhaps lines below.
pub(crate) fn full(envelope: &Envelope, story: &Story) -> String {
    let job = |job: Option<&super::story::JobStory>| {
        job.map(|job| text::line(&job.name)).unwrap_or_default()
    };
    let (who, what, below) = match &envelope.body {
        Body::SessionCreated { name } => (String::new(), format!("session {name}"), None),
        Body::SessionRenamed { name } => {
            (String::new(), format!("session renamed to {name}"), None)
        }
        Body::RequestSubmitted {
            request,
            title,
            base,
            budget,
            ..
        } => (
            request.to_string(),
            format!(
                "submitted: {title} (base {}, budget {})",
                short(base),
                super::format::budget(*budget)
            ),
            None,
        ),
        Body::RequestChanged {
            request,
            from,
            to,
            failure,
        } => (
            request.to_string(),
            changed(from.as_str(), to.as_str(), failure.as_ref()),
            None,
        ),
        Body::Planned {
            request,
            jobs,
            note,
        } => (
            request.to_string(),
            format!("planned as {}", super::format::count(jobs.len(), "job")),
            Some(
                jobs.iter()
                    .map(|job| format!("{}  {}", job.name, job.title))
                    .chain(note.clone())
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
        ),
        Body::JobChanged {
            job: id,
            from,
            to,
            failure,
            ..
        } => (
            job(story.job(*id)),
            changed(from.as_str(), to.as_str(), failure.as_ref()),
            None,
        ),
        Body::AttemptStarted {
            attempt,
            job: id,
            number,
            agent,
            model,
            sandbox,
            base,
        } => (
            job(story.job(*id)),
            format!(
                "attempt {number} ({attempt}): {agent}{}, sandbox {sandbox}, base {}",
                model
                    .as_ref()
                    .map(|model| format!(" with {model}"))
                    .unwrap_or_default(),
                short(base)
            ),
            None,
        ),
        Body::AttemptChanged {
            attempt,
            from,
            to,
            failure,
            ..
        } => (
            job(story.job_of(*attempt)),
            format!(
                "attempt {}",
                changed(from.as_str(), to.as_str(), failure.as_ref())
            ),
            None,
        ),
        Body::Agent { attempt, event } => {
            let (what, below) = agent(event);
            (job(story.job_of(*attempt)), what, below)
        }
        Body::ModelCalled {
            attempt,
            model,
            call,
            spent,
            metered,
            priced,
            status,
            duration_ms,
        } => (
            attempt.map_or_else(|| "planner".into(), |id| job(story.job_of(id))),
            format!(
                "call {call} of {model}: {} tokens, {}, {}{}{}",
                tokens(spent.tokens),
                money(spent.money, *priced),
                span(Duration::from_millis(*duration_ms)),
                match status {
                    Some(200) => String::new(),
                    Some(status) => format!(", status {status}"),
                    None => ", no answer".into(),
                },
                if *metered {
                    ""
                } else {
                    ", usage unknown: counted as reserved"
                },
            ),
            None,
        ),
        Body::Checked {
            attempt,
            change,
            evidence,
            ..
        } => (
            job(story.job_of(*attempt)),
            format!(
                "{}, {}{}",
                check_action(evidence),
                span(Duration::from_millis(evidence.duration_ms)),
                if change.is_some() {
                    ", on the merged tree"
                } else {
                    ""
                }
            ),
            matches!(evidence.verdict, Verdict::Failed | Verdict::Broken)
                .then(|| evidence.findings.clone()),
        ),
        Body::SetUp {
            attempt,
            part,
            cached,
            duration_ms,
            misfit,
            unmatched,
        } => (
            job(story.job_of(*attempt)),
            format!("setup for {part}: {}", setup_words(*cached, *duration_ms)),
            setup_notes(misfit.as_deref(), unmatched.as_deref().unwrap_or_default()),
        ),
        Body::Egress { attempt, .. } => (
            job(story.job_of(*attempt)),
            super::egress::words(&envelope.body),
            None,
        ),
        Body::ChangeMade {
            change,
            attempt,
            commit,
        } => (
            job(story.job_of(*attempt)),
            format!("change {change}: {}", short(commit)),
            None,
        ),
        Body::ChangeChanged {
            change,
            from,
            to,
            conflicts,
            failure,
            ..
        } => (
            job(story.job_of_change(*change)),
            format!(
                "change {}",
                changed(from.as_str(), to.as_str(), failure.as_ref())
            ),
            (!conflicts.is_empty()).then(|| conflicts.join("\n")),
        ),
        Body::Published {
            branch,
            commit,
            refused,
            ..
        } => (
            branch.clone(),
            match refused {
                None => format!("moved to {}", short(commit)),
                Some(why) => format!("was not moved: {why}"),
            },
            None,
        ),
        Body::Note { text } => ("note".into(), text.clone(), None),
    };
    let mut out = paint(STRONG, text::line(&who));
    if !who.is_empty() {
        out.push_str("  ");
    }
    let style = match &envelope.body {
        Body::Note { .. } => LOOK,
        body if is_failure(body) => BAD,
        _ => anstyle::Style::new(),
    };
    out.push_str(&paint(style, text::parts(&what).0));
    for line in below.iter().flat_map(|below| below.lines()) {
        out.push_str("\n    ");
        out.push_str(&paint(FAINT, text::lines(line)));
    }
    out
}

fn agent(event: &Agent) -> (String, Option<String>) {
    let long = |words: &str| {
        let first = text::first_line(words);
        let more = words.trim().contains('\n').then(|| {
            text::lines(words)
                .trim()
                .lines()
                .skip(1)
                .collect::<Vec<_>>()
                .join("\n")
        });
        (first, more)
    };
    match event {
        Agent::Turn { round, .. } => (format!("round {round}"), None),
        Agent::Text { text } => long(text),
        Agent::Reasoning { text } => {
            let (first, more) = long(text);
            (format!("thinks: {first}"), more)
        }
        Agent::Session { id } => (format!("its session is {id}"), None),
        Agent::Retry { reason, wait_ms } => (
            format!(
                "asks its model again after {}: {}",
                span(Duration::from_millis(*wait_ms)),
                text::first_line(reason)
            ),
            None,
        ),
        Agent::ToolCall { tool, input, .. } => (tool_call(tool, input), None),
        Agent::ToolResult {
            output,
            omitted,
            ok,
            duration_ms,
            ..
        } => {
            let word = if *ok { "ended" } else { "failed" };
            let left_out = match omitted {
                0 => String::new(),
                omitted => format!(", {} left out", super::format::bytes(*omitted)),
            };
            let took = span(Duration::from_millis(*duration_ms));
            (
                format!("{word} after {took}{left_out}"),
                (!output.trim().is_empty()).then(|| output.trim_end().to_owned()),
            )
        }
        Agent::Usage { input, output, .. } => (
            format!(
                "says it used {} tokens in, {} out",
                tokens(*input),
                tokens(*output)
            ),
            None,
        ),
        Agent::Question { text } => {
            let (first, more) = long(text);
            (format!("asks: {first}"), more)
        }
        Agent::Error { text } => {
            let (first, more) = long(text);
            (format!("error: {first}"), more)
        }
        Agent::Finished { summary } => {
            let (first, more) = long(summary);
            (format!("finished: {first}"), more)
        }
    }
}

fn changed(from: &str, to: &str, failure: Option<&domain::Failure>) -> String {
    let why = failure
        .map(|failure| format!(": {failure}"))
        .unwrap_or_default();
    format!("{from} → {to}{why}")
}

fn is_failure(body: &Body) -> bool {
    match body {
        Body::RequestChanged { to, .. } => *to == RequestState::Failed,
        Body::JobChanged { to, .. } => *to == JobState::Dead,
        Body::AttemptChanged { to, failure, .. } => to.is_terminal() && failure.is_some(),
        Body::ChangeChanged { to, .. } => {
            matches!(to, ChangeState::Conflicted | ChangeState::Rejected)
        }
        Body::Checked { evidence, .. } => {
            matches!(evidence.verdict, Verdict::Failed | Verdict::Broken)
        }
        Body::Agent {
            event: Agent::Error { .. },
            ..
        } => true,
        Body::Egress { allowed, .. } => !allowed,
        _ => false,
    }
}
