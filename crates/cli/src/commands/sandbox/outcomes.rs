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

/// What became of each. One that fails keeps none of the others from being done.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub(super) struct Outcomes {
    all: Vec<Outcome>,
    #[serde(skip)]
    worst: Option<Exit>,
}

impl Outcomes {
    /// Notes what became of one, and tells it. False where no other is to be tried: the program was told
    /// to end, or nobody listens any more.
    pub(super) fn note(
        &mut self,
        context: &Context,
        (id, name): (SandboxId, Option<String>),
        done: Result<(), Error>,
    ) -> Result<bool, Error> {
        let error = done.as_ref().err().map(Report::of);
        let goes_on = error.as_ref().is_none_or(|report| !report.is_silent());
        match &error {
            None if context.output.is_json() => {}
            None => context.output.say(&format!("{id}\n"))?,
            Some(report) => {
                context.output.report(report);
                let worst = self.worst.unwrap_or(Exit::Done);
                self.worst = Some(worst.or_worse(report.exit));
            }
        }
        let id = id.to_string();
        self.all.push(Outcome { id, name, error });
        Ok(goes_on)
    }

    /// The ids of those for which it was done.
    pub(super) fn done(&self) -> Vec<String> {
        let done = self.all.iter().filter(|it| it.error.is_none());
        done.map(|it| it.id.clone()).collect()
    }

    /// How the program ends: as for the worst of them.
    pub(super) fn exit(&self) -> Exit {
        self.worst.unwrap_or(Exit::Done)
    }
}
