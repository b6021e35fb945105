//! A request, a job, an attempt or a change, with what is known of it.

use super::{
    event, format, live,
    paint::{BAD, FAINT, GOOD, LOOK, STRONG, TYPE, paint},
    result,
    story::{AttemptStory, Checked, JobStory, Story},
    table::{self, Cell},
    text,
};
use domain::{
    Amount, AttemptState, BlobId, ChangeState, Failure, RequestState, Timestamp,
    entity::{Attempt, Change, Job, Request, Verdict},
};
use jiff::tz::TimeZone;

/// What all of them are shown with.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The columns of the terminal.
    pub(crate) width: usize,
    /// Now.
    pub(crate) now: Timestamp,
    /// Where the person is.
    pub(crate) zone: TimeZone,
}

impl Frame {
    fn when(&self, created: Timestamp, ended: Option<Timestamp>) -> String {
        let began = format!(
            "{} ({})",
            format::moment(created, &self.zone),
            format::ago(created, self.now)
        );
        match ended {
            Some(ended) => format!("{began}, took {}", format::span(ended.since(created))),
            None => format!("{began}, under way"),
        }
    }
}

/// Names and values below each other.
fn facts(rows: &[(&str, String)], width: usize) -> String {
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| vec![Cell::styled(FAINT, name), Cell::from(value)])
        .collect();
    table::render(&rows, 2, width)
}

fn block(name: &str, words: &str) -> String {
    let words = text::lines(words);
    if words.trim().is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}\n", paint(STRONG, name));
    for line in words.trim().lines() {
        out.push_str(&format!("  {line}\n"));
    }
    out
}

fn failed(failure: &Failure) -> String {
    format!(
        "\n{} {}\n{} {}\n",
        paint(BAD, "failed:"),
        text::line(&failure.to_string()),
        paint(TYPE, "hint:"),
        failure.reason.remedy()
    )
}

