//! `skep shell`.

use super::run::stat;
use crate::{
    context::Context,
    exit::Exit,
    more::{self, Secrets, Wishes},
    relay,
    report::{Error, Report},
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
    Node,
    standing::{Alongside, Changed, Given, Place, Run, Wish, fresh_id, keep_patch},
};
use std::{
    ffi::OsString,
    fs::{self, File},
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
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Report>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Report>,
}

/// What was changed in one repository.
#[derive(Default)]
struct Kept {
    /// Its name; none for the one that it is a shell of.
    name: Option<String>,
    files: Vec<FileStat>,
    patch: Option<PathBuf>,
    /// Why it could not be read, or not be kept as it was wanted.
    lost: Option<Report>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let named = args.others.read(context)?;
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
    let names = also.iter().map(|one| Some(one.name.as_str()));
    let (mut kept, mut not_taken) = (Vec::new(), Vec::new());
    for (name, changed) in [None].into_iter().chain(names).zip(changed?) {
        if let Ok(changed) = &changed {
            not_taken.extend(changed.not_taken.iter().map(|line| match name {
                Some(name) => format!("in {name}: {line}"),
                None => line.clone(),
            }));
        }
        let file = args.patch.as_deref();
        let file = file.map(|file| beside(&context.directory.join(file), name));
        // Of whichever is lost, the others are kept.
        kept.push(keep(changed, name, file.as_deref(), &data, id).await);
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
            not_taken: &not_taken,
            patch: own.and_then(|own| own.patch.as_deref()),
            error: own.and_then(|own| own.lost.as_ref()),
            also: also
                .into_iter()
                .zip(of)
                .map(|(of, kept)| Further {
                    of,
                    files: &kept.files,
                    patch: kept.patch.as_deref(),
                    error: kept.lost.as_ref(),
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
        for line in &not_taken {
            let note = format!(
                "{} not in the patch: {}\n",
                paint(LOOK, "note:"),
                text::line(line)
            );
            context.output.aside(&note);
        }
    }
    let code = worked.code()?;
    // Whatever the command says, what it has made is not there.
    match kept.iter().find_map(|one| one.lost.as_ref()) {
        Some(lost) => Ok(lost.exit),
        None => Ok(code),
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
async fn keep(
    changed: Result<Changed, server::Error>,
    name: Option<&str>,
    file: Option<&Path>,
    data: &Path,
    id: SandboxId,
) -> Kept {
    let mut kept = Kept {
        name: name.map(str::to_owned),
        ..Kept::default()
    };
    let changed = match changed {
        Ok(changed) => changed,
        Err(error) => {
            kept.lost = Some(Report::of(&error.into()));
            return kept;
        }
    };
    if changed.files.is_empty() {
        return kept;
    }
    kept.files = changed.files.iter().map(stat).collect();
    let written = match file {
        Some(file) => write(file, &changed, name, data, id).await,
        None => {
            let kept = keep_patch(data, id, name, &changed).await;
            kept.map_err(Error::from)
        }
    };
    match written {
        Ok(patch) => kept.patch = Some(patch),
        Err(error) => kept.lost = Some(Report::of(&error)),
    }
    kept
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
async fn write(
    path: &Path,
    changed: &Changed,
    name: Option<&str>,
    data: &Path,
    id: SandboxId,
) -> Result<PathBuf, Error> {
    let why = match File::create(path) {
        Ok(file) => match changed.write_patch(file).await {
            Ok(()) => return Ok(path.to_owned()),
            Err(error) => {
                forget(path);
                error.to_string()
            }
        },
        Err(error) => error.to_string(),
    };
    Err(Error::Kept {
        path: path.to_owned(),
        kept: keep_patch(data, id, name, changed).await?,
        source: std::io::Error::other(why),
    })
}

/// Removes a part of a patch: whoever applied it would not know. What is no file stays.
fn forget(path: &Path) {
    let is_file = fs::symlink_metadata(path).is_ok_and(|it| it.is_file());
    if is_file && let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a part of a patch stays");
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
    let why = worked.exit.and_then(|exit| exit.why());
    let mut out = why.map_or_else(String::new, |why| {
        format!("{} {why}\n", paint(LOOK, "note:"))
    });
    if kept
        .iter()
        .all(|one| one.files.is_empty() && one.lost.is_none())
    {
        out.push_str("The copy is gone; nothing was changed in it.\n");
        return out;
    }
    for Kept {
        name,
        files,
        patch,
        lost,
    } in kept
    {
        if !files.is_empty() {
            out.push_str(&match name {
                None => result::stat(files, width),
                Some(name) => result::stat_of(name, files, width),
            });
        }
        if let Some(path) = patch {
            let path = text::line(&path.to_string_lossy());
            out.push_str(&format!(
                "The copy is gone; what was changed is in {path}: `git apply {path}` takes it.\n"
            ));
        }
        if let Some(report) = lost {
            let mut report = report.clone();
            if let Some(name) = name {
                report.message = format!("in {name}: {}", report.message);
            }
            out.push_str(&report.render());
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
                refused: None,
            }),
            told: None,
            lost: None,
            said: server::standing::Said::default(),
        }
    }

    #[test]
    fn what_became_of_the_copy_is_said() {
        let of = |files: &[FileStat], patch: Option<&str>| Kept {
            files: files.to_vec(),
            patch: patch.map(Into::into),
            ..Kept::default()
        };
        let nothing = after(&relayed(None), &[of(&[], None)], 80);
        assert_eq!(nothing, "The copy is gone; nothing was changed in it.\n");
        let files = [FileStat {
            path: "src/a.rs".into(),
            added: Some(3),
            removed: Some(1),
        }];
        let full = relayed(Some(sandbox::Limit::Disk));
        let kept = [of(&files, Some("/d/x.patch"))];
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
        let further = Kept {
            name: Some("lib".into()),
            ..of(&files, Some("/d/x.lib.patch"))
        };
        let two = plain(&after(&relayed(None), &[of(&[], None), further], 80));
        assert!(two.starts_with("in lib:\n"), "{two}");
        assert!(two.contains("`git apply /d/x.lib.patch`"), "{two}");
        let lost = Kept {
            name: Some("lib".into()),
            lost: Some(Report::of(&Error::Usage("it is too large".into()))),
            ..Kept::default()
        };
        let lost = [of(&files, Some("/d/x.patch")), lost];
        let lost = plain(&after(&relayed(None), &lost, 80));
        assert!(lost.contains("`git apply /d/x.patch`"), "{lost}");
        let says = "error: in lib: it is too large\n";
        assert!(lost.contains(says), "{lost}");
    }

    #[test]
    fn the_patch_of_a_further_repository_lies_beside_the_first() {
        let name = |file| beside(Path::new(file), Some("lib")).display().to_string();
        assert_eq!(name("/d/mine.patch"), "/d/mine.lib.patch");
        assert_eq!(name("mine"), "mine.lib");
    }
}
