//! `cargo xtask kills` and `cargo xtask leaks`: processes that are killed at random, for as long as
//! one likes.

use crate::step;

/// Tests that run rounds of kills until there were enough.
pub(crate) struct Suite {
    /// What is counted, as its option without the dashes.
    counts: &'static str,
    /// How many make a long run.
    long: u64,
    /// The variable that tells the tests how many.
    variable: &'static str,
    /// The tests. Where there are several, `--kind` chooses one.
    tests: &'static [Test],
}

struct Test {
    /// The kind of sandboxes in it.
    kind: &'static str,
    /// Its name.
    name: &'static str,
    /// By how much fewer it counts, because each takes longer.
    fewer: u64,
}

pub(crate) const KILLS: Suite = Suite {
    counts: "kills",
    long: 1_000,
    variable: "SKEP_KILLS",
    tests: &[Test {
        kind: "namespace",
        name: "kills::random::killed_at_any_moment_every_request_ends_as_it_would_have",
        fewer: 1,
    }],
};

pub(crate) const LEAKS: Suite = Suite {
    counts: "attempts",
    long: 500,
    variable: "SKEP_ATTEMPTS",
    tests: &[
        Test {
            kind: "namespace",
            name: "leaks::round::whoever_is_killed_at_whatever_moment_nothing_is_left_on_the_machine",
            fewer: 1,
        },
        Test {
            kind: "container",
            name: "leaks::round::whoever_is_killed_at_whatever_moment_no_container_is_left_on_the_machine",
            fewer: 5,
        },
    ],
};

impl Suite {
    /// Runs the rounds.
    ///
    /// # Errors
    /// When an argument is wrong, or when what must hold after a kill does not.
    pub(crate) fn run(&self, arguments: &[String]) -> Result<(), String> {
        let (mut count, mut seed, mut kind) = (self.long, 1, None);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} wants a value"))?;
            if name == "--kind" {
                if !self.tests.iter().any(|test| test.kind == value) {
                    return Err(format!("there are no sandboxes of the kind `{value}` here"));
                }
                kind = Some(value.as_str());
                continue;
            }
            let value: u64 = value
                .parse()
                .map_err(|_| format!("{name} wants a number, not `{value}`"))?;
            match name.strip_prefix("--") {
                Some(option) if option == self.counts => count = value,
                Some("seed") => seed = value,
                _ => return Err(format!("there is no option `{name}`")),
            }
        }
        for test in self.tests {
            match kind {
                Some(kind) if kind != test.kind => {}
                Some(_) => self.rounds(test, count, seed)?,
                None => self.rounds(test, (count / test.fewer).max(1), seed)?,
            }
        }
        Ok(())
    }

    fn rounds(&self, test: &Test, count: u64, seed: u64) -> Result<(), String> {
        // Not with nextest, which ends what takes as long as this.
        let mut command = step::command(
            "cargo",
            &[
                "test",
                "--package",
                "skep-cli",
                "--test",
                "binary",
                test.name,
                "--",
                "--exact",
                "--nocapture",
            ],
        );
        command
            .env(self.variable, count.to_string())
            .env("SKEP_SEED", seed.to_string());
        let name = format!(
            "{count} {} in sandboxes of the kind {} from seed {seed}",
            self.counts, test.kind
        );
        step::run(&name, &mut command)
    }
}