/// A request.
pub(crate) fn request(request: &Request, story: &Story, spent: Amount, frame: &Frame) -> String {
    let ask = &request.ask;
    let mut out = format!(
        "{}  {}\n",
        paint(STRONG, request.id),
        paint(state_style(request.state), request.state.as_str())
    );
    let spending = story.spending();
    let agent = match &ask.model {
        Some(model) => format!("{} with {model}", ask.agent),
        None => ask.agent.clone(),
    };
    out.push_str(&facts(
        &[
            (
                "repository",
                ask.sources
                    .url
                    .clone()
                    .unwrap_or_else(|| ask.repository_path.clone()),
            ),
            ("ref", ask.sources.reference.clone().unwrap_or_default()),
            ("issue", ask.sources.issue.clone().unwrap_or_default()),
            (
                "beside it",
                ask.sources
                    .beside
                    .iter()
                    .map(|it| {
                        format!(
                            "{} ({} at {})",
                            it.name,
                            it.origin,
                            format::short(&it.commit)
                        )
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            ("asked", frame.when(request.created, request.ended)),
            ("base", format::short(&ask.base).to_owned()),
            ("agent", agent),
            ("budget", format::budget(ask.budget)),
            ("spent", format::spent(spent, spending.is_priced())),
            (
                "again",
                ask.retry_of
                    .map(|other| format!("tries {other} again"))
                    .unwrap_or_default(),
            ),
            (
                "checks",
                if ask.policy.is_checked() {
                    ask.policy
                        .checks
                        .iter()
                        .map(|check| text::line(&check.name))
                        .collect::<Vec<_>>()
                        .join(", ")
                } else {
                    "none: unchecked".into()
                },
            ),
        ],
        frame.width,
    ));
    out.push_str(&block("prompt", &ask.prompt));
    if let Some(failure) = &request.failure {
        out.push_str(&failed(failure));
    }
    for note in &story.notes {
        out.push_str(&format!(
            "\n{} {}\n",
            paint(LOOK, "note:"),
            text::line(note)
        ));
    }
    if story.jobs.is_empty() {
        out.push_str("\nIt has no jobs yet.\n");
        return out;
    }
    out.push_str(&format!("\n{}\n", result::heading("jobs")));
    out.push_str(&jobs(story, frame));
    for job in story.jobs.iter().filter(|job| job.outcome() == Some(false)) {
        out.push_str(&result::trouble(job));
    }
    out.push_str(&result::checks(story, frame.width));
    if let Some(published) = &story.published {
        out.push_str(&format!(
            "\n{} is at {}\n",
            paint(STRONG, text::line(&published.branch)),
            format::short(&published.commit)
        ));
        if let Some(why) = &published.refused {
            out.push_str(&format!("it was not moved: {}\n", text::line(why)));
        }
    }
    out
}

fn jobs(story: &Story, frame: &Frame) -> String {
    let mut rows = Vec::new();
    for job in &story.jobs {
        let spending = job.spending();
        rows.push(vec![
            Cell::styled(STRONG, &job.name),
            Cell::from(job.id.to_string()),
            Cell::styled(live::style(job), job.standing()),
            Cell::number(format::tokens(spending.amount.tokens)),
            Cell::from(text::line(&job.title)),
        ]);
        for attempt in &job.attempts {
            rows.push(attempt_row(attempt));
            if let Some(change) = &attempt.change {
                rows.push(vec![
                    Cell::below(FAINT, "change"),
                    Cell::from(change.id.to_string()),
                    Cell::styled(change_style(change.state), change.state.as_str()),
                    Cell::default(),
                    Cell::styled(
                        FAINT,
                        change_note(change.integrated.as_deref(), attempt.sealed),
                    ),
                ]);
            }
        }
    }
    table::render(&rows, 2, frame.width)
}

fn attempt_row(attempt: &AttemptStory) -> Vec<Cell> {
    vec![
        Cell::below(FAINT, format!("attempt {}", attempt.number)),
        Cell::from(attempt.id.to_string()),
        Cell::styled(attempt_style(attempt.state), attempt.state.as_str()),
        Cell::number(format::tokens(attempt.spending.amount.tokens)),
        Cell::styled(
            FAINT,
            format!(
                "{}, {}",
                format::count(attempt.round as usize, "round"),
                format::count(
                    usize::try_from(attempt.spending.calls).unwrap_or(usize::MAX),
                    "call"
                )
            ),
        ),
    ]
}

/// A job.
pub(crate) fn job(job: &Job, story: Option<&JobStory>, frame: &Frame) -> String {
    let spec = &job.spec;
    let standing = story.map_or(job.state.as_str(), JobStory::standing);
    let style = story.map(live::style).unwrap_or_default();
    let mut out = format!(
        "{}  {}  {}\n",
        paint(STRONG, job.id),
        text::line(&spec.name),
        paint(style, standing)
    );
    let after: Vec<String> = job.after.iter().map(ToString::to_string).collect();
    out.push_str(&facts(
        &[
            ("request", job.request.to_string()),
            ("title", spec.title.clone()),
            ("planned", frame.when(job.created, job.ended)),
            ("after", after.join(", ")),
            ("may write", spec.scope.write.join(", ")),
            ("never", spec.scope.forbid.join(", ")),
            ("checks", spec.checks.join("; ")),
        ],
        frame.width,
    ));
    out.push_str(&block("prompt", &spec.prompt));
    out.push_str(&block("criteria", &spec.criteria.join("\n")));
    if let Some(failure) = &job.failure {
        out.push_str(&failed(failure));
    }
    let attempts = story
        .map(|story| story.attempts.as_slice())
        .unwrap_or_default();
    if attempts.is_empty() {
        out.push_str("\nNo attempt was started.\n");
    } else {
        out.push_str(&format!("\n{}\n", result::heading("attempts")));
        let rows: Vec<Vec<Cell>> = attempts.iter().map(attempt_row).collect();
        out.push_str(&table::render(&rows, 0, frame.width));
        for attempt in attempts {
            out.push_str(&evidence(&attempt.checks, &[]));
        }
    }
    out
}

/// An attempt.
pub(crate) fn attempt(
    attempt: &Attempt,
    story: Option<&AttemptStory>,
    change: Option<&Change>,
    outputs: &[(BlobId, String)],
    frame: &Frame,
) -> String {
    let mut out = format!(
        "{}  attempt {}  {}\n",
        paint(STRONG, attempt.id),
        attempt.number,
        paint(attempt_style(attempt.state), attempt.state.as_str())
    );
    let priced = story.is_none_or(|story| story.spending.is_priced());
    let agent = match &attempt.model {
        Some(model) => format!("{} with {model}", attempt.agent),
        None => attempt.agent.clone(),
    };
    out.push_str(&facts(
        &[
            ("job", attempt.job.to_string()),
            ("request", attempt.request.to_string()),
            ("began", frame.when(attempt.created, attempt.ended)),
            ("agent", agent),
            ("sandbox", attempt.sandbox.clone()),
            ("base", format::short(&attempt.base).to_owned()),
            (
                "setup",
                story
                    .and_then(|story| story.set_up.clone())
                    .unwrap_or_default(),
            ),
            (
                "rounds",
                story
                    .map(|story| story.round.to_string())
                    .unwrap_or_default(),
            ),
            (
                "calls",
                story
                    .map(|story| story.spending.calls.to_string())
                    .unwrap_or_default(),
            ),
            ("spent", format::spent(attempt.spent, priced)),
            (
                "change",
                change
                    .map(|change| format!("{} ({})", change.id, change.state))
                    .unwrap_or_default(),
            ),
        ],
        frame.width,
    ));
    out.push_str(&block("what the agent says it did", &attempt.summary));
    if let Some(failure) = &attempt.failure {
        out.push_str(&failed(failure));
    }
    if let Some(story) = story {
        out.push_str(&evidence(&story.checks, outputs));
    }
    out.push_str(&format!(
        "\n{}",
        result::commands(&[
            (format!("skep log {}", attempt.id), "read what it did"),
            (format!("skep diff {}", attempt.id), "read what it changed"),
            (
                format!("skep replay {}", attempt.id),
                "run it again from its recording"
            ),
        ])
    ));
    out
}

/// What checks found; the whole output where it is given under the name of the check.
fn evidence(checks: &[Checked], outputs: &[(BlobId, String)]) -> String {
    let mut out = String::new();
    for check in checks {
        let evidence = &check.evidence;
        let ruled = evidence.command.is_none();
        if evidence.verdict == Verdict::NotNeeded || (ruled && evidence.verdict == Verdict::Passed)
        {
            continue;
        }
        let place = if check.merged {
            "merged tree".to_owned()
        } else {
            format!("round {}", check.round)
        };
        out.push_str(&format!(
            "\n{} {}, {}: {}, {}\n",
            paint(STRONG, "check"),
            text::line(&evidence.check),
            place,
            paint(
                event::verdict_style(evidence.verdict),
                event::verdict(evidence)
            ),
            format::milliseconds(evidence.duration_ms)
        ));
        if let Some(command) = &evidence.command {
            out.push_str(&format!(
                "    {}\n",
                paint(FAINT, format!("$ {}", text::line(command)))
            ));
        }
        let whole = outputs.iter().find(|(id, _)| Some(*id) == evidence.output);
        match whole {
            Some((_, output)) => out.push_str(&result::tail(output, usize::MAX)),
            None => {
                let most = if evidence.verdict == Verdict::Passed {
                    3
                } else {
                    20
                };
                out.push_str(&result::tail(&evidence.findings, most));
            }
        }
    }
    out
}

/// What is said of a change beside its state.
fn change_note(integrated: Option<&str>, sealed: bool) -> String {
    let landed = integrated.map(|commit| format!("as {}", format::short(commit)));
    let unsealed = (!sealed).then(|| "unsealed".to_owned());
    let notes: Vec<String> = landed.into_iter().chain(unsealed).collect();
    notes.join(", ")
}

/// A change.
pub(crate) fn change(
    change: &Change,
    job: &str,
    files: &[result::FileStat],
    frame: &Frame,
) -> String {
    let mut out = format!(
        "{}  {}  {}\n",
        paint(STRONG, change.id),
        text::line(job),
        paint(change_style(change.state), change.state.as_str())
    );
    let checked = if change.checked {
        "the repository's checks passed on it"
    } else {
        "unchecked: the repository has no checks of its own"
    };
    out.push_str(&facts(
        &[
            ("request", change.request.to_string()),
            ("attempt", change.attempt.to_string()),
            ("made", frame.when(change.created, change.ended)),
            ("commit", format::short(&change.commit).to_owned()),
            ("on", format::short(&change.base).to_owned()),
            (
                "landed as",
                change
                    .integrated
                    .as_deref()
                    .map(|commit| format::short(commit).to_owned())
                    .unwrap_or_default(),
            ),
            ("checks", checked.to_owned()),
            (
                "sandbox",
                match change.sealed {
                    true => String::new(),
                    false => "none: unsealed, it was made on the host".to_owned(),
                },
            ),
        ],
        frame.width,
    ));
    if let Some(failure) = &change.failure {
        out.push_str(&failed(failure));
    }
    if !change.conflicts.is_empty() {
        out.push_str(&block(
            "files that do not merge",
            &change.conflicts.join("\n"),
        ));
    }
    if !files.is_empty() {
        out.push_str(&format!("\n{}\n", result::heading("files")));
        out.push_str(&result::stat(files, frame.width));
    }
    let mut rows = vec![(format!("skep diff {}", change.id), "read it")];
    if !change.state.is_integrated() {
        rows.push((
            format!("skep apply {}", change.id),
            "take it onto your branch as it is",
        ));
    }
    out.push_str(&format!("\n{}", result::commands(&rows)));
    out
}

fn state_style(state: RequestState) -> anstyle::Style {
    match state {
        RequestState::Done => GOOD,
        RequestState::Failed => BAD,
        RequestState::Cancelled => FAINT,
        _ => LOOK,
    }
}

fn attempt_style(state: AttemptState) -> anstyle::Style {
    match state {
        AttemptState::Passed => GOOD,
        AttemptState::Rejected | AttemptState::Failed | AttemptState::Lost => BAD,
        AttemptState::Cancelled => FAINT,
        _ => LOOK,
    }
}

fn change_style(state: ChangeState) -> anstyle::Style {
    match state {
        ChangeState::Integrated | ChangeState::Promoted => GOOD,
        ChangeState::Conflicted | ChangeState::Rejected | ChangeState::Reverted => BAD,
        _ => LOOK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};

    fn frame() -> Frame {
        Frame {
            width: 100,
            now: Timestamp(1_700_000_000_000_000 + 120_000_000),
            zone: TimeZone::UTC,
        }
    }

    #[test]
    fn a_request_is_shown_with_jobs_attempts_evidence_and_remedy() {
        let spent = Amount {
            tokens: 13_000,
            ..Amount::ZERO
        };
        let shown = request(
            &sample::request(RequestState::Partial),
            &sample::partial(),
            spent,
            &frame(),
        );
        insta::assert_snapshot!("show_request", plain(&shown));
    }

    #[test]
    fn a_job_is_shown_with_its_scope_and_attempts() {
        let story = sample::done();
        let shown = job(&sample::job_entity(1), story.jobs.first(), &frame());
        insta::assert_snapshot!("show_job", plain(&shown));
    }

    #[test]
    fn an_attempt_is_shown_with_its_rounds_and_the_output_of_its_checks() {
        let story = sample::done();
        let shown = attempt(
            &sample::attempt_entity(1),
            story.jobs[0].attempt(),
            Some(&sample::change_entity(1, ChangeState::Integrated)),
            &[],
            &frame(),
        );
        insta::assert_snapshot!("show_attempt", plain(&shown));
    }

    #[test]
    fn a_change_is_shown_with_where_it_stands_and_what_conflicts() {
        let shown = change(
            &sample::change_entity(2, ChangeState::Conflicted),
            "money",
            &[],
            &frame(),
        );
        insta::assert_snapshot!("show_change", plain(&shown));
    }

    #[test]
    fn a_change_that_was_made_without_a_sandbox_is_called_unsealed() {
        let mut made = sample::change_entity(2, ChangeState::Conflicted);
        assert!(!change(&made, "money", &[], &frame()).contains("unsealed"));
        made.sealed = false;
        assert!(change(&made, "money", &[], &frame()).contains("unsealed"));
        assert_eq!(change_note(None, true), "");
        assert_eq!(
            change_note(Some("0123456789abcdef"), false),
            "as 0123456789, unsealed"
        );
    }
}
