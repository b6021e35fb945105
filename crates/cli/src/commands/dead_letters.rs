//! `skep dead-letters`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{BAD, FAINT, TYPE, paint},
        result,
        table::{self, Cell},
        text,
    },
};
use domain::{Failure, Reason, RequestId, Timestamp, entity::Job};
use ledger::{Dead, GivenUp};

/// List what failed for good and what was given up, the newest first
///
/// Jobs that are dead, requests that failed, changes that did not land, and notifications that were
/// given up. Each begins with the command that has it done, or told, again. `skep why ID` says what
/// broke one, `skep show ID` has the evidence, `skep apply ID` takes a change as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep dead-letters\n  skep dead-letters --limit 100 --json\n  skep why j-01h\n  skep retry j-01h"
)]
pub(crate) struct Args {
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = super::at_most)]
    limit: usize,
}

#[derive(serde::Serialize)]
struct Listed {
    jobs: Vec<Job>,
    letters: Vec<Letter>,
}

/// What nothing goes on with by itself any more.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
struct Letter {
    kind: &'static str,
    id: String,
    request: RequestId,
    name: String,
    /// When it died.
    when: Timestamp,
    why: String,
    /// The command that has it done again.
    again: String,
    /// The command that takes it as it is, if that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    apply: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let dead = ledger.dead_letters(args.limit, None).await;
    ledger.close().await;
    let dead = dead?;
    let letters = letters(&dead, args.limit);
    if context.output.is_json() {
        context.output.object(&Listed {
            jobs: dead.jobs,
            letters,
        })?;
    } else {
        let text = render(&letters, format::now(), context.output.width());
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

/// What a notification has not reached, and why.
pub(super) fn unreached(unreached: &[GivenUp]) -> String {
    let said: Vec<String> = unreached
        .iter()
        .map(|GivenUp { sink, why }| match sink {
            Some(sink) => format!("{sink}: {why}"),
            None => format!("nobody is known to be told: {why}"),
        })
        .collect();
    said.join("; ")
}

/// The dead of all kinds in one list, those that died last first.
fn letters(dead: &Dead, limit: usize) -> Vec<Letter> {
    let mut letters: Vec<Letter> = Vec::new();
    letters.extend(dead.jobs.iter().map(|job| {
        let when = job.ended.unwrap_or(job.created);
        let of = (job.id.to_string(), job.request);
        letter("job", of, &job.spec.name, when, failed(&job.failure))
    }));
    letters.extend(dead.requests.iter().map(|request| {
        let when = request.ended.unwrap_or(request.created);
        let of = (request.id.to_string(), request.id);
        let name = super::list::title(request);
        letter("request", of, &name, when, failed(&request.failure))
    }));
    letters.extend(dead.changes.iter().map(|change| {
        let when = change.ended.unwrap_or(change.created);
        let of = (change.id.to_string(), change.request);
        let name = format!("of {}", change.job);
        // What is lost of a repository is in no other place: that change can only be made anew.
        let is_lost = |failure: &Failure| failure.reason == Reason::Repository;
        let is_kept = !change.failure.as_ref().is_some_and(is_lost);
        Letter {
            apply: is_kept.then(|| format!("skep apply {}", change.id)),
            ..letter("change", of, &name, when, failed(&change.failure))
        }
    }));
    letters.extend(dead.notifications.iter().map(|lost| {
        let of = (lost.event.to_string(), lost.request);
        let name = format!("{} {}", lost.request, lost.title);
        let why = unreached(&lost.unreached);
        letter("notification", of, &name, lost.time, why)
    }));
    letters.sort_by_key(|letter| std::cmp::Reverse(letter.when));
    letters.truncate(limit);
    letters
}

fn failed(failure: &Option<Failure>) -> String {
    failure
        .as_ref()
        .map_or_else(String::new, ToString::to_string)
}

fn letter(
    kind: &'static str,
    (id, request): (String, RequestId),
    name: &str,
    when: Timestamp,
    why: String,
) -> Letter {
    Letter {
        kind,
        again: format!("skep retry {id}"),
        id,
        request,
        name: name.to_owned(),
        when,
        why,
        apply: None,
    }
}

fn render(letters: &[Letter], now: Timestamp, width: usize) -> String {
    let Some(first) = letters.first() else {
        return "Nothing has failed for good, and no notification was given up.\n".into();
    };
    let rows: Vec<Vec<Cell>> = letters
        .iter()
        .map(|letter| {
            vec![
                Cell::styled(TYPE, &letter.again),
                Cell::from(letter.kind),
                Cell::styled(FAINT, format::ago(letter.when, now)),
                Cell::from(&letter.name),
            ]
        })
        .collect();
    let mut out = String::new();
    for (row, letter) in table::render(&rows, 0, width).lines().zip(letters) {
        let why = text::fit(&text::line(&letter.why), width.saturating_sub(2));
        out.push_str(&format!("{row}\n  {}\n", paint(BAD, why)));
    }
    let mut commands = vec![(format!("skep why {}", first.id), "what broke it")];
    let apply = letters.iter().find_map(|letter| letter.apply.clone());
    commands.extend(apply.map(|apply| (apply, "take the change as it is")));
    format!("{out}\n{}", result::commands(&commands))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};
    use domain::{EventId, RequestState};
    use ledger::Undelivered;

    fn dead() -> Dead {
        let mut request = sample::request(RequestState::Failed);
        request.failure = Some(Failure::new(Reason::ChecksFailed, "cargo test"));
        request.ended = Some(Timestamp(request.created.0 + 60_000_000));
        let lost = Undelivered {
            event: EventId::from_bits(9),
            request: request.id,
            title: "Mend the parser".into(),
            time: Timestamp(request.created.0 + 120_000_000),
            unreached: vec![GivenUp {
                sink: Some("webhook of TEAM_HOOK".into()),
                why: "it answered 404".into(),
            }],
        };
        Dead {
            requests: vec![request],
            notifications: vec![lost],
            ..Dead::default()
        }
    }

    #[test]
    fn every_dead_letter_says_how_to_have_it_done_again_and_why_it_died() {
        let letters = letters(&dead(), 20);
        let now = Timestamp(letters[0].when.0 + 3_600_000_000);
        insta::assert_snapshot!("dead_letters", plain(&render(&letters, now, 80)));
    }

    #[test]
    fn the_newest_dead_letters_are_kept_where_there_are_more_than_asked_for() {
        let kept = letters(&dead(), 1);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].kind, "notification");
    }

    #[test]
    fn no_dead_letters_are_said_to_be_none() {
        assert_eq!(
            plain(&render(&[], Timestamp(0), 80)),
            "Nothing has failed for good, and no notification was given up.\n"
        );
    }
}
