//! `skep sandbox exec`.

use super::{data, span};
use crate::{
    context::Context,
    exit::Exit,
    relay,
    report::Error,
    signals::Signals,
    view::{
        format,
        paint::{LOOK, paint},
    },
};
use sandbox::{Captured, Limit, Size};
use server::standing::{Ends, Run, Running, find};
use std::{ffi::OsString, time::Duration};

/// The most of each output that `--json` shows, in bytes.
const MAX_SHOWN: usize = 1 << 20;

/// Run a command in a sandbox; its input, outputs and exit code are passed through
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox exec try -- cargo test\n  skep sandbox exec try -- sh -c 'cat > notes' < notes\n  skep sandbox exec -t try -- vim"
)]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
    /// On a terminal
    #[arg(short = 't', long = "terminal")]
    terminal: bool,
    /// End it after this time, with exit code 124: a number with `s`, `m`, `h` or `d` behind it
    #[arg(long, value_name = "TIME", value_parser = span)]
    timeout: Option<Duration>,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(serde::Serialize)]
struct Object {
    id: String,
    exit: sandbox::Exit,
    /// What ended it, if a limit did.
    ended_by: Option<&'static str>,
    stdout: String,
    stderr: String,
    /// Bytes of both that are not shown.
    omitted: u64,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let terminal = args
        .terminal
        .then(|| relay::terminal().unwrap_or(Size::USUAL));
    let run = Run {
        argv: args.command,
        env: match terminal {
            Some(_) => relay::env(context),
            None => Vec::new(),
        },
        terminal,
        stdin: true,
        timeout: args.timeout,
        keep_background: false,
    };
    begin(&args.id, run, context).await
}

/// Runs a command in a sandbox that is held, as this program.
pub(super) async fn begin(id: &str, run: Run, context: &Context) -> Result<Exit, Error> {
    let held = find(&data(context)?, id).map_err(server::Error::from)?;
    let mut signals = Signals::listen()?;
    let timeout = run.timeout;
    let mut running = held.exec(run).await?;
    if context.output.is_json() {
        let object = captured(held.record.id.to_string(), &mut running, &mut signals).await?;
        context.output.object(&object)?;
        return Ok(Exit::of_command(object.exit));
    }
    let relayed = relay::relay(&mut running, &mut signals).await?;
    if let Some(what) = relayed.exit.and_then(|exit| why(exit, timeout)) {
        let note = format!("{} {what}\n", paint(LOOK, "note:"));
        context.output.aside(&note);
    }
    relayed.code()
}

/// What ended a command, if a limit did.
fn ended_by(exit: sandbox::Exit) -> Option<&'static str> {
    match exit.limit {
        _ if exit.timed_out => Some("time"),
        Some(Limit::Memory) => Some("memory"),
        Some(Limit::Processes) => Some("processes"),
        Some(Limit::FileBytes) => Some("file_bytes"),
        Some(Limit::Disk) => Some("disk"),
        None => None,
    }
}

/// The same for a person.
fn why(exit: sandbox::Exit, timeout: Option<Duration>) -> Option<String> {
    match (exit.timed_out, timeout, exit.limit) {
        (true, Some(timeout), _) => Some(format!(
            "the command was ended after {}, as `--timeout` says",
            format::span(timeout)
        )),
        (true, None, _) => Some("the command was ended because its time was over".into()),
        (false, _, Some(limit)) => Some(format!("the {limit} was reached")),
        (false, _, None) => None,
    }
}

async fn captured(
    id: String,
    running: &mut Running,
    signals: &mut Signals,
) -> Result<Object, Error> {
    let Some(Ends::Pipes {
        stdin,
        stdout,
        stderr,
    }) = running.take_ends()
    else {
        return Err(Error::Usage(
            "`--json` shows what a command prints, and takes no terminal".into(),
        ));
    };
    let feeding = relay::feed(stdin);
    let keeping = async {
        tokio::join!(
            sandbox::keep(stdout, MAX_SHOWN),
            sandbox::keep(stderr, MAX_SHOWN)
        )
    };
    let all = async {
        let ((out, err), exit) = tokio::join!(keeping, running.wait());
        exit.map(|exit| (out, err, exit))
    };
    let fed = async {
        feeding.await;
        std::future::pending::<()>().await;
    };
    let both = async {
        tokio::select! {
            all = all => Some(all),
            () = fed => None,
        }
    };
    // Told to end, this hangs up, which kills the command.
    let (out, err, exit) = signals
        .or(both)
        .await?
        .ok_or_else(|| Error::Internal("an input never ends".into()))??;
    let omitted = [&out, &err].iter().map(|it| it.omitted).sum();
    let text = |captured: &Captured| captured.text();
    Ok(Object {
        id,
        exit,
        ended_by: ended_by(exit),
        stdout: text(&out),
        stderr: text(&err),
        omitted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_ended_a_command_is_said_and_where_none_did_nothing_is() {
        let mut exit = sandbox::Exit {
            code: None,
            signal: Some(9),
            timed_out: false,
            limit: None,
        };
        assert_eq!((why(exit, None), ended_by(exit)), (None, None));
        exit.limit = Some(Limit::Memory);
        let said = why(exit, Some(Duration::from_secs(90)));
        assert_eq!(said.as_deref(), Some("the limit of memory was reached"));
        assert_eq!(ended_by(exit), Some("memory"));
        exit.timed_out = true;
        let said = why(exit, Some(Duration::from_secs(90)));
        let wanted = "the command was ended after 1m30s, as `--timeout` says";
        assert_eq!(said.as_deref(), Some(wanted));
        assert_eq!(ended_by(exit), Some("time"));
    }
}
