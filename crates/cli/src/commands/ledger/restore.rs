//! `skep ledger restore`.

use super::{Line, lost};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{format, result, text},
};
use domain::{BlobId, Timestamp};
use ledger::{Ledger, Restored};
use std::path::{Path, PathBuf};

/// Make the data directory of a backup
///
/// The data directory must be empty or not there: use `--data` for another one. All of the backup
/// is read first; one that is damaged, or of a newer Skep, is refused.
///
/// Requests that had not ended when the backup was made wait: the ledger that was backed up may
/// still work on them, and both would land the same work. `skep ledger take-over` lets them go on
/// here, and so does `--take-over`. Until then you can look, and nothing is done.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep ledger restore /mnt/backups/skep-2026-01-31\n  skep ledger restore --take-over /mnt/backups/skep-2026-01-31\n  skep --data /tmp/look ledger restore ../skep-backup"
)]
pub(super) struct Args {
    /// The directory that `skep ledger backup` made
    #[arg(value_name = "DIR")]
    backup: PathBuf,
    /// The ledger that was backed up is gone: go on here with what had not ended
    #[arg(long)]
    take_over: bool,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    data: &'a Path,
    taken: Timestamp,
    open: u64,
    waits: bool,
    blobs: u64,
    missing: &'a [BlobId],
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let backup = context.named_directory(&args.backup)?;
    let (config, _) = context.config()?;
    let data = context.data(&config)?;
    if let Some(above) = data.parent() {
        std::fs::create_dir_all(above).map_err(|source| Error::File {
            doing: "making the directory",
            path: above.into(),
            source,
        })?;
    }
    let line = Line::new(context.output);
    let restored = Ledger::restore(&backup, &data, move |progress| line.copying(progress)).await;
    line.clear();
    let restored = restored?;
    if args.take_over {
        let ledger = context.ledger().await?;
        ledger.take_over().await?;
        ledger.close().await;
    }
    if context.output.is_json() {
        context.output.object(&Object {
            data: &data,
            taken: restored.taken,
            open: restored.open,
            waits: restored.open > 0 && !args.take_over,
            blobs: restored.blobs,
            missing: &restored.missing,
        })?;
    } else {
        let zone = jiff::tz::TimeZone::system();
        context
            .output
            .say(&render(&data, &restored, args.take_over, &zone))?;
    }
    Ok(Exit::Done)
}

fn render(data: &Path, restored: &Restored, taken_over: bool, zone: &jiff::tz::TimeZone) -> String {
    format!(
        "{} holds what was known on {}.\n{}{}",
        text::line(&data.display().to_string()),
        format::moment(restored.taken, zone),
        lost(&restored.missing),
        open(restored.open, taken_over),
    )
}

/// What becomes of requests that had not ended.
fn open(open: u64, taken_over: bool) -> String {
    let (requests, them) = match open {
        0 => return String::new(),
        1 => ("1 request has".to_owned(), "it"),
        many => (format!("{many} requests have"), "them"),
    };
    if taken_over {
        return format!("{requests} not ended: `skep resume` goes on with {them}.\n");
    }
    format!(
        "{requests} not ended. Nothing is done about {them} here, because the ledger that was \
         backed up may still work on {them}.\n\n{}",
        result::commands(&[
            (
                "skep ledger take-over".into(),
                "go on here, when the other one does not work any more"
            ),
            ("skep list".into(), "look at what there is")
        ])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn a_restoration_says_of_when_it_is() {
        let restored = Restored {
            taken: Timestamp(1_767_225_600_000_000),
            open: 0,
            blobs: 3,
            missing: Vec::new(),
        };
        let text = render(Path::new("/d"), &restored, false, &jiff::tz::TimeZone::UTC);
        insta::assert_snapshot!(text, @"/d holds what was known on 2026-01-01 00:00:00.");
    }

    #[test]
    fn what_had_not_ended_waits_and_what_lets_it_go_on_is_said() {
        assert_eq!(
            open(1, true),
            "1 request has not ended: `skep resume` goes on with it.\n"
        );
        insta::assert_snapshot!(plain(&open(3, false)), @"
        3 requests have not ended. Nothing is done about them here, because the ledger that was backed up may still work on them.

          skep ledger take-over  go on here, when the other one does not work any more
          skep list              look at what there is
        ");
    }
}
