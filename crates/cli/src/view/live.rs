//! The lines of a request that is running: one for each job, and one for all of it.

use super::{
    format,
    paint::{BAD, FAINT, GOOD, LOOK, STRONG, paint},
    story::{JobStory, Spending, Story},
    text,
};
use anstyle::Style;
use domain::{ChangeState, JobState, RequestId, RequestState, Timestamp, machine::Machine};

/// The narrowest terminal that lines are made for; what is narrower wraps.
const NARROWEST: usize = 20;
/// A request needs a line for its name, one for a job and one for all of it.
const LEAST: usize = 3;

/// The lines, cut to the width, at most `height` of them.
pub(crate) fn lines(story: &Story, now: Timestamp, width: usize, height: usize) -> Vec<String> {
    let width = width.max(NARROWEST);
    let room = height.max(2).saturating_sub(1);
    let mut out: Vec<String> = Vec::new();
    if story.jobs.is_empty() {
        out.push(planning(story, width));
    }
    let columns = Columns::for_width(width, story);
    let shown = if story.jobs.len() > room {
        room.saturating_sub(1)
    } else {
        story.jobs.len()
    };
    let mut jobs: Vec<&JobStory> = story.jobs.iter().collect();
    if shown < jobs.len() {
        // What is under way is what a person looks for.
        jobs.sort_by_key(|job| (job.outcome().is_some(), job.started.is_none()));
    }
    out.extend(
        jobs.iter()
            .take(shown)
            .map(|job| line(job, story, now, &columns)),
    );
    if shown < jobs.len() {
        let more = format::count(jobs.len() - shown, "more job");
        out.push(paint(FAINT, text::fit(&more, width)));
    }
    out.push(summary(story, now, width));
    out
}

/// The lines of requests that run at the same time, at most `height` of them: those of each under
/// its name, or one for each where there is no room for more.
pub(crate) fn several(
    stories: &[(RequestId, Story)],
    now: Timestamp,
    width: usize,
    height: usize,
) -> Vec<String> {
    let width = width.max(NARROWEST);
    let each = height.saturating_sub(1) / stories.len().max(1);
    if each > LEAST {
        let block = |(request, story): &(RequestId, Story)| {
            let name = format!("{request}  {}", text::line(&story.title));
            let mut out = vec![paint(STRONG, text::fit(&name, width))];
            out.extend(lines(story, now, width, each - 1));
            out
        };
        return stories.iter().flat_map(block).collect();
    }
    let room = height.max(2) - 1;
    let shown = if stories.len() > room {
        room.saturating_sub(1)
    } else {
        stories.len()
    };
    let line = |(request, story): &(RequestId, Story)| {
        let name = request.to_string();
        let left = width.saturating_sub(name.len() + 2);
        format!("{}  {}", paint(STRONG, name), summary(story, now, left))
    };
    let mut out: Vec<String> = stories.iter().take(shown).map(line).collect();
    if shown < stories.len() {
        let more = format::count(stories.len() - shown, "more request");
        out.push(paint(FAINT, text::fit(&more, width)));
    }
    out
}

fn planning(story: &Story, width: usize) -> String {
    let words = match story.state {
        Some(RequestState::Planning) => "planning: a model reads the request",
        Some(state) if state.is_terminal() => "no jobs",
        _ => "queued",
    };
    text::fit(words, width)
}

/// How the width is shared out.
struct Columns {
    name: usize,
    state: usize,
    elapsed: bool,
    tokens: bool,
    money: bool,
    action: usize,
}

const STATE: usize = 11;
const ELAPSED: usize = 6;
const TOKENS: usize = 6;
const MONEY: usize = 8;

impl Columns {
    fn for_width(width: usize, story: &Story) -> Self {
        let longest = story
            .jobs
            .iter()
            .map(|job| text::columns(&job.name))
            .max()
            .unwrap_or(0);
        let name = longest.min(match width {
            0..36 => 8,
            36..60 => 10,
            _ => 20,
        });
        let state = if width < 36 { 10 } else { STATE };
        let mut used = name + 1 + state + 1;
        let elapsed = width >= 36;
        if elapsed {
            used += ELAPSED + 1;
        }
        let tokens = width >= 56;
        if tokens {
            used += TOKENS + 1;
        }
        let money = width >= 72 && story.spending().is_priced();
        if money {
            used += MONEY + 1;
        }
        Self {
            name,
            state,
            elapsed,
            tokens,
            money,
            action: width.saturating_sub(used + 1),
        }
    }
}

