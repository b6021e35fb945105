//! `skep sandbox create`.

use super::span;
use crate::{
    context::Context,
    exit::Exit,
    report::{Error, Report},
    settings::{Flags, Settings},
    signals::Signals,
};
use server::standing::{Berth, Order, Record, fresh_id};
use std::{io, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

/// The longest thing that the holder says.
const LONGEST: u64 = 64 << 10;
/// How much of its diagnostics is shown where it says nothing.
const TAIL: usize = 2_000;

/// Make a sealed workspace that stays, and print its id
///
/// It ends with `skep sandbox destroy`, or at its time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox create\n  skep sandbox create --name try --ref v1.2 --for 2h"
)]
pub(super) struct Args {
    /// The commit to work on: a branch, a tag, a commit [default: HEAD]
    #[arg(long = "ref", value_name = "REV")]
    revision: Option<String>,
    /// Without the setup of `skep.toml`
    #[arg(long)]
    no_setup: bool,
    /// A name for it, beside its id
    #[arg(long)]
    name: Option<String>,
    /// How long it stays: a number with `s`, `m`, `h` or `d` behind it, 30d at most
    #[arg(long = "for", value_name = "TIME", value_parser = span, default_value = "12h")]
    lasts: Duration,
}

/// What the holder says when it is ready, or why it is not: one of the two.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Report>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let data = settings.options.data;
    let order = Order {
        name: args.name.clone(),
        lasts: args.lasts,
    };
    order.check(&data).map_err(server::Error::from)?;
    let mut signals = Signals::listen()?;
    let berth = Berth::make(&data, fresh_id()).map_err(server::Error::from)?;
    let began = begin(&args, context, &berth, &data);
    let said = match began {
        Ok(mut holder) => match signals.or(listen(&mut holder)).await {
            Ok(said) => said,
            Err(told) => {
                end(&mut holder).await;
                Err(told)
            }
        },
        Err(error) => Err(error),
    };
    let record = match said {
        Ok(Said {
            ready: Some(record),
            ..
        }) => record,
        Ok(Said {
            error: Some(report),
            ..
        }) => {
            berth.remove();
            return Err(Error::Told(Box::new(report)));
        }
        Ok(_) => {
            let error = silent(&berth);
            berth.remove();
            return Err(error);
        }
        Err(error) => {
            berth.remove();
            return Err(error);
        }
    };
    if context.output.is_json() {
        context.output.object(&record)?;
    } else {
        context.output.say(&format!("{}\n", record.id))?;
    }
    Ok(Exit::Done)
}

/// Starts the holder, with nothing of this process but its environment.
fn begin(
    args: &Args,
    context: &Context,
    berth: &Berth,
    data: &std::path::Path,
) -> Result<Child, Error> {
    let system = |source| Error::System {
        doing: "starting the holder of the sandbox",
        source,
    };
    sandbox::pass_nothing_on().map_err(server::Error::from)?;
    let log = berth.log().map_err(server::Error::from)?;
    let (_, config) = context.config()?;
    let mut command = Command::new(std::env::current_exe().map_err(system)?);
    command
        .arg("--data")
        .arg(data)
        .arg("-C")
        .arg(&context.directory)
        .args(["sandbox", "hold", &berth.id.to_string()])
        .args(["--for", &format!("{}s", args.lasts.as_secs())])
        .env("SKEP_CONFIG", std::path::absolute(config).map_err(system)?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    if let Some(revision) = &args.revision {
        command.arg(format!("--ref={revision}"));
    }
    if let Some(name) = &args.name {
        command.arg(format!("--name={name}"));
    }
    if args.no_setup {
        command.arg("--no-setup");
    }
    command.spawn().map_err(system)
}

/// What the holder says; neither the one nor the other when it ended without a word.
async fn listen(holder: &mut Child) -> Result<Said, Error> {
    let nothing = Said {
        ready: None,
        error: None,
    };
    let Some(output) = holder.stdout.take() else {
        return Ok(nothing);
    };
    let mut line = Vec::new();
    let mut output = BufReader::new(output.take(LONGEST));
    let read = output.read_until(b'\n', &mut line).await;
    read.map_err(|source| Error::System {
        doing: "hearing from the holder of the sandbox",
        source,
    })?;
    Ok(serde_json::from_slice(&line).unwrap_or(nothing))
}

/// It ends what it has made, and itself.
async fn end(holder: &mut Child) {
    let pid = holder
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        tracing::debug!(%error, "the holder has ended already");
    }
    if let Err(error) = holder.wait().await {
        tracing::debug!(%error, "the holder cannot be waited for");
    }
}

fn silent(berth: &Berth) -> Error {
    let text = berth.last_words(TAIL).unwrap_or_default();
    Error::System {
        doing: "holding the sandbox",
        source: io::Error::other(match text.trim() {
            "" => "its process ended without a word".to_owned(),
            words => format!("its process ended: {words}"),
        }),
    }
}
