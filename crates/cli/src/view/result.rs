//! What came of a request.

mod jobs;
mod stat;

pub(crate) use self::{
    jobs::{tail, trouble},
    stat::{FileStat, stat, stat_of},
};

use self::jobs::{jobs, remedy, said};

use super::{
    event, format,
    paint::{BAD, FAINT, GOOD, LOOK, STRONG, TYPE, paint},
    story::{JobStory, Story},
    table::{self, Cell},
    text,
};
use anstyle::Style;
use domain::{Amount, RequestId, RequestState, entity::Verdict};
use std::time::Duration;

/// What is shown at the end of a request.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    /// The request.
    pub(crate) request: RequestId,
    /// What happened.
    pub(crate) story: &'a Story,
    /// What was spent, as the ledger has it.
    pub(crate) spent: Amount,
    /// Whether the repository has checks of its own.
    pub(crate) checked: bool,
    /// What was integrated does to the files.
    pub(crate) files: &'a [FileStat],
    /// Where the work is, if the repository has no working tree.
    pub(crate) fetched: Option<Fetched<'a>>,
    /// The columns of the terminal.
    pub(crate) width: usize,
}

/// Work on a repository that was fetched from a URL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetched<'a> {
    /// The URL.
    pub(crate) url: &'a str,
    /// The copy that holds the work.
    pub(crate) copy: &'a str,
    /// The integration branch.
    pub(crate) branch: &'a str,
}

/// The result, as the last thing that a person sees of `skep run`.
pub(crate) fn render(outcome: &Outcome<'_>) -> String {
    let mut out = with_patch(outcome, "");
    out.push_str(&next(outcome));
    out
}

/// The result with the patch in it, and without what to do next.
pub(crate) fn with_patch(outcome: &Outcome<'_>, patch: &str) -> String {
    let story = outcome.story;
    let mut out = headline(outcome);
    out.push('\n');
    out.push_str(&jobs(story, outcome.width));
    for job in story.jobs.iter().filter(|job| job.outcome() == Some(false)) {
        out.push_str(&trouble(job));
    }
    if story.jobs.is_empty()
        && let Some(failure) = &story.failure
    {
        out.push_str(&remedy(failure));
    }
    out.push_str(&landed(outcome));
    if !patch.is_empty() {
        out.push_str(&format!("\n{patch}"));
    }
    out.push_str(&checks(story, outcome.width));
    out.push_str(&unchecked(outcome));
    out.push_str(&unsealed(outcome));
    out.push_str(&spent(outcome));
    out
}

fn headline(outcome: &Outcome<'_>) -> String {
    let story = outcome.story;
    let state = story.state.unwrap_or(RequestState::Queued);
    let style = match state {
        RequestState::Done => GOOD,
        RequestState::Failed => BAD,
        _ => LOOK,
    };
    let took = story
        .ended
        .map(|ended| format!(" after {}", format::span(ended.since(story.started))))
        .unwrap_or_default();
    let why = story
        .failure
        .as_ref()
        // What a job says below is not said twice.
        .filter(|failure| {
            let said = |job: &JobStory| job.failure.as_ref() == Some(failure);
            !story.jobs.iter().any(said)
        })
        .map(|failure| format!(": {}", said(failure)))
        .unwrap_or_default();
    format!(
        "{} {}{took}{why}\n",
        outcome.request,
        paint(style, state.as_str())
    )
}

fn landed(outcome: &Outcome<'_>) -> String {
    let Some(published) = &outcome.story.published else {
        return String::new();
    };
    let branch = text::line(&published.branch);
    let mut out = format!(
        "\n{} is at {}: {} on {}\n",
        paint(STRONG, &branch),
        paint(STRONG, format::short(&published.commit)),
        format::count(
            outcome
                .story
                .jobs
                .iter()
                .filter(|job| job.change().is_some_and(|c| c.state.is_integrated()))
                .count(),
            "change"
        ),
        format::short(&outcome.story.base),
    );
    if let Some(why) = &published.refused {
        out = format!(
            "\n{}: {}\n",
            paint(BAD, format!("{branch} of your repository was not moved")),
            text::line(why)
        );
    }
    out.push_str(&stat(outcome.files, outcome.width));
    out
}

