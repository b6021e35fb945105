//! Every command in a file of its own.

pub(crate) mod apply;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod drop;
pub(crate) mod egress;
pub(crate) mod gc;
pub(crate) mod init;
pub(crate) mod ledger;
pub(crate) mod limit;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod pause;
pub(crate) mod replay;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod sessions;
pub(crate) mod shell;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod top_up;
pub(crate) mod why;

use crate::{
    cli::Command,
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
};
use ::ledger::{Found, Ledger};
use server::Node;
use std::future::Future;

/// Does what the command says.
///
/// # Errors
/// When it cannot be done; [`crate::report`] says what that means.
pub(crate) fn run(command: Command, context: &Context) -> Result<Exit, Error> {
    match command {
        Command::Completions(args) => completions::run(&args, context),
        Command::Init(args) => init::run(&args, context),
        Command::Demo(args) => wait(demo::run(args, context)),
        Command::Run(args) => wait(run::run(args, context)),
        Command::List(args) => wait(list::run(args, context)),
        Command::Show(args) => wait(show::run(args, context)),
        Command::Log(args) => wait(log::run(args, context)),
        Command::Diff(args) => wait(diff::run(args, context)),
        Command::Cancel(args) => wait(cancel::run(args, context)),
        Command::Retry(args) => wait(retry::run(args, context)),
        Command::Pause(args) => wait(pause::run(args, context)),
        Command::Resume(args) => wait(resume::run(args, context)),
        Command::Why(args) => wait(why::run(args, context)),
        Command::DeadLetters(args) => wait(dead_letters::run(args, context)),
        Command::Stats(args) => wait(stats::run(args, context)),
        Command::Sandbox(args) => wait(sandbox::run(args, context)),
        Command::Shell(args) => wait(shell::run(args, context)),
        Command::Sessions(args) => wait(sessions::run(args, context)),
        Command::TopUp(args) => wait(top_up::run(args, context)),
        Command::Limit(args) => wait(limit::run(args, context)),
        Command::Replay(args) => wait(replay::run(args, context)),
        Command::Apply(args) => wait(apply::run(args, context)),
        Command::Drop(args) => wait(drop::run(args, context)),
        Command::Egress(args) => wait(egress::run(args, context)),
        Command::Doctor(args) => wait(doctor::run(args, context)),
        Command::Gc(args) => wait(gc::run(args, context)),
        Command::Ledger(args) => wait(ledger::run(args, context)),
    }
}

/// Runs a command that waits for things. Whatever still runs when it has ended, ends with it.
fn wait(command: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    allow_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            doing: "starting threads",
            source,
        })?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended
}

/// Lets this process open as many files as it may: a sandbox with a way out can hold some 250, and
/// many systems give a process 1,024 unless it asks. Sandboxes set a limit of their own.
fn allow_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// What an id names; without one, the newest request of the repository.
async fn named_or_newest(
    ledger: &Ledger,
    id: Option<&str>,
    context: &Context,
) -> Result<Found, Error> {
    if let Some(id) = id {
        return Ok(ledger.find(id).await?);
    }
    let settings = Settings::read(context, Flags::default())?;
    let node = Node::open(settings.options).await?;
    let newest = node.latest(&context.directory).await;
    node.close().await;
    Ok(Found::Request(newest?))
}

/// How many things are listed: none would look as if there were none.
fn at_most(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("write a number from 1 on".into()),
    }
}

/// That an id names something that the command does not take.
fn wrong_kind(found: Found, command: &'static str, wanted: &'static str) -> Error {
    Error::WrongKind {
        id: found.to_string(),
        found: match found {
            Found::Session(_) => "a session",
            Found::Request(_) => "a request",
            Found::Job(_) => "a job",
            Found::Attempt(_) => "an attempt",
            Found::Change(_) => "a change",
            Found::Notification(_) => "a notification",
        },
        command,
        wanted,
    }
}
