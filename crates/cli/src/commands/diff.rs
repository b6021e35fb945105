//! `skep diff`.

use super::run::stat;
use crate::{
    context::Context,
    exit::Exit,
    output::Output,
    report::Error,
    settings::{Flags, Settings},
    sources,
    view::{
        paint::{LOOK, paint},
        patch,
        result::{self, FileStat},
    },
};
use ledger::Found;
use server::Node;
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// The longest patch that is shown, in bytes.
const MAX_PATCH: usize = 16 << 20;

/// Print what a request, job, attempt or change does to the files
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep diff\n  skep diff r-7k2\n  skep diff --stat c-9qd\n  skep diff --round 2 a-9qd\n  skep diff c-9qd | git apply"
)]
pub(crate) struct Args {
    /// The request, job, attempt or change, by its id or the beginning of it [default: the newest
    /// request of the repository]
    id: Option<String>,
    /// The repository, as `skep run --repo` names it [default: the one of this directory]
    #[arg(long, value_name = "SOURCE", conflicts_with = "id")]
    repo: Option<String>,
    /// Only what the agent did in this round, from one: what it left then, beside what the round before
    /// had left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    round: Option<u32>,
    /// Only how much of each file changed
    #[arg(long)]
    stat: bool,
}

#[derive(serde::Serialize)]
struct Object {
    id: String,
    files: Vec<FileStat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    truncated: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let node = Node::open(settings.options).await?;
    let found = match &args.id {
        Some(id) => node.ledger().find(id).await?,
        None => {
            let directory = sources::known(&node, args.repo.as_deref(), context)?;
            Found::Request(node.latest(&directory).await?)
        }
    };
    let most = if args.stat { 0 } else { MAX_PATCH };
    let diff = match args.round {
        Some(round) => node.diff_round(found, round, most).await?,
        None => node.diff(found, most).await?,
    };
    node.close().await;
    let files: Vec<FileStat> = diff.files.iter().map(stat).collect();
    let output = context.output;
    if output.is_json() {
        let patch = (!args.stat).then(|| String::from_utf8_lossy(&diff.patch).into_owned());
        output.object(&Object {
            id: found.to_string(),
            files,
            patch,
            truncated: diff.truncated && !args.stat,
        })?;
        return Ok(Exit::Done);
    }
    if args.stat {
        output.say(&result::stat(&files, output.width()))?;
        return Ok(Exit::Done);
    }
    if !output.result_is_seen() {
        output.raw(&diff.patch)?;
    } else {
        let mut text = result::stat(&files, output.width());
        text.push('\n');
        text.push_str(&patch::render(&diff.patch));
        page(&text, context, output)?;
    }
    if diff.truncated {
        output.aside(&format!(
            "{} the patch is longer than {} bytes; the rest is left out\n",
            paint(LOOK, "note:"),
            MAX_PATCH
        ));
    }
    Ok(Exit::Done)
}

/// Shows a text in the pager of the person; as it is where there is none.
fn page(text: &str, context: &Context, output: Output) -> Result<(), Error> {
    let pager = match context.env.text("PAGER") {
        Some(pager) => pager,
        None => "less -FRX".to_owned(),
    };
    if pager.trim() == "cat" {
        return output.say(text);
    }
    let plain = anstream::AutoStream::choice(&std::io::stdout()) == anstream::ColorChoice::Never;
    let text = if plain {
        anstream::adapter::strip_str(text).to_string()
    } else {
        text.to_owned()
    };
    let started = Command::new("sh")
        .args(["-c", &pager])
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        return output.say(&text);
    };
    if let Some(mut input) = child.stdin.take() {
        // A pager that is left early has read enough.
        drop(input.write_all(text.as_bytes()));
    }
    match child.wait() {
        Ok(status) if status.code() == Some(127) => output.say(&text),
        Ok(_) => Ok(()),
        Err(source) => Err(Error::System {
            doing: "waiting for the pager",
            source,
        }),
    }
}
