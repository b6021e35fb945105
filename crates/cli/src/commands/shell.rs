//! `skep shell`.

use super::{diff, run::stat};
use crate::{
    context::Context,
    exit::Exit,
    more::{self, Secrets, Wishes},
    relay,
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
    sources::{Named, Others},
    view::{
        format,
        paint::{LOOK, STRONG, paint},
        result::{self, FileStat},
        text,
    },
};
use domain::SandboxId;
use server::{
    Diff, Node,
    standing::{Alongside, Given, Place, Run, Wish, fresh_id, keep_patch},
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
    after_help = "Examples:\n  skep shell\n  skep shell --ref main~3 -- cargo test\n  skep shell --patch mine.patch\n  skep shell --also ../lib -- make -C ../lib\n  skep shell --secret token=env:TOKEN --device /dev/kvm --dotfiles ~/dotfiles\n  skep shell -- sh -c 'make && ls' | wc -l"
)]
pub(crate) struct Args {
    /// The commit to work on: a branch, a tag, a commit [default: HEAD]
    #[arg(long = "ref", value_name = "REV")]
    revision: Option<String>,
    #[command(flatten)]
    others: Others,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    wishes: Wishes,
    /// Without the setup of `skep.toml`
    #[arg(long)]
    no_setup: bool,
    /// Write what changed to this file, for `git apply`; what changed in a further repository to one
    /// beside it, with its name [default: files in the data directory, which keeps the newest 20]
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
    files: &'a [FileStat],
    not_taken: &'a [String],
    patch: Option<&'a Path>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Further<'a>>,
    #[serde(flatten)]
    given: &'a Given,
}

/// A further repository, and what became of it.
#[derive(serde::Serialize)]
struct Further<'a> {
    #[serde(flatten)]
    of: Alongside,
    files: &'a [FileStat],
    patch: Option<&'a Path>,
}

/// What was changed in one repository.
struct Kept {
    /// Its name; none for the one that it is a shell of.
    name: Option<String>,
    files: Vec<FileStat>,
    /// Whether the patch is all of it.
    is_whole: bool,
    patch: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let named = args.others.read()?;
    args.wishes.check(context)?;
    let secrets = args.secrets.read(context, false)?;
    let settings = Settings::read(context, Flags::default())?;
    let data = settings.options.data.clone();
    let mut signals = Signals::listen()?;
    let node = Node::open(settings.options).await?;
    let place = match place(&node, &args, (named, secrets), context, &mut signals).await {
        Ok(place) => place,
        Err(error) => {
            node.close().await;
            return Err(error);
        }
    };
    let worked = work(&args, &place, context, &mut signals).await;
    // Whatever came of it, what was changed is not lost.
    let changed = place.changed().await;
    let (id, commit, given) = (place.id, place.commit.clone(), place.given.clone());
    let also: Vec<Alongside> = place.also.iter().map(Into::into).collect();
    let closed = place.close().await;
    node.close().await;
    let changed = changed?;
    let names = also.iter().map(|one| Some(one.name.as_str()));
    let diffs = [&changed.diff].into_iter().chain(&changed.also);
    let (mut kept, mut lost) = (Vec::new(), None);
    for (name, diff) in [None].into_iter().chain(names).zip(diffs) {
        let file = args.patch.as_deref();
        let file = file.map(|file| beside(&context.directory.join(file), name));
        // Those after it are kept all the same.
        match keep(diff, name, file.as_deref(), &data, id) {
            Ok(one) => kept.push(one),
            Err(error) => lost = lost.or(Some(error)),
        }
    }
    if let Some(error) = lost {
        return Err(error);
    }
    let worked = worked?;
    closed?;
    if context.output.is_json() {
        let mut of = kept.iter();
        let own = of.next();
        let object = Object {
            exit: worked.exit,
            commit: &commit,
            files: own.map_or(&[][..], |own| own.files.as_slice()),
            not_taken: &changed.not_taken,
            patch: own.and_then(|own| own.patch.as_deref()),
            also: also
                .into_iter()
                .zip(of)
                .map(|(of, kept)| Further {
                    of,
                    files: &kept.files,
                    patch: kept.patch.as_deref(),
                })
                .collect(),
            given: &given,
        };
        let line = serde_json::to_string(&object);
        let line = line.map_err(|error| Error::Internal(error.to_string()))?;
        context.output.aside(&format!("{line}\n"));
    } else {
        let width = context.output.width();
        context.output.aside(&after(&worked, &kept, width));
        for line in &changed.not_taken {
            let note = format!(
                "{} not in the patch: {}\n",
                paint(LOOK, "note:"),
                text::line(line)
            );
            context.output.aside(&note);
        }
    }
    match worked.code()? {
        Exit::Of(0) if kept.iter().any(|one| !one.is_whole) => Ok(Exit::Failed),
        code => Ok(code),
    }
}

async fn place(
    node: &Node,
    args: &Args,
    (named, secrets): (Named, Vec<sandbox::Secret>),
    context: &Context,
    signals: &mut Signals,
) -> Result<Place, Error> {
    let (also, beside) = named.fetch(node, context, signals).await?;
    let more = args.wishes.fetch(secrets, node, context, signals).await?;
    let wish = Wish {
        path: context.directory.clone(),
        revision: args.revision.clone(),
        setup: !args.no_setup,
        also,
        beside,
        more,
    };
    Ok(signals.or(node.place(fresh_id(), &wish)).await??)
}

