//! `skep sandbox list`.

use super::data;
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{BAD, FAINT, LOOK, STRONG, paint},
        result,
        table::{self, Cell},
        text,
    },
};
use domain::Timestamp;
use server::standing::{Held, State, Status, list_all};
use tokio::task::JoinSet;

/// List the sandboxes, those that are stopped too
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox list\n  skep sandbox list --json")]
pub(super) struct Args {}

#[derive(serde::Serialize)]
struct Object {
    sandboxes: Vec<State>,
    /// Those of which something cannot be read.
    damaged: Vec<Damage>,
}

#[derive(serde::Serialize)]
struct Damage {
    id: String,
    message: String,
}

pub(super) async fn run(_: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let (held, damaged) = list_all(&data).map_err(server::Error::from)?;
    let damaged: Vec<Damage> = damaged
        .iter()
        .map(|it| Damage {
            id: it.id.to_string(),
            message: it.why.to_string(),
        })
        .collect();
    let sandboxes = asked(held).await;
    if context.output.is_json() {
        context.output.object(&Object { sandboxes, damaged })?;
    } else {
        for Damage { id, message } in &damaged {
            context.output.aside(&format!(
                "{} {}; its files stay until `skep sandbox destroy {id}`\n",
                paint(LOOK, "note:"),
                text::line(message)
            ));
        }
        let text = render(&sandboxes, format::now(), context.output.width());
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

/// How each is; all are asked at the same time.
async fn asked(held: Vec<Held>) -> Vec<State> {
    let mut asking = JoinSet::new();
    for one in held {
        asking.spawn(one.state(false));
    }
    let mut all = asking.join_all().await;
    all.sort_by_key(|it| (it.record.created, it.record.id));
    all
}

/// One word for how it is.
pub(super) fn word(state: &State) -> &'static str {
    match (state.standing.status, &state.state) {
        (Status::Stopped, _) => "stopped",
        (Status::Starting, _) => "starting",
        (Status::Running, None) => "silent",
        // It lives, and nothing can be started in it.
        (Status::Running, Some(state)) if state.get("full").is_some() => "full",
        (Status::Running, Some(state))
            if state.get("alive").and_then(serde_json::Value::as_bool) == Some(true) =>
        {
            "running"
        }
        (Status::Running, Some(_)) => "dead",
    }
}

/// What it uses, as its holder says.
pub(super) fn used(state: &State, name: &str) -> Option<u64> {
    state.state.as_ref()?.get("stats")?.get(name)?.as_u64()
}

fn render(all: &[State], now: Timestamp, width: usize) -> String {
    if all.is_empty() {
        return format!(
            "There are no sandboxes.\n\n{}",
            result::commands(&[
                ("skep sandbox create".into(), "make one of this repository"),
                (
                    "skep shell".into(),
                    "work in one that is gone when you leave"
                ),
            ])
        );
    }
    let rows: Vec<Vec<Cell>> = all
        .iter()
        .map(|state| {
            let record = &state.record;
            let place = record.repository.file_name().unwrap_or_default();
            let word = word(state);
            let style = match word {
                "running" | "starting" | "stopped" => FAINT,
                _ => BAD,
            };
            vec![
                Cell::styled(STRONG, record.id.to_string()),
                Cell::from(record.name.as_deref().unwrap_or("-")),
                Cell::styled(style, word),
                Cell::styled(FAINT, format::ago(state.standing.since, now)),
                Cell::from(format!("ends in {}", format::span(record.ends.since(now)))),
                Cell::number(used(state, "memory_bytes").map_or_else(|| "-".into(), format::bytes)),
                Cell::from(place.to_string_lossy()),
                Cell::from(format::short(&record.commit)),
            ]
        })
        .collect();
    table::render(&rows, 0, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;
    use domain::SandboxId;
    use server::standing::{Record, Standing, Why};

    #[test]
    fn sandboxes_are_listed_with_age_state_and_memory() {
        let record = Record {
            id: SandboxId::from_bits(7),
            name: Some("try".into()),
            repository: "/home/ann/worklog".into(),
            commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".into(),
            kind: sandbox::Kind::Namespace,
            image: None,
            fork_of: None,
            also: Vec::new(),
            beside: Vec::new(),
            given: server::standing::Given::default(),
            created: Timestamp(0),
            ends: Timestamp(7_200_000_000),
            pid: 1,
        };
        let state = serde_json::json!({"alive": true, "stats": {"memory_bytes": 5_000_000}});
        let standing = Standing {
            status: Status::Running,
            since: Timestamp(0),
            why: None,
        };
        let stopped = Standing {
            status: Status::Stopped,
            since: Timestamp(0),
            why: Some(Why::Killed),
        };
        let all = [
            State {
                record: record.clone(),
                standing,
                state: Some(state),
            },
            State {
                record: record.clone(),
                standing: stopped,
                state: None,
            },
        ];
        let text = plain(&render(&all, Timestamp(3_600_000_000), 120));
        assert_eq!(
            text,
            "x-000000000007  try  running  1h ago  ends in 1h00m  4 MB  worklog  1a2b3c4d5e\n\
             x-000000000007  try  stopped  1h ago  ends in 1h00m     -  worklog  1a2b3c4d5e\n"
        );
        let of = |state| State {
            record: record.clone(),
            standing: Standing {
                status: Status::Running,
                since: Timestamp(0),
                why: None,
            },
            state,
        };
        let full = serde_json::json!({"alive": true, "full": "less than 1 GiB is free"});
        assert_eq!(word(&of(Some(full))), "full");
        assert_eq!(word(&of(Some(serde_json::json!({"alive": false})))), "dead");
        assert_eq!(word(&of(None)), "silent");
        let none = plain(&render(&[], Timestamp(0), 80));
        assert!(none.contains("skep sandbox create"), "{none}");
    }
}
