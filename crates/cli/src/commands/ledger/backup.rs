//! `skep ledger backup`.

use super::{Line, lost};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{format, text},
};
use ledger::Backup;
use std::path::{Path, PathBuf};

/// Copy everything into a directory, while work goes on
///
/// The directory is there only when the backup is whole. It holds the ledger and every blob that
/// it names: requests, events, recordings and outputs. Repositories are not in it. Directories above
/// it that are not there are made.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep ledger backup /mnt/backups/skep-2026-01-31\n  skep ledger backup ../skep-backup --json"
)]
pub(super) struct Args {
    /// Where it goes: a directory that is empty or does not exist
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    backup: &'a Path,
    bytes: u64,
    blobs: u64,
    blob_bytes: u64,
    missing: &'a [domain::BlobId],
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let to = context.directory.join(args.to);
    let ledger = context.ledger().await?;
    let line = Line::new(context.output);
    let made = ledger
        .backup(&to, move |progress| line.copying(progress))
        .await;
    line.clear();
    ledger.close().await;
    let made = made?;
    if context.output.is_json() {
        context.output.object(&Object {
            backup: &to,
            bytes: made.bytes,
            blobs: made.blobs,
            blob_bytes: made.blob_bytes,
            missing: &made.missing,
        })?;
    } else {
        context.output.say(&render(&to, &made))?;
    }
    Ok(Exit::Done)
}

fn render(to: &Path, made: &Backup) -> String {
    format!(
        "The backup is in {}: {} of rows and {} of {}.\n{}",
        text::line(&to.display().to_string()),
        format::bytes(made.bytes),
        format::count(usize::try_from(made.blobs).unwrap_or(usize::MAX), "blob"),
        format::bytes(made.blob_bytes),
        lost(&made.missing),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_says_where_it_is_and_what_had_been_lost() {
        let made = Backup {
            bytes: 5 << 20,
            blobs: 12,
            blob_bytes: 70_000,
            missing: vec![domain::BlobId::from_sha256([0xa5; 32])],
        };
        insta::assert_snapshot!(render(Path::new("/b/one"), &made), @"
        The backup is in /b/one: 5 MB of rows and 12 blobs of 68 KB.
        1 blob had been lost before, such as a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5. What they held is not in the backup.
        ");
    }
}