/// Every check that ran, in the order of the jobs.
pub(crate) fn checks(story: &Story, width: usize) -> String {
    let mut rows = Vec::new();
    for job in &story.jobs {
        for attempt in &job.attempts {
            for check in &attempt.checks {
                let evidence = &check.evidence;
                if evidence.verdict == Verdict::NotNeeded {
                    continue;
                }
                // Rules that passed are many and say little.
                if evidence.command.is_none() && evidence.verdict == Verdict::Passed {
                    continue;
                }
                let place = if check.merged {
                    "merged".to_owned()
                } else if job.attempts.len() > 1 {
                    format!("attempt {}, round {}", attempt.number, check.round)
                } else {
                    format!("round {}", check.round)
                };
                rows.push(vec![
                    Cell::from(text::line(&job.name)),
                    Cell::styled(FAINT, place),
                    Cell::from(text::line(&evidence.check)),
                    Cell::styled(
                        event::verdict_style(evidence.verdict),
                        event::verdict(evidence),
                    ),
                    Cell::number(format::milliseconds(evidence.duration_ms)),
                ]);
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n{}\n{}",
        paint(STRONG, "checks"),
        table::render(&rows, 2, width)
    )
}

fn unchecked(outcome: &Outcome<'_>) -> String {
    let integrated = outcome.story.jobs.iter().any(|job| job.change().is_some());
    if outcome.checked || !integrated {
        return String::new();
    }
    format!(
        "\n{} the repository has no checks of its own: nothing has run this code.\n\
         `skep init` writes a skep.toml with the checks that it finds.\n",
        paint(LOOK, "unchecked:")
    )
}

fn unsealed(outcome: &Outcome<'_>) -> String {
    let attempts = outcome.story.jobs.iter().flat_map(|job| &job.attempts);
    let made = attempts.filter(|attempt| attempt.change.is_some());
    if made.into_iter().all(|attempt| attempt.sealed) {
        return String::new();
    }
    format!(
        "\n{} changes were made on the host and not in a sandbox: the agent could read and\n\
         write whatever you can.\n",
        paint(LOOK, "unsealed:")
    )
}

fn spent(outcome: &Outcome<'_>) -> String {
    let spending = outcome.story.spending();
    // A call that was cut off told nothing: what was reserved for it counts.
    let cut_off = outcome.spent.minus(spending.amount).tokens;
    if spending.calls == 0 && cut_off == 0 {
        return String::new();
    }
    let calls = usize::try_from(spending.calls).unwrap_or(usize::MAX);
    let mut out = format!(
        "\n{} {} in {}, {}\n",
        paint(STRONG, "spent"),
        format::spent(outcome.spent, spending.is_priced()),
        format::count(calls, "call"),
        wall(outcome.story),
    );
    if spending.unmetered > 0 || cut_off > 0 {
        out.push_str(
            "  Calls that were cut off, or told no usage, count as all that was reserved for them.\n",
        );
    }
    out
}

fn wall(story: &Story) -> String {
    let span: Duration = story
        .ended
        .map(|ended| ended.since(story.started))
        .unwrap_or_default();
    format::span(span)
}

/// Commands and what each is for.
pub(crate) fn commands(rows: &[(String, &str)]) -> String {
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|(command, what)| vec![Cell::styled(TYPE, command), Cell::from(*what)])
        .collect();
    table::render(&rows, 2, usize::MAX)
}

fn next(outcome: &Outcome<'_>) -> String {
    let story = outcome.story;
    let id = outcome.request;
    let mut rows: Vec<(String, &str)> = Vec::new();
    let landed = story
        .published
        .as_ref()
        .is_some_and(|published| published.refused.is_none());
    if let Some(Fetched { url, copy, branch }) = outcome.fetched.filter(|_| landed) {
        rows.push((
            text::line(&format!("git fetch {copy} {branch}")),
            "bring it to a clone: FETCH_HEAD is the work",
        ));
        rows.push((
            text::line(&format!("skep drop --repo {url}")),
            "throw it away",
        ));
        rows.push((format!("skep diff {id}"), "read it"));
    } else if landed {
        rows.push(("skep apply".into(), "take it onto your branch"));
        rows.push(("skep drop".into(), "throw it away"));
        rows.push((format!("skep diff {id}"), "read it"));
    }
    match story.state {
        Some(RequestState::Done) => {}
        _ => {
            rows.push((
                format!("skep show {id}"),
                "see what happened, with the evidence",
            ));
            rows.push((format!("skep retry {id}"), "try again what did not work"));
        }
    }
    if rows.is_empty() {
        rows.push((format!("skep show {id}"), "see what happened"));
    }
    format!("\n{}", commands(&rows))
}

/// A plain line under a style, for callers that have only words.
pub(crate) fn heading(words: &str) -> String {
    paint(Style::new().bold(), words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};

    fn stats() -> Vec<FileStat> {
        let file = |path: &str, added, removed| FileStat {
            path: path.into(),
            added: Some(added),
            removed: Some(removed),
        };
        vec![
            file("src/durations.py", 9, 3),
            file("src/report.py", 120, 41),
            FileStat {
                path: "logo.png".into(),
                added: None,
                removed: None,
            },
        ]
    }

    fn shown(story: &Story, checked: bool, width: usize) -> String {
        plain(&render(&Outcome {
            request: sample::REQUEST,
            story,
            spent: story.spending().amount,
            checked,
            files: &stats(),
            fetched: None,
            width,
        }))
    }

    #[test]
    fn a_request_that_is_done_says_what_landed_and_how_to_take_it() {
        insta::assert_snapshot!("result_done", shown(&sample::done(), true, 100));
        insta::assert_snapshot!("result_done_narrow", shown(&sample::done(), true, 40));
    }

    #[test]
    fn a_request_that_is_partly_done_says_what_did_not_land_and_why() {
        insta::assert_snapshot!("result_partial", shown(&sample::partial(), true, 100));
    }

    #[test]
    fn what_a_call_that_was_cut_off_may_have_cost_is_counted() {
        let story = sample::done();
        let spent = Amount {
            tokens: 40_000,
            ..story.spending().amount
        };
        let outcome = Outcome {
            request: sample::REQUEST,
            story: &story,
            spent,
            checked: true,
            files: &[],
            fetched: None,
            width: 80,
        };
        let shown = plain(&render(&outcome));
        assert!(
            shown.contains("spent 40k tokens") && shown.contains("cut off"),
            "{shown}"
        );
    }

    #[test]
    fn work_without_a_sandbox_is_called_unsealed() {
        let mut story = sample::done();
        assert!(!shown(&story, true, 80).contains("unsealed:"));
        for attempt in story.jobs.iter_mut().flat_map(|job| &mut job.attempts) {
            attempt.sealed = false;
        }
        assert!(shown(&story, true, 80).contains("unsealed:"));
    }

    #[test]
    fn work_on_a_repository_without_a_working_tree_says_how_to_bring_it_to_a_clone() {
        let story = sample::done();
        let shown = plain(&render(&Outcome {
            request: sample::REQUEST,
            story: &story,
            spent: story.spending().amount,
            checked: true,
            files: &[],
            fetched: Some(Fetched {
                url: "https://example.org/o/r.git",
                copy: "/data/fetched/r-1",
                branch: "skep/integration",
            }),
            width: 80,
        }));
        assert!(!shown.contains("skep apply"), "{shown}");
        assert!(shown.contains("git fetch /data/fetched/r-1 skep/integration"));
        assert!(shown.contains("skep drop --repo https://example.org/o/r.git"));
    }

    #[test]
    fn work_without_checks_is_called_unchecked() {
        assert!(shown(&sample::done(), false, 80).contains("unchecked:"));
        assert!(!shown(&sample::done(), true, 80).contains("unchecked:"));
    }
}
