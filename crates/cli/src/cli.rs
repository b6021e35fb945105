//! The command line.

use crate::commands;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Run coding agents on a git repository: sealed, checked, merged.
#[derive(Debug, Parser)]
#[command(
    name = "skep",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with `skep demo`: it needs no key and no set-up.\n\
                  Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 4 not possible here, 130 cancelled."
)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Work in this directory instead of the current one
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub(crate) directory: Option<PathBuf>,
    /// Where Skep keeps what it knows [default: $SKEP_DATA, else ~/.local/share/skep]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
    /// Print objects for programs instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See everything at work on a small repository, without a model or a key
    Demo(commands::demo::Args),
    /// Have agents do what the prompt says, and integrate what passes the checks
    Run(commands::run::Args),
    /// List requests, the newest first
    List(commands::list::Args),
    /// Show a request, job, attempt or change, with its evidence
    Show(commands::show::Args),
    /// Print what happened, event by event
    Log(commands::log::Args),
    /// Print what a request, job, attempt or change does to the files
    Diff(commands::diff::Args),
    /// Cancel a request or a job
    Cancel(commands::cancel::Args),
    /// Try again what did not work, from the tip of the integration branch
    Retry(commands::retry::Args),
    /// Stop a request or a job for now
    Pause(commands::pause::Args),
    /// Go on with requests that were paused, or whose process has ended
    Resume(commands::resume::Args),
    /// Say what a request or job waits for, or what broke it
    Why(commands::why::Args),
    /// List the jobs that failed for good, the newest first
    DeadLetters(commands::dead_letters::Args),
    /// Say how jobs ended, how long they waited and ran, and what waits now
    Stats(commands::stats::Args),
    /// List sessions, the newest first, search them, or give one another name
    Sessions(commands::sessions::Args),
    /// Add to the budget of a request that has not ended
    TopUp(commands::top_up::Args),
    /// Show or change how many jobs may be under way at once
    Limit(commands::limit::Args),
    /// Run an attempt again from its recording, offline and without cost
    Replay(commands::replay::Args),
    /// Take integrated work onto the branch that is checked out
    Apply(commands::apply::Args),
    /// Throw the integrated work away
    Drop(commands::drop::Args),
    /// Write a skep.toml with the checks that are found in the repository
    Init(commands::init::Args),
    /// Say what works on this machine, and what to do about what does not
    Doctor(commands::doctor::Args),
    /// Check, back up, restore and shorten what Skep knows
    Ledger(commands::ledger::Args),
    /// Print the completions for a shell
    Completions(commands::completions::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docs;
    use clap::CommandFactory as _;

    /// The page of the documentation with the help of every command.
    fn page() -> String {
        let mut root = Cli::command().term_width(96);
        root.build();
        let mut page = String::from(
            "# Commands\n\n\
             What `skep --help` and `skep COMMAND --help` print.\n\n",
        );
        page.push_str(&format!("```text\n{}```\n", help(&mut root)));
        let names: Vec<String> = root
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        for name in names {
            let command = root.find_subcommand_mut(&name).unwrap();
            page.push_str(&format!(
                "\n## skep {name}\n\n```text\n{}```\n",
                help(command)
            ));
            for below in command.get_subcommands_mut() {
                let title = format!("skep {name} {}", below.get_name());
                page.push_str(&format!("\n### {title}\n\n```text\n{}```\n", help(below)));
            }
        }
        page
    }

    fn help(command: &mut clap::Command) -> String {
        let text = command.render_long_help().to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        format!("{}\n", lines.join("\n").trim_end())
    }

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_page_of_commands_is_the_help_of_the_program() {
        docs::is_current("docs/cli.md", &page());
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                after.contains(&format!("skep {}", command.get_name())),
                "{}",
                command.get_name()
            );
        }
    }
}
