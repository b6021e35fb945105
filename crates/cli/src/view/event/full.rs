//! An event as `skep log` shows it.

use super::{check_action, setup_notes, setup_words, tool_call};
use crate::view::{
    egress,
    format::{self, money, short, span, tokens},
    paint::{BAD, FAINT, LOOK, STRONG, paint},
    story::{self, Story},
    text,
};
use domain::{
    ChangeState, JobState, RequestState,
    entity::Verdict,
    event::{Agent, Body, Envelope},
    machine::Machine,
};
use std::time::Duration;

/// The event as `skep log` shows it: what it concerns, and what happened; perhaps lines below.
pub(crate) fn full(envelope: &Envelope, story: &Story) -> String {
    let job =
        |job: Option<&story::JobStory>| job.map(|job| text::line(&job.name)).unwrap_or_default();
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
                format::budget(*budget)
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
            format!("planned as {}", format::count(jobs.len(), "job")),
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
            egress::words(&envelope.body),
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
                omitted => format!(", {} left out", format::bytes(*omitted)),
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
