//! `cargo xtask kills` and `cargo xtask leaks`: processes that are killed at random, for as long as
//! one likes.

use crate::step;

/// A test that runs rounds of kills until there were enough.
pub(crate) struct Suite {
    /// What is counted, as its option without the dashes.
    counts: &'static str,
    /// How many make a long run.
    long: u64,
    /// The variable that tells the test how many.
    variable: &'static str,
    /// The test.
    test: &'static str,
}

pub(crate) const KILLS: Suite = Suite {
    counts: "kills",
    long: 1_000,
    variable: "SKEP_KILLS",
    test: "kills::random::killed_at_any_moment_every_request_ends_as_it_would_have",
};

pub(crate) const LEAKS: Suite = Suite {
    counts: "attempts",
    long: 500,
    variable: "SKEP_ATTEMPTS",
    test: "leaks::round::whoever_is_killed_at_whatever_moment_nothing_is_left_on_the_machine",
};

impl Suite {
    /// Runs the rounds.
    ///
    /// # Errors
    /// When an argument is wrong, or when what must hold after a kill does not.
    pub(crate) fn run(&self, arguments: &[String]) -> Result<(), String> {
        let (mut count, mut seed) = (self.long, 1);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest
                .next()
                .ok_or_else(|| format!("{name} wants a number"))?;
            let value: u64 = value
                .parse()
                .map_err(|_| format!("{name} wants a number, not `{value}`"))?;
            match name.strip_prefix("--") {
                Some(option) if option == self.counts => count = value,
                Some("seed") => seed = value,
                _ => return Err(format!("there is no option `{name}`")),
            }
        }
        // Not with nextest, which ends what takes as long as this.
        let mut command = step::command(
            "cargo",
            &[
                "test",
                "--package",
                "skep-cli",
                "--test",
                "binary",
                self.test,
                "--",
                "--exact",
                "--nocapture",
            ],
        );
        command
            .env(self.variable, count.to_string())
            .env("SKEP_SEED", seed.to_string());
        let name = format!("{count} {} from seed {seed}", self.counts);
        step::run(&name, &mut command)
    }
}
