//! `skep ledger`: looking after what Skep knows.

mod backup;
mod check;
mod prune;
mod restore;
mod take_over;

use crate::{context::Context, exit::Exit, output::Output, report::Error};

/// Check, back up, restore and shorten what Skep knows
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  skep ledger check --blobs\n  skep ledger backup /mnt/backups/skep-2026-01-31\n  skep ledger prune --older-than 30d --dry-run"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(check::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    TakeOver(take_over::Args),
    Prune(prune::Args),
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    match args.command {
        Command::Check(args) => check::run(args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Restore(args) => restore::run(args, context).await,
        Command::TakeOver(args) => take_over::run(args, context).await,
        Command::Prune(args) => prune::run(args, context).await,
    }
}

/// Says how far long work is, on one line that is written again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    output: Output,
    seen: bool,
}

impl Line {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            seen: output.progress_is_seen(),
        }
    }

    pub(super) fn say(self, what: &str, done: u64, total: u64) {
        if self.seen {
            self.output
                .aside(&format!("\r\u{1b}[K{what}: {done} of {total}"));
        }
    }

    pub(super) fn begin(self, what: &str) {
        if self.seen {
            self.output.aside(&format!("\r\u{1b}[K{what}"));
        }
    }

    pub(super) fn clear(self) {
        if self.seen {
            self.output.aside("\r\u{1b}[K");
        }
    }

    fn copying(self, progress: ledger::BackupProgress) {
        match progress {
            ledger::BackupProgress::Rows => self.begin("copying the rows"),
            ledger::BackupProgress::Blobs { done, total } => {
                self.say("copying the blobs", done, total);
            }
        }
    }
}

/// What to say of blobs that were lost; nothing where there are none.
fn lost(missing: &[domain::BlobId]) -> String {
    let Some(first) = missing.first() else {
        return String::new();
    };
    format!(
        "{} had been lost before, such as {first}. What they held is not in the backup.\n",
        crate::view::format::count(missing.len(), "blob")
    )
}
