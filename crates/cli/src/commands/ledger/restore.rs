//! `skep ledger restore`.

use super::{Line, lost};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{format, text},
};
use domain::{BlobId, Timestamp};
use ledger::{Ledger, Restored};
use std::path::{Path, PathBuf};

/// Make the data directory of a backup
///
/// The data directory must be empty or not there: use `--data` for another one. All of the backup
/// is read first; one that is damaged, or of a newer Skep, is refused. What was under way when
/// the backup was made goes on with the next `skep` that works.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep ledger restore /mnt/backups/skep-2026-01-31\n  skep --data /srv/skep ledger restore ../skep-backup"
)]
pub(super) struct Args {
    /// The directory that `skep ledger backup` made
    #[arg(value_name = "DIR")]
    backup: PathBuf,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    data: &'a Path,
    taken: Timestamp,
    blobs: u64,
    missing: &'a [BlobId],
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let backup = context.directory.join(args.backup);
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
    if context.output.is_json() {
        context.output.object(&Object {
            data: &data,
            taken: restored.taken,
            blobs: restored.blobs,
            missing: &restored.missing,
        })?;
    } else {
        let zone = jiff::tz::TimeZone::system();
        context.output.say(&render(&data, &restored, &zone))?;
    }
    Ok(Exit::Done)
}

fn render(data: &Path, restored: &Restored, zone: &jiff::tz::TimeZone) -> String {
    format!(
        "{} holds what was known on {}.\n{}",
        text::line(&data.display().to_string()),
        format::moment(restored.taken, zone),
        lost(&restored.missing),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restoration_says_of_when_it_is() {
        let restored = Restored {
            taken: Timestamp(1_767_225_600_000_000),
            blobs: 3,
            missing: Vec::new(),
        };
        let text = render(Path::new("/d"), &restored, &jiff::tz::TimeZone::UTC);
        insta::assert_snapshot!(text, @"/d holds what was known on 2026-01-01 00:00:00.");
    }
}
