//! `skep list`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{FAINT, LOOK, STRONG, paint},
        result,
        table::{self, Cell},
        text,
    },
};
use domain::{Amount, RequestState, Timestamp, entity::Request};
use ledger::Restoration;
use std::path::Path;

/// List requests, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep list\n  skep list --limit 100\n  skep list --json")]
pub(crate) struct Args {
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = super::at_most)]
    limit: usize,
}

/// One request, as `--json` shows it.
#[derive(serde::Serialize)]
struct Row {
    #[serde(flatten)]
    request: Request,
    spent: Amount,
    /// Whether all of it was made in sandboxes.
    sealed: bool,
}

#[derive(serde::Serialize)]
struct Listed {
    requests: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<Restoration>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let mut rows = Vec::new();
    for request in ledger.requests(args.limit, None).await? {
        let spent = ledger.spent(request.id).await?;
        let sealed = ledger.is_sealed(request.id, None).await?;
        rows.push(Row {
            request,
            spent,
            sealed,
        });
    }
    let restored = ledger.restoration().await?;
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Listed {
            requests: rows,
            restored,
        })?;
    } else {
        if let Some(restored) = restored {
            context.output.aside(&waits(restored));
        }
        let text = render(&rows, format::now(), context.output.width());
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

/// That nothing of all this goes on, and what lets it.
fn waits(restored: Restoration) -> String {
    format!(
        "{} {restored}. `skep ledger take-over` lets it go on.\n",
        paint(LOOK, "note:")
    )
}

fn render(rows: &[Row], now: Timestamp, width: usize) -> String {
    if rows.is_empty() {
        return format!(
            "There are no requests yet.\n\n{}",
            result::commands(&[
                ("skep demo".into(), "see how it works, without a model"),
                (
                    "skep run \"make the parser accept trailing commas\"".into(),
                    "start one"
                ),
            ])
        );
    }
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            let request = &row.request;
            let ask = &request.ask;
            let place = Path::new(ask.sources.url.as_ref().unwrap_or(&ask.repository_path))
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            vec![
                Cell::styled(STRONG, request.id.to_string()),
                Cell::styled(style(request.state), request.state.as_str()),
                Cell::styled(FAINT, format::ago(request.created, now)),
                Cell::number(format::tokens(row.spent.tokens)),
                Cell::from(place),
                Cell::from(match row.sealed {
                    true => title(request),
                    false => format!("unsealed: {}", title(request)),
                }),
            ]
        })
        .collect();
    table::render(&rows, 0, width)
}

/// What a request is about.
pub(super) fn title(request: &Request) -> String {
    let title = domain::plan::title(&request.ask.prompt);
    match (&request.ask.plan, title.is_empty()) {
        (Some(plan), true) => plan
            .jobs
            .iter()
            .map(|job| text::line(&job.name))
            .collect::<Vec<_>>()
            .join(", "),
        _ => title,
    }
}

/// How the word for the state of a request looks.
pub(crate) fn style(state: RequestState) -> anstyle::Style {
    use crate::view::paint::{BAD, GOOD};
    match state {
        RequestState::Done => GOOD,
        RequestState::Failed => BAD,
        RequestState::Cancelled => FAINT,
        _ => LOOK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};

    #[test]
    fn requests_are_listed_with_state_age_and_cost() {
        let rows = vec![
            Row {
                request: sample::request(RequestState::Done),
                spent: Amount {
                    tokens: 15_000,
                    ..Amount::ZERO
                },
                sealed: true,
            },
            Row {
                request: sample::request(RequestState::Failed),
                spent: Amount::ZERO,
                sealed: false,
            },
        ];
        let now = Timestamp(rows[0].request.created.0 + 3_600_000_000);
        insta::assert_snapshot!("list", plain(&render(&rows, now, 80)));
    }

    #[test]
    fn no_requests_say_how_to_start_one() {
        let text = plain(&render(&[], Timestamp(0), 80));
        assert!(
            text.contains("skep demo") && text.contains("skep run"),
            "{text}"
        );
    }
}
