//! `skep dead-letters`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{BAD, FAINT, STRONG},
        result,
        table::{self, Cell},
        text,
    },
};
use domain::{Timestamp, entity::Job};

/// List the jobs that failed for good, the newest first
///
/// `skep why ID` says what broke one, `skep show ID` has the evidence, `skep retry ID` tries it
/// again.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep dead-letters\n  skep dead-letters --limit 100 --json\n  skep retry j-01h"
)]
pub(crate) struct Args {
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = super::at_most)]
    limit: usize,
}

#[derive(serde::Serialize)]
struct Listed {
    jobs: Vec<Job>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let jobs = ledger.dead_letters(args.limit, None).await?;
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Listed { jobs })?;
    } else {
        let text = render(&jobs, format::now(), context.output.width());
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

fn render(jobs: &[Job], now: Timestamp, width: usize) -> String {
    let Some(first) = jobs.first() else {
        return "No job has failed for good.\n".into();
    };
    let rows: Vec<Vec<Cell>> = jobs
        .iter()
        .map(|job| {
            let why = job
                .failure
                .as_ref()
                .map_or_else(String::new, |failure| text::line(&failure.to_string()));
            vec![
                Cell::styled(STRONG, job.id.to_string()),
                Cell::styled(FAINT, format::ago(job.ended.unwrap_or(job.created), now)),
                Cell::from(text::line(&job.spec.name)),
                Cell::styled(BAD, why),
            ]
        })
        .collect();
    format!(
        "{}\n{}",
        table::render(&rows, 0, width),
        result::commands(&[
            (format!("skep why {}", first.id), "what broke it"),
            (format!("skep retry {}", first.id), "try it again"),
        ])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn no_dead_letters_are_said_to_be_none() {
        assert_eq!(
            plain(&render(&[], Timestamp(0), 80)),
            "No job has failed for good.\n"
        );
    }
}
