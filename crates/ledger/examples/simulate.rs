//! Many seeds of the simulation: `cargo xtask simulate`, which builds and calls this.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test or its support ends the test"
)]

#[path = "../tests/simulation/sim/mod.rs"]
#[expect(dead_code, reason = "only the tests make mistakes on purpose")]
mod sim;

use sim::{Mistake, STEPS, Tally, simulate};
use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const HELP: &str = "\
Usage: cargo xtask simulate [--seeds N] [--from SEED] [--steps N]

  --seeds N    How many seeds; 10000 where it is not given
  --from SEED  The first seed; 0 where it is not given
  --steps N    Steps of each before it comes to rest; those of the tests where it is not given
";

/// How often it says how far it is.
const EVERY: Duration = Duration::from_secs(10);

struct Asked {
    seeds: u64,
    from: u64,
    steps: u64,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 10_000,
        from: 0,
        steps: STEPS,
    };
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let value = match flag.as_str() {
            "--seeds" => &mut asked.seeds,
            "--from" => &mut asked.from,
            "--steps" => &mut asked.steps,
            _ => return Err(HELP.into()),
        };
        let given = rest.next().and_then(|text| text.parse().ok());
        *value = given.ok_or_else(|| format!("`{flag}` wants a number\n\n{HELP}"))?;
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let Asked { seeds, from, steps } = match asked() {
        Ok(asked) => asked,
        Err(help) => {
            println!("{help}");
            return ExitCode::FAILURE;
        }
    };
    let start = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Mutex::new((Tally::default(), 0u64, Instant::now()));
    let run = || {
        while !failed.load(Ordering::SeqCst) {
            let at = next.fetch_add(1, Ordering::SeqCst);
            if at >= seeds {
                break;
            }
            let seed = from + at;
            let told = simulate(seed, steps, Mistake::None);
            let (tally, done, said) = &mut *all.lock().unwrap();
            match told {
                Ok(more) => tally.add(more),
                Err((broken, trace)) => {
                    if !failed.swap(true, Ordering::SeqCst) {
                        println!("{}\nseed {seed}: {broken}", trace.join("\n"));
                        let steps = match steps {
                            STEPS => String::new(),
                            steps => format!(" --steps {steps}"),
                        };
                        println!("again: cargo xtask simulate --from {seed} --seeds 1{steps}");
                    }
                }
            }
            *done += 1;
            if said.elapsed() >= EVERY {
                *said = Instant::now();
                println!(
                    "{done} of {seeds} seeds, {:.0} s",
                    start.elapsed().as_secs_f64()
                );
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
    if failed.load(Ordering::SeqCst) {
        return ExitCode::FAILURE;
    }
    let (tally, done, _) = &*all.lock().unwrap();
    println!(
        "{done} seeds hold, {:.0} s: {tally:#?}",
        start.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
