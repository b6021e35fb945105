//! What came of each job of a request, and why.

use crate::view::{
    format, live,
    paint::{FAINT, STRONG, TYPE, paint},
    story::{Checked, JobStory, Story},
    table::{self, Cell},
    text,
};
use domain::{Failure, entity::Verdict};

pub(super) fn jobs(story: &Story, width: usize) -> String {
    let rows: Vec<Vec<Cell>> = story
        .jobs
        .iter()
        .map(|job| {
            let rounds: u32 = job.attempts.iter().map(|attempt| attempt.round).sum();
            vec![
                Cell::styled(STRONG, &job.name),
                Cell::styled(live::style(job), job.standing()),
                match rounds {
                    0 => Cell::default(),
                    rounds => format::count(rounds as usize, "round").into(),
                },
                text::line(&job.title).into(),
            ]
        })
        .collect();
    table::render(&rows, 2, width)
}

/// Why a job did not make it, and what to do.
pub(crate) fn trouble(job: &JobStory) -> String {
    let failure = job
        .change()
        .and_then(|change| change.failure.as_ref())
        .or(job.failure.as_ref());
    let conflicts = job
        .change()
        .map(|change| change.conflicts.as_slice())
        .unwrap_or_default();
    let mut out = String::new();
    if let Some(failure) = failure {
        out.push_str(&format!(
            "\n{}: {}\n",
            paint(STRONG, text::line(&job.name)),
            said(failure)
        ));
        out.push_str(&hint(failure.reason.remedy()));
    } else if !conflicts.is_empty() {
        let failure = Failure::new(domain::Reason::Conflict, "");
        out.push_str(&format!(
            "\n{}: {failure}\n",
            paint(STRONG, text::line(&job.name))
        ));
        out.push_str(&hint(failure.reason.remedy()));
    }
    for file in conflicts {
        out.push_str(&format!("    {}\n", text::line(file)));
    }
    if let Some(check) = job
        .attempt()
        .and_then(|attempt| attempt.checks.iter().rev().find(|check| is_bad(check)))
        && conflicts.is_empty()
    {
        out.push_str(&tail(&check.evidence.findings, 12));
    }
    out
}

fn is_bad(check: &Checked) -> bool {
    matches!(check.evidence.verdict, Verdict::Failed | Verdict::Broken)
}

/// What happened, with the lines that belong to it below.
pub(super) fn said(failure: &Failure) -> String {
    let (mut said, below) = text::parts(&failure.to_string());
    for line in below {
        said.push_str(&format!("\n    {line}"));
    }
    said
}

pub(super) fn remedy(failure: &Failure) -> String {
    hint(failure.reason.remedy())
}

fn hint(words: &str) -> String {
    format!("  {} {words}\n", paint(TYPE, "hint:"))
}

/// The last lines of an output, indented.
pub(crate) fn tail(output: &str, most: usize) -> String {
    let output = text::lines(output);
    let lines: Vec<&str> = output.trim_end().lines().collect();
    let left_out = lines.len().saturating_sub(most);
    let mut out = String::new();
    if left_out > 0 {
        let more = format::count(left_out, "line");
        out.push_str(&format!(
            "    {}\n",
            paint(FAINT, format!("… {more} above"))
        ));
    }
    for line in lines.iter().skip(left_out) {
        out.push_str(&format!("    {}\n", paint(FAINT, line)));
    }
    out
}
