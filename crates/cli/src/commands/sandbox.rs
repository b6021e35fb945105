//! `skep sandbox`: sealed workspaces that outlive a command, for people and other programs.

mod copy;
mod create;
mod destroy;
mod exec;
mod fork;
mod forward;
mod hold;
mod holder;
mod inspect;
mod list;
mod outcomes;
mod passed;
mod shell;
mod snapshot;
mod ssh;
mod ssh_config;
mod start;
mod stop;
mod undo;

use crate::{context::Context, exit::Exit, report::Error};
use std::{path::PathBuf, time::Duration};

/// Sealed workspaces for you and for other programs: create, exec, shell, copy, list, inspect, snapshot, undo, fork, forward, ssh, ssh-config, stop, start, destroy
///
/// Each is held by a process of its own. When that ends, however it does, and when the machine goes down,
/// the sandbox is stopped: its files stay until `destroy`, or until its time is over. `skep shell` needs
/// none of this.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:\n  skep sandbox create --name try\n  skep sandbox exec try -- cargo test\n  skep sandbox shell try\n  skep sandbox copy try:target/report.html .\n  skep sandbox snapshot try\n  skep sandbox list\n  skep sandbox stop try\n  skep sandbox start try\n  skep sandbox destroy try"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(create::Args),
    Exec(exec::Args),
    Shell(shell::Args),
    Copy(copy::Args),
    List(list::Args),
    Inspect(inspect::Args),
    Snapshot(snapshot::Args),
    Undo(undo::Args),
    Fork(fork::Args),
    Forward(forward::Args),
    Ssh(ssh::Args),
    SshConfig(ssh_config::Args),
    Stop(stop::Args),
    Start(start::Args),
    Destroy(destroy::Args),
    #[command(hide = true)]
    Hold(hold::Args),
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    match args.command {
        Command::Create(args) => create::run(args, context).await,
        Command::Exec(args) => exec::run(args, context).await,
        Command::Shell(args) => shell::run(args, context).await,
        Command::Copy(args) => copy::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Inspect(args) => inspect::run(args, context).await,
        Command::Snapshot(args) => snapshot::run(args, context).await,
        Command::Undo(args) => undo::run(args, context).await,
        Command::Forward(args) => forward::run(args, context).await,
        Command::Ssh(args) => ssh::run(args, context).await,
        Command::SshConfig(args) => ssh_config::run(args, context),
        Command::Fork(args) => fork::run(args, context).await,
        Command::Stop(args) => stop::run(args, context).await,
        Command::Start(args) => start::run(args, context).await,
        Command::Destroy(args) => destroy::run(args, context).await,
        Command::Hold(args) => hold::run(args, context).await,
    }
}

/// The data directory, where sandboxes have their directories. A mistake in the configuration takes none
/// of them away.
fn data(context: &Context) -> Result<PathBuf, Error> {
    context.data_even_so()
}

/// A span of time: a number with `s`, `m`, `h` or `d` behind it.
fn span(text: &str) -> Result<Duration, String> {
    const LONGEST: u64 = 30 * 86_400;
    let wrong =
        || format!("`{text}` is not a span of time up to 30d: write `90s`, `30m`, `12h` or `7d`");
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, seconds) = found.ok_or_else(wrong)?;
    let number = number.parse::<u32>().map_err(|_| wrong())?;
    match u64::from(number) * seconds {
        seconds @ 1..=LONGEST => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("12h"), Ok(Duration::from_secs(43_200)));
        for wrong in ["", "12", "h", "0s", "31d", "-1h", "1.5h"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
