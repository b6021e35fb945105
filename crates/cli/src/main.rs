//! The binary `skep`: commands, configuration and presentation. It holds no rules of the domain.

mod cli;
mod commands;
mod config;
mod context;
mod demo;
#[cfg(test)]
mod docs;
mod exit;
mod init;
mod more;
mod output;
mod relay;
mod report;
mod settings;
mod signals;
mod sources;
mod ssh;
mod view;
mod watch;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return told(&answer),
    };
    let json = cli.global.json;
    diagnostics();
    let ended = context::Context::new(cli.global, config::Environment::of_process())
        .and_then(|context| commands::run(cli.command, &context));
    let exit = match ended {
        Ok(exit) => exit,
        Err(error) => reported(&error, json),
    };
    ExitCode::from(exit.code())
}

/// Says what went wrong, where there is anything to say.
fn reported(error: &report::Error, json: bool) -> exit::Exit {
    let report = report::Report::of(error);
    output::Output::new(json).report(&report);
    report.exit
}

/// Prints help, the version, or what is wrong with the command line.
fn told(answer: &clap::Error) -> ExitCode {
    if answer.use_stderr() && cli::asks_for_json(std::env::args_os().skip(1)) {
        return ExitCode::from(reported(&cli::mistake(answer), true).code());
    }
    let printed = answer.print();
    let exit = match (answer.use_stderr(), printed) {
        (true, _) => exit::Exit::Usage,
        (false, Ok(())) => exit::Exit::Done,
        (false, Err(error)) => reported(&report::Error::of_output(error), false),
    };
    ExitCode::from(exit.code())
}

/// Diagnostics of the program itself go to standard error, when `SKEP_LOG` asks for them.
fn diagnostics() {
    let Some(filter) = std::env::var_os("SKEP_LOG").and_then(|filter| filter.into_string().ok())
    else {
        return;
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .finish();
    // There is only one, and it is set here.
    drop(tracing::subscriber::set_global_default(subscriber));
}
