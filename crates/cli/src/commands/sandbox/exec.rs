//! `skep sandbox exec`.

use super::{data, span};
use crate::{
    context::Context,
    exit::Exit,
    relay,
    report::Error,
    signals::{Signals, listen},
    view::{
        format,
        paint::{LOOK, paint},
    },
};
use sandbox::{Limit, Size};
use server::standing::{Ends, Held, Run, Running, Said, find};
use std::{ffi::OsString, pin::pin, time::Duration};
use tokio::signal::unix::SignalKind;

/// How long a sandbox may take to end a command whose time is over, and to start one.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Said where a command was ended with its sandbox.
const ENDED: &str = "the command was ended because the sandbox was stopped";

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
    /// What ended it, if a limit or the end of the sandbox did.
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
    let (timeout, terminal) = (run.timeout, run.terminal);
    let id = held.record.id.to_string();
    let begun = async {
        tokio::select! {
            running = held.exec(run) => running.map(Some),
            () = over(timeout) => Ok(None),
        }
    };
    let Some(mut running) = signals.or(begun).await?? else {
        return unanswered(id, Exit::TimedOut, context);
    };
    if context.output.is_json() {
        let captured = tokio::select! {
            object = captured(id.clone(), &mut running, &mut signals) => Some(object?),
            () = over(timeout) => None,
        };
        let Some(object) = captured else {
            return unanswered(id, Exit::TimedOut, context);
        };
        context.output.object(&object)?;
        return Ok(Exit::of_command(object.exit));
    }
    let relayed = tokio::select! {
        relayed = relay::relay(&mut running, &mut signals) => Ok(relayed?),
        () = over(timeout) => Err(Exit::TimedOut),
        silent = silent(&held) => Err(silent?),
    };
    let mut relayed = match relayed {
        Ok(relayed) => relayed,
        Err(exit) => return unanswered(id, exit, context),
    };
    if terminal.is_none() && relayed.exit.is_some() && relayed.told.is_none() {
        running.remember(std::mem::take(&mut relayed.said)).await;
    }
    if running.ended_with_sandbox() {
        let note = format!("{} {ENDED}\n", paint(LOOK, "note:"));
        context.output.aside(&note);
        return relayed.code();
    }
    if let Some(what) = relayed.exit.and_then(|exit| why(exit, timeout)) {
        let note = format!("{} {what}\n", paint(LOOK, "note:"));
        context.output.aside(&note);
    }
    relayed.code()
}

/// Waits until a command's time is over, and the sandbox has had time to end it.
async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout.saturating_add(ENDS_WITHIN)).await,
        None => std::future::pending().await,
    }
}

/// Waits until a sandbox starts nothing any more after the person interrupted a command in it: then the
/// command hears nothing of that.
async fn silent(held: &Held) -> Result<Exit, Error> {
    let mut signals = Signals::listen()?;
    loop {
        if signals.next().await != Exit::Cancelled {
            // The command is ended, and waited for no longer than that may take.
            return std::future::pending().await;
        }
        let nothing = Run {
            argv: vec!["true".into()],
            ..Run::default()
        };
        if tokio::time::timeout(ENDS_WITHIN, held.exec(nothing))
            .await
            .is_err()
        {
            return Ok(Exit::Cancelled);
        }
    }
}

/// The sandbox does not answer: the program ends, and the command with it as soon as that is possible.
fn unanswered(id: String, exit: Exit, context: &Context) -> Result<Exit, Error> {
    if context.output.is_json() {
        context.output.object(&Object {
            id,
            exit: sandbox::Exit {
                code: None,
                signal: None,
                timed_out: exit == Exit::TimedOut,
                limit: None,
                refused: None,
            },
            ended_by: (exit == Exit::TimedOut).then_some("time"),
            stdout: String::new(),
            stderr: String::new(),
            omitted: 0,
        })?;
        return Ok(exit);
    }
    context.output.aside(&format!(
        "{} the sandbox {id} does not answer; `skep sandbox stop {id}` ends all that runs in it\n",
        paint(LOOK, "note:")
    ));
    Ok(exit)
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
    match (exit.timed_out, timeout) {
        (true, Some(timeout)) => Some(format!(
            "the command was ended after {}, as `--timeout` says",
            format::span(timeout)
        )),
        (true, None) => Some("the command was ended because its time was over".into()),
        (false, _) => exit.why(),
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
    let keeping = async {
        tokio::join!(
            sandbox::keep(stdout, MAX_SHOWN),
            sandbox::keep(stderr, MAX_SHOWN)
        )
    };
    let (mut feeding, mut keeping) = (pin!(relay::feed(stdin)), pin!(keeping));
    let (mut is_fed, mut kept) = (false, None);
    let mut quit = listen(SignalKind::quit())?;
    let exit = loop {
        let told = tokio::select! {
            exit = running.wait() => break exit?,
            told = signals.next() => told,
            _ = quit.recv() => Exit::Terminated,
            both = &mut keeping, if kept.is_none() => {
                kept = Some(both);
                continue;
            }
            () = &mut feeding, if !is_fed => {
                is_fed = true;
                continue;
            }
        };
        let mut ending = pin!(relay::end(running));
        loop {
            tokio::select! {
                _ = &mut ending => return Err(Error::Quit(told)),
                both = &mut keeping, if kept.is_none() => kept = Some(both),
            }
        }
    };
    let (out, err) = match kept {
        Some(both) => both,
        None => signals.or(keeping).await?,
    };
    let omitted = [&out, &err].iter().map(|it| it.omitted).sum();
    let (stdout, stderr) = (out.text(), err.text());
    let mut said = Said::default();
    said.stdout.push(stdout.as_bytes());
    said.stderr.push(stderr.as_bytes());
    running.remember(said).await;
    let ended_by = match running.ended_with_sandbox() {
        true => Some("sandbox"),
        false => ended_by(exit),
    };
    Ok(Object {
        id,
        exit,
        ended_by,
        stdout,
        stderr,
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
            refused: None,
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
