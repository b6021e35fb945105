//! `skep sessions`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{FAINT, STRONG},
        result,
        table::{self, Cell},
        text,
    },
};
use domain::{SessionId, Timestamp};
use ledger::{Found, Ledger, Session};

/// List sessions, the newest first, search them, or give one another name
///
/// A session is the log of what happens in a repository. It begins with the first request there,
/// and goes on whatever it is called.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sessions\n  skep sessions parser\n  skep sessions --rename s-3fd \"the parser\"\n  skep log s-3fd"
)]
pub(crate) struct Args {
    /// Only those with this text in their names
    #[arg(conflicts_with = "rename")]
    text: Option<String>,
    /// Give this session, by its id or the beginning of it, another name
    #[arg(long, num_args = 2, value_names = ["ID", "NAME"])]
    rename: Option<Vec<String>>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = super::at_most)]
    limit: usize,
}

#[derive(serde::Serialize)]
struct Row {
    id: SessionId,
    name: String,
    created: Timestamp,
    sequence: u64,
}

#[derive(serde::Serialize)]
struct Listed {
    sessions: Vec<Row>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    if let Some([id, name]) = args.rename.as_deref() {
        rename(&ledger, id, name).await?;
    }
    let text = args.text.as_deref();
    let sessions = ledger.sessions(text, args.limit).await?;
    ledger.close().await;
    if context.output.is_json() {
        let sessions = sessions.into_iter().map(|session| Row {
            id: session.id,
            name: session.name,
            created: session.created,
            sequence: session.sequence,
        });
        context.output.object(&Listed {
            sessions: sessions.collect(),
        })?;
    } else {
        let text = render(&sessions, text, format::now(), context.output.width());
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

async fn rename(ledger: &Ledger, id: &str, name: &str) -> Result<(), Error> {
    match ledger.find(id).await? {
        Found::Session(session) => Ok(ledger.rename_session(session, name).await?),
        other => Err(super::wrong_kind(other, "sessions --rename", "a session")),
    }
}

fn render(sessions: &[Session], searched: Option<&str>, now: Timestamp, width: usize) -> String {
    if sessions.is_empty() {
        return match searched {
            Some(searched) => format!(
                "No session has `{}` in its name. `skep sessions` shows them all.\n",
                text::line(searched)
            ),
            None => format!(
                "There are no sessions yet: one begins with the first request of a repository.\n\n{}",
                result::commands(&[("skep demo".into(), "see how it works, without a model")])
            ),
        };
    }
    let rows: Vec<Vec<Cell>> = sessions
        .iter()
        .map(|session| {
            vec![
                Cell::styled(STRONG, session.id.to_string()),
                Cell::styled(FAINT, format::ago(session.created, now)),
                Cell::number(format!("{} events", session.sequence)),
                Cell::from(text::line(&session.name)),
            ]
        })
        .collect();
    table::render(&rows, 0, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn sessions_are_listed_with_their_names_and_none_says_what_to_do() {
        let session = Session {
            id: SessionId::from_bits(5),
            name: "the\u{1b}[31m parser".into(),
            created: Timestamp(0),
            sequence: 12,
            first: 1,
        };
        let now = Timestamp(3_600_000_000);
        let text = plain(&render(&[session], None, now, 80));
        assert!(
            text.starts_with("s-000000000005") && text.contains("12 events"),
            "{text}"
        );
        assert!(
            text.contains("parser") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert!(plain(&render(&[], None, now, 80)).contains("skep demo"));
        let none = plain(&render(&[], Some("x"), now, 80));
        assert_eq!(
            none,
            "No session has `x` in its name. `skep sessions` shows them all.\n"
        );
    }
}
