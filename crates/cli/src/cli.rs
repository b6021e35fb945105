//! The command line.

use crate::{commands, report::Error};
use clap::{Args, Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};

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
    /// Where Skep keeps what it knows; a relative path is seen from where `skep` was started, not
    /// from `-C` [default: $SKEP_DATA, else ~/.local/share/skep]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
    /// Print objects for programs instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Every command. What each does is said at its arguments: a word here would take the place of all
/// that is said there.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(commands::demo::Args),
    Run(commands::run::Args),
    List(commands::list::Args),
    Show(commands::show::Args),
    Log(commands::log::Args),
    Diff(commands::diff::Args),
    Cancel(commands::cancel::Args),
    Retry(commands::retry::Args),
    Pause(commands::pause::Args),
    Resume(commands::resume::Args),
    Why(commands::why::Args),
    DeadLetters(commands::dead_letters::Args),
    Stats(commands::stats::Args),
    Sessions(commands::sessions::Args),
    TopUp(commands::top_up::Args),
    Limit(commands::limit::Args),
    Replay(commands::replay::Args),
    Apply(commands::apply::Args),
    Drop(commands::drop::Args),
    Egress(commands::egress::Args),
    Shell(commands::shell::Args),
    Sandbox(commands::sandbox::Args),
    Init(commands::init::Args),
    Doctor(commands::doctor::Args),
    Gc(commands::gc::Args),
    Ledger(commands::ledger::Args),
    Completions(commands::completions::Args),
}

/// Whether a command line that cannot be understood asks for objects. What is behind `--` is a command's.
pub(crate) fn asks_for_json(mut words: impl Iterator<Item = OsString>) -> bool {
    words
        .by_ref()
        .take_while(|word| word != "--")
        .any(|word| word == "--json")
}

/// What is wrong with a command line, without how it is used.
pub(crate) fn mistake(answer: &clap::Error) -> Error {
    let text = answer.render().to_string();
    let mut parts = text.split("\n\n");
    let said = parts.next().unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let tips = parts.flat_map(str::lines).map(str::trim);
    let tips = tips.filter(|line| line.starts_with("tip: "));
    Error::Usage(
        [said]
            .into_iter()
            .chain(tips)
            .collect::<Vec<_>>()
            .join("\n  "),
    )
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
            for below in command.get_subcommands_mut().filter(|it| !it.is_hide_set()) {
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
