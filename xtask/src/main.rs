//! What a developer of Skep runs: tests, benchmarks, the simulation and the kills.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]

mod bench;
mod fuzz;
mod needs;
mod random;
mod simulate;
mod step;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask <COMMAND>

  test [STEP ...]       See to what the tests need and run all of them, or only the steps named.
                        Steps: needs format lint deny build test
  kills [--kills N] [--seed S]
                        Kill processes at random while agents work, and see that nothing is lost:
                        1,000 times, or N, in rounds of 4 whose seeds count up from 1, or from S.
  leaks [--attempts N] [--seed S] [--kind namespace|container]
                        Kill workers, sandboxes, helpers, commands and holders of sandboxes at random
                        until there were 500 attempts, or N, and see that nothing is left behind;
                        then a fifth as many in containers, where engines are killed too. With
                        --kind, those of one kind only.
  fuzz [--seconds N] [TARGET ...]
                        Run libFuzzer on the parsers that face hostile input, 5 minutes on each, or N
                        seconds, or on those that are named.
  bench NAME [--json] [--build] [--only GROUP] [--binary FILE]
                        Measure. Names: run-overhead ledger workspace sandbox
  simulate [--seeds N] [--from SEED] [--steps N]
                        Run seeds of the ledger's simulation, 10000 where nothing is said; one
                        that fails is told with how to run it again.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[] as &[String]),
    };
    let done = match command {
        "test" => test::run(rest),
        "kills" => random::KILLS.run(rest),
        "fuzz" => fuzz::run(rest),
        "leaks" => random::LEAKS.run(rest),
        "bench" => bench::run(rest),
        "simulate" => simulate::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no command `{other}`\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