fn line(job: &JobStory, story: &Story, now: Timestamp, columns: &Columns) -> String {
    let spending = job.spending();
    let elapsed = job.started.map_or_else(String::new, |started| {
        let until = job.ended.or(story.ended).unwrap_or(now);
        format::span(until.since(started))
    });
    let mut out = format!(
        "{} {} ",
        text::pad(&text::line(&job.name), columns.name),
        paint(style(job), text::pad(job.standing(), columns.state)),
    );
    if columns.elapsed {
        out.push_str(&format!("{elapsed:>ELAPSED$} "));
    }
    if columns.tokens {
        let tokens = some(spending.calls, || format::tokens(spending.amount.tokens));
        out.push_str(&format!("{tokens:>TOKENS$} "));
    }
    if columns.money {
        let money = some(spending.calls, || spending.amount.money.to_string());
        out.push_str(&format!("{money:>MONEY$} "));
    }
    if columns.action > 3 {
        out.push(' ');
        let action = text::fit(&action(job, story), columns.action);
        out.push_str(&paint(FAINT, action));
    }
    out
}

fn some(calls: u64, words: impl FnOnce() -> String) -> String {
    if calls == 0 { String::new() } else { words() }
}

fn action(job: &JobStory, story: &Story) -> String {
    if job.state == JobState::Blocked {
        let waits: Vec<_> = job
            .after
            .iter()
            .filter_map(|id| story.job(*id))
            .filter(|other| other.outcome() != Some(true))
            .map(|other| text::line(&other.name))
            .collect();
        return format!("waits for {}", waits.join(", "));
    }
    if job.action.is_empty() {
        return text::line(&job.title);
    }
    text::line(&job.action)
}

/// How the word for the state of a job looks.
pub(crate) fn style(job: &JobStory) -> Style {
    match job.outcome() {
        Some(true) => GOOD,
        Some(false) => BAD,
        None if matches!(job.state, JobState::Blocked | JobState::Ready) => FAINT,
        None if job.change().is_some_and(|c| c.state == ChangeState::Queued) => FAINT,
        None => LOOK,
    }
}

fn summary(story: &Story, now: Timestamp, width: usize) -> String {
    let elapsed = format::span(story.ended.unwrap_or(now).since(story.started));
    let settled = story
        .jobs
        .iter()
        .filter(|job| job.outcome().is_some())
        .count();
    let mut parts = vec![elapsed];
    if !story.jobs.is_empty() {
        parts.push(format!("{settled} of {} settled", story.jobs.len()));
    }
    let spending: Spending = story.spending();
    if spending.calls > 0 {
        parts.push(format::spent(spending.amount, spending.is_priced()));
    }
    if !story.is_over() {
        parts.push("Ctrl-C cancels".into());
    }
    paint(STRONG, text::fit(&parts.join("  "), width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};

    fn drawn(width: usize, height: usize) -> String {
        let (story, now) = sample::running();
        let drawn = lines(&story, now, width, height);
        let text = plain(&drawn.join("\n"));
        for line in text.lines() {
            assert!(
                text::columns(line) <= width,
                "{line:?} is wider than {width}"
            );
        }
        text
    }

    #[test]
    fn every_job_has_a_line_that_fits_the_terminal() {
        insta::assert_snapshot!("live_wide", drawn(110, 24));
        insta::assert_snapshot!("live_80", drawn(80, 24));
        insta::assert_snapshot!("live_40", drawn(40, 24));
        drawn(20, 24);
    }

    #[test]
    fn requests_that_run_together_are_told_apart_and_fit_the_terminal() {
        let (story, now) = sample::running();
        let all = |count: u64| -> Vec<(RequestId, Story)> {
            let ids = (1..=count).map(RequestId::from_bits);
            ids.map(|id| (id, story.clone())).collect()
        };
        let drawn = |count, width, height| {
            let drawn = several(&all(count), now, width, height);
            let text = plain(&drawn.join("\n"));
            assert!(drawn.len() < height, "{text}");
            for line in text.lines() {
                assert!(text::columns(line) <= width, "{line:?}");
            }
            text
        };
        insta::assert_snapshot!("live_several", drawn(2, 80, 24));
        insta::assert_snapshot!("live_several_low", drawn(9, 60, 8));
        drawn(9, 20, 30);
    }

    #[test]
    fn a_low_terminal_shows_what_is_under_way() {
        let text = drawn(80, 3);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("more job"), "{text}");
        assert!(text.starts_with("money"), "{text}");
    }
}
