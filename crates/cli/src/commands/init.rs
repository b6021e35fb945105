//! `skep init`.

use crate::{
    context::Context,
    exit::Exit,
    init::{Found, detect, policy_text},
    report::Error,
    view::{format, result},
};
use domain::policy::FILE;
use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// The most of a file that is looked at, in bytes.
const MAX_LOOK: u64 = 1 << 20;

/// Write a skep.toml with the checks that are found in the repository
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep init\n  skep init --print\n  skep init --force")]
pub(crate) struct Args {
    /// Write over a skep.toml that is there
    #[arg(long)]
    force: bool,
    /// Print it instead of writing it
    #[arg(long, conflicts_with = "force")]
    print: bool,
}

#[derive(serde::Serialize)]
struct Written<'a> {
    path: Option<&'a Path>,
    found: &'a Found,
    text: &'a str,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Error> {
    let top = top(&context.directory).ok_or_else(|| git::Error::NotARepository {
        path: context.directory.clone(),
    });
    let top = top.map_err(server::Error::from)?;
    let found = detect(&|path| look(&top.join(path)), &|path| {
        top.join(path).exists()
    });
    let text = policy_text(&found);
    let path = top.join(FILE);
    let written = (!args.print).then_some(path.as_path());
    if !args.print {
        write(&path, &text, args.force)?;
    }
    if context.output.is_json() {
        context.output.object(&Written {
            path: written,
            found: &found,
            text: &text,
        })?;
        return Ok(Exit::Done);
    }
    if args.print {
        context.output.say(&text)?;
        return Ok(Exit::Done);
    }
    context.output.say(&said(&path, &found))?;
    Ok(Exit::Done)
}

/// The top of the working tree: the nearest directory with a `.git`. No git runs, so that it works
/// on any repository.
fn top(directory: &Path) -> Option<PathBuf> {
    directory
        .ancestors()
        .find(|at| at.join(".git").exists())
        .map(Path::to_owned)
}

fn look(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_LOOK).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), Error> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Refused {
            message: format!("{} is there already", path.display()),
            hint: "`skep init --print` shows what would be written; `--force` writes over it"
                .into(),
        },
        _ => Error::File {
            doing: "writing",
            path: path.into(),
            source,
        },
    })
}

fn said(path: &Path, found: &Found) -> String {
    let mut out = format!(
        "Wrote {} with {}.\n",
        path.display(),
        format::count(found.checks.len(), "check")
    );
    for check in &found.checks {
        out.push_str(&format!("  {}: {}\n", check.name, check.command));
    }
    for (command, _) in &found.setup {
        out.push_str(&format!("  setup: {command}\n"));
    }
    if found.checks.is_empty() {
        out.push_str("No test command was found: write one into it, or changes are unchecked.\n");
    }
    out.push_str("\nIt counts once it is committed.\n");
    out.push_str(&result::commands(&[(
        format!("git add {FILE} && git commit -m \"Say what changes must pass\""),
        "",
    )]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::Global, config::Environment};

    fn init(directory: &Path, force: bool) -> Result<Exit, Error> {
        let context = Context::new(
            Global {
                directory: Some(directory.into()),
                data: None,
                json: true,
            },
            Environment::of([]),
        )
        .unwrap();
        run(
            &Args {
                force,
                print: false,
            },
            &context,
        )
    }

    #[test]
    fn a_policy_is_written_once_at_the_top_of_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        assert!(matches!(
            init(&below, false),
            Err(Error::Node(server::Error::Git(
                git::Error::NotARepository { .. }
            )))
        ));
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        std::fs::write(dir.path().join("go.mod"), "module x").unwrap();
        init(&below, false).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains("go test ./..."));
        assert!(matches!(init(&below, false), Err(Error::Refused { .. })));
        std::fs::write(dir.path().join(FILE), "other").unwrap();
        init(&below, true).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join(FILE)).unwrap(),
            text
        );
    }
}
