//! `skep shell`.

use super::{diff, run::stat};
use crate::{
    context::Context,
    exit::Exit,
    relay,
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
    view::{
        format,
        paint::{LOOK, STRONG, paint},
        result::{self, FileStat},
        text,
    },
};
use server::{
    Node,
    standing::{Changed, Place, Run, Wish, fresh_id, keep_patch},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Work in a sealed copy of the repository yourself
///
/// It is what an agent gets: a workspace at a commit, your toolchains, the setup of `skep.toml`, no
/// network, and nothing else of this machine. Nothing of it is kept but a patch of what changed.
/// `skep shell` ends with the exit code of the shell, or of the command.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep shell\n  skep shell --ref main~3 -- cargo test\n  skep shell --patch mine.patch\n  skep shell -- sh -c 'make && ls' | wc -l"
)]
pub(crate) struct Args {
    /// The commit to work on: a branch, a tag, a commit [default: HEAD]
    #[arg(long = "ref", value_name = "REV")]
    revision: Option<String>,
    /// Without the setup of `skep.toml`
    #[arg(long)]
    no_setup: bool,
    /// Write what changed to this file, for `git apply` [default: a file in the data directory, which
    /// keeps the newest 20]
    #[arg(long, value_name = "FILE")]
    patch: Option<PathBuf>,
    /// What to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What became of it, as `--json` shows it on standard error.
#[derive(serde::Serialize)]
struct Object<'a> {
    exit: Option<sandbox::Exit>,
    commit: &'a str,
    files: Vec<FileStat>,
    not_taken: &'a [String],
    patch: Option<&'a Path>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let data = settings.options.data.clone();
    let mut signals = Signals::listen()?;
    let node = Node::open(settings.options).await?;
    let wish = Wish {
        path: context.directory.clone(),
        revision: args.revision.clone(),
        setup: !args.no_setup,
    };
    let place = match signals.or(node.place(fresh_id(), &wish)).await {
        Ok(Ok(place)) => place,
        Ok(Err(error)) => {
            node.close().await;
            return Err(error.into());
        }
        Err(told) => {
            node.close().await;
            return Err(told);
        }
    };
    let worked = work(&args, &place, context, &mut signals).await;
    // Whatever came of it, what was changed is not lost.
    let changed = place.changed().await;
    let (id, commit) = (place.id, place.commit.clone());
    let closed = place.close().await;
    node.close().await;
    let changed = changed?;
    let is_whole = !changed.diff.truncated;
    let patch = match (&args.patch, changed.diff.files.is_empty()) {
        (_, true) => None,
        _ if !is_whole => None,
        (Some(file), _) => Some(write(&context.directory.join(file), &changed, &data, id)?),
        (None, _) => Some(keep_patch(&data, id, &changed.diff.patch).map_err(server::Error::from)?),
    };
    let worked = worked?;
    closed?;
    let files: Vec<FileStat> = changed.diff.files.iter().map(stat).collect();
    if context.output.is_json() {
        let line = serde_json::to_string(&Object {
            exit: worked.exit,
            commit: &commit,
            files,
            not_taken: &changed.not_taken,
            patch: patch.as_deref(),
        });
        let line = line.map_err(|error| Error::Internal(error.to_string()))?;
        context.output.aside(&format!("{line}\n"));
    } else {
        let width = context.output.width();
        context
            .output
            .aside(&after(&worked, &files, patch.as_deref(), is_whole, width));
        for line in &changed.not_taken {
            let note = format!(
                "{} not in the patch: {}\n",
                paint(LOOK, "note:"),
                text::line(line)
            );
            context.output.aside(&note);
        }
    }
    Ok(worked.code())
}

async fn work(
    args: &Args,
    place: &Place,
    context: &Context,
    signals: &mut Signals,
) -> Result<relay::Relayed, Error> {
    let terminal = relay::terminal();
    if !context.output.is_json() {
        context.output.aside(&before(
            place,
            args.command.is_empty() && terminal.is_some(),
        ));
    }
    let run = Run {
        argv: args.command.clone(),
        env: relay::env(context),
        terminal,
        stdin: true,
        timeout: None,
    };
    let mut running = place.exec(run).await?;
    relay::relay(&mut running, signals).await
}

/// Writes the patch where the person wants it; where that fails, it is not lost.
fn write(
    path: &Path,
    changed: &Changed,
    data: &Path,
    id: domain::SandboxId,
) -> Result<PathBuf, Error> {
    match std::fs::write(path, &changed.diff.patch) {
        Ok(()) => Ok(path.to_owned()),
        Err(source) => {
            let kept = keep_patch(data, id, &changed.diff.patch).map_err(server::Error::from)?;
            Err(Error::Kept {
                path: path.to_owned(),
                kept,
                source,
            })
        }
    }
}

fn before(place: &Place, is_shell: bool) -> String {
    let name = place.repository.file_name().unwrap_or_default();
    let leave = match is_shell {
        true => " Leave it with `exit`.",
        false => "",
    };
    format!(
        "{} of {} at {}, sealed, without a network, at {}.{leave}\n",
        paint(STRONG, "A copy"),
        text::line(&name.to_string_lossy()),
        format::short(&place.commit),
        text::line(&place.inside().to_string_lossy()),
    )
}

fn after(
    worked: &relay::Relayed,
    files: &[FileStat],
    patch: Option<&Path>,
    is_whole: bool,
    width: usize,
) -> String {
    let limit = worked.exit.and_then(|exit| exit.limit);
    let mut out = limit.map_or_else(String::new, |limit| {
        format!("{} the {limit} was reached\n", paint(LOOK, "note:"))
    });
    if files.is_empty() {
        out.push_str("The copy is gone; nothing was changed in it.\n");
        return out;
    }
    out.push_str(&result::stat(files, width));
    match patch {
        Some(path) => {
            let path = text::line(&path.to_string_lossy());
            out.push_str(&format!(
                "The copy is gone; what was changed is in {path}: `git apply {path}` takes it.\n"
            ));
        }
        None if !is_whole => out.push_str(&format!(
            "The copy is gone, and what was changed with it: the patch is longer than {}.\n",
            format::bytes(diff::MAX_KEPT)
        )),
        None => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    fn relayed(limit: Option<sandbox::Limit>) -> relay::Relayed {
        relay::Relayed {
            exit: Some(sandbox::Exit {
                code: Some(0),
                signal: None,
                timed_out: false,
                limit,
            }),
            told: None,
        }
    }

    #[test]
    fn what_became_of_the_copy_is_said() {
        let nothing = after(&relayed(None), &[], None, true, 80);
        assert_eq!(nothing, "The copy is gone; nothing was changed in it.\n");
        let files = [FileStat {
            path: "src/a.rs".into(),
            added: Some(3),
            removed: Some(1),
        }];
        let full = relayed(Some(sandbox::Limit::Disk));
        let kept = plain(&after(
            &full,
            &files,
            Some(Path::new("/d/x.patch")),
            true,
            80,
        ));
        assert!(
            kept.starts_with("note: the limit of the disk was reached\n"),
            "{kept}"
        );
        assert!(kept.contains("src/a.rs"), "{kept}");
        assert!(
            kept.ends_with("is in /d/x.patch: `git apply /d/x.patch` takes it.\n"),
            "{kept}"
        );
        let lost = plain(&after(&relayed(None), &files, None, false, 80));
        assert!(lost.contains("longer than 64 MB"), "{lost}");
    }
}