/// Keeps what was changed in one repository: in the file that the person named, or in one of ours.
fn keep(
    diff: &Diff,
    name: Option<&str>,
    file: Option<&Path>,
    data: &Path,
    id: SandboxId,
) -> Result<Kept, Error> {
    let is_whole = !diff.truncated;
    let patch = match file {
        _ if diff.files.is_empty() || !is_whole => None,
        Some(file) => Some(write(file, diff, name, data, id)?),
        None => Some(keep_patch(data, id, name, &diff.patch).map_err(server::Error::from)?),
    };
    Ok(Kept {
        name: name.map(str::to_owned),
        files: diff.files.iter().map(stat).collect(),
        is_whole,
        patch,
    })
}

/// The file for the patch of a further repository: `mine.lib.patch` beside `mine.patch`.
fn beside(file: &Path, name: Option<&str>) -> PathBuf {
    let Some(name) = name else {
        return file.to_owned();
    };
    let mut named = file.file_stem().unwrap_or_default().to_owned();
    named.push(".");
    named.push(name);
    if let Some(extension) = file.extension() {
        named.push(".");
        named.push(extension);
    }
    file.with_file_name(named)
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
        keep_background: false,
    };
    let mut running = place.exec(run).await?;
    relay::relay(&mut running, signals).await
}

/// Writes the patch where the person wants it; where that fails, it is not lost.
fn write(
    path: &Path,
    diff: &Diff,
    name: Option<&str>,
    data: &Path,
    id: SandboxId,
) -> Result<PathBuf, Error> {
    match std::fs::write(path, &diff.patch) {
        Ok(()) => Ok(path.to_owned()),
        Err(source) => {
            let kept = keep_patch(data, id, name, &diff.patch).map_err(server::Error::from)?;
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
    let mut out = format!(
        "{} of {} at {}, sealed, without a network, at {}.{leave}\n",
        paint(STRONG, "A copy"),
        text::line(&name.to_string_lossy()),
        format::short(&place.commit),
        text::line(&place.inside().to_string_lossy()),
    );
    let also = place.also.iter().map(|one| ("and of", one, ""));
    let beside = place.beside.iter();
    let beside = beside.map(|one| ("beside it", one, ", read-only"));
    for (word, one, how) in also.chain(beside) {
        out.push_str(&format!(
            "  {word} {} at {}{how}, at {}/{}\n",
            text::line(&one.origin),
            format::short(&one.commit),
            sandbox::WORKSPACE_PARENT,
            text::line(&one.name),
        ));
    }
    out.push_str(&more::told(&place.given));
    out
}

fn after(worked: &relay::Relayed, kept: &[Kept], width: usize) -> String {
    let limit = worked.exit.and_then(|exit| exit.limit);
    let mut out = limit.map_or_else(String::new, |limit| {
        format!("{} the {limit} was reached\n", paint(LOOK, "note:"))
    });
    if kept.iter().all(|one| one.files.is_empty()) {
        out.push_str("The copy is gone; nothing was changed in it.\n");
        return out;
    }
    for Kept {
        name,
        files,
        is_whole,
        patch,
    } in kept
    {
        if files.is_empty() {
            continue;
        }
        out.push_str(&match name {
            None => result::stat(files, width),
            Some(name) => result::stat_of(name, files, width),
        });
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
            lost: None,
        }
    }

    #[test]
    fn what_became_of_the_copy_is_said() {
        let of = |files: &[FileStat], patch: Option<&str>, is_whole| Kept {
            name: None,
            files: files.to_vec(),
            is_whole,
            patch: patch.map(Into::into),
        };
        let nothing = after(&relayed(None), &[of(&[], None, true)], 80);
        assert_eq!(nothing, "The copy is gone; nothing was changed in it.\n");
        let files = [FileStat {
            path: "src/a.rs".into(),
            added: Some(3),
            removed: Some(1),
        }];
        let full = relayed(Some(sandbox::Limit::Disk));
        let kept = [of(&files, Some("/d/x.patch"), true)];
        let kept = plain(&after(&full, &kept, 80));
        assert!(
            kept.starts_with("note: the limit of the disk was reached\n"),
            "{kept}"
        );
        assert!(kept.contains("src/a.rs"), "{kept}");
        assert!(
            kept.ends_with("is in /d/x.patch: `git apply /d/x.patch` takes it.\n"),
            "{kept}"
        );
        let lost = plain(&after(&relayed(None), &[of(&files, None, false)], 80));
        assert!(lost.contains("longer than 64 MB"), "{lost}");
        let further = Kept {
            name: Some("lib".into()),
            ..of(&files, Some("/d/x.lib.patch"), true)
        };
        let two = plain(&after(&relayed(None), &[of(&[], None, true), further], 80));
        assert!(two.starts_with("in lib:\n"), "{two}");
        assert!(two.contains("`git apply /d/x.lib.patch`"), "{two}");
    }

    #[test]
    fn the_patch_of_a_further_repository_lies_beside_the_first() {
        let name = |file| beside(Path::new(file), Some("lib")).display().to_string();
        assert_eq!(name("/d/mine.patch"), "/d/mine.lib.patch");
        assert_eq!(name("mine"), "mine.lib");
    }
}
