//! What became of each of several sandboxes that a command line names.

use crate::{
    context::Context,
    exit::Exit,
    report::{Error, Report},
};
use domain::SandboxId;
use serde::Serialize;

/// What became of one.
#[derive(Serialize)]
pub(super) struct Outcome {
    id: String,
    /// Its name, if it has one.
    name: Option<String>,
    /// Why it was not done; nothing where it was.
    error: Option<Report>,
}

/// What became of each. One that fails keeps none of the others from being done, nor does an output that
/// cannot be written.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub(super) struct Outcomes {
    all: Vec<Outcome>,
    #[serde(skip)]
    worst: Option<Exit>,
    /// Why what was done could not be told: the first.
    #[serde(skip)]
    unsaid: Option<Error>,
}

/// What was done, or that the program was told to end before.
pub(super) fn flat<T>(done: Result<Result<T, server::standing::Error>, Error>) -> Result<T, Error> {
    done?.map_err(|error| server::Error::from(error).into())
}

impl Outcomes {
    /// Notes what became of one, and tells it. False where no other is to be tried: the program was told
    /// to end.
    pub(super) fn note(
        &mut self,
        context: &Context,
        (id, name): (SandboxId, Option<String>),
        done: Result<(), Error>,
    ) -> bool {
        let error = done.as_ref().err().map(Report::of);
        let ends = |report: &Report| report.is_silent() && report.exit != Exit::OutputClosed;
        let goes_on = !error.as_ref().is_some_and(ends);
        match &error {
            None if context.output.is_json() => {}
            None => {
                if let Err(error) = context.output.say(&format!("{id}\n")) {
                    self.unsaid.get_or_insert(error);
                }
            }
            Some(report) => {
                context.output.report(report);
                let worst = self.worst.unwrap_or(Exit::Done);
                self.worst = Some(worst.or_worse(report.exit));
            }
        }
        let id = id.to_string();
        self.all.push(Outcome { id, name, error });
        goes_on
    }

    /// The ids of those for which it was done.
    pub(super) fn done(&self) -> Vec<String> {
        let done = self.all.iter().filter(|it| it.error.is_none());
        done.map(|it| it.id.clone()).collect()
    }

    /// How the program ends: as for the worst of them.
    ///
    /// # Errors
    /// When what was done could not be told.
    pub(super) fn exit(&mut self) -> Result<Exit, Error> {
        match self.unsaid.take() {
            Some(unsaid) => Err(unsaid),
            None => Ok(self.worst.unwrap_or(Exit::Done)),
        }
    }
}
