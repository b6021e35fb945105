//! Changes: a claimed change is merged, checked, landed and settled.

use crate::{
    error::{Error, Trouble},
    lease::{self, Lease},
    ledger::Ledger,
    postpone, progress,
    sql::{Key, id, one, run, word},
    transition::{self, Landing},
    writer::Verb,
};
use domain::{
    ChangeState, Failure, Reason, RequestId, SessionId, entity::ObjectName, event::Body,
    machine::Machine, state::ChangeCommand,
};

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It is on the integration branch.
    Integrated {
        /// As this commit.
        commit: ObjectName,
    },
    /// It does not merge.
    Conflicted {
        /// The files.
        files: Vec<String>,
    },
    /// The merged tree did not pass, or it was withdrawn.
    Rejected {
        /// Why.
        failure: Failure,
    },
    /// Another turn, for whoever claims it next: its holder ends. What was intended is void.
    Requeued,
    /// Another turn after a while: the machine has a fault that may pass, or the tip moved again
    /// and again. It waits longer each time. The [`crate::MAX_POSTPONED`]th time it is rejected for
    /// this failure instead.
    Postponed {
        /// What keeps it.
        failure: Failure,
        /// Whether what was intended may be on the branch for all that; it is void otherwise.
        may_have_landed: bool,
    },
}

impl Ledger {
    /// The merge worked; the merged tree is checked.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`].
    pub async fn change_checking(&self, lease: &Lease) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("note that a merge is checked", move |verb| {
            lease::verify(verb, &lease)?;
            let change = lease.change()?;
            transition::change(verb, change, ChangeCommand::Check, Landing::default())?;
            Ok(())
        })
        .await
    }

    /// Stores which commit is about to land. When this returns, the branch may be moved to it;
    /// whoever claims the change after a crash sees it in [`domain::entity::Change::integrated`].
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`].
    pub async fn land_change(&self, lease: &Lease, integrated: ObjectName) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("store what is about to land", move |verb| {
            land(verb, &lease, &integrated)
        })
        .await
    }

    /// Settles a change and ends the lease. What follows for other jobs and the request is part
    /// of it.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Illegal`].
    pub async fn settle_change(&self, lease: &Lease, outcome: ChangeOutcome) -> Result<(), Error> {
        let lease = lease.clone();
        self.write("settle a change", move |verb| settle(verb, &lease, outcome))
            .await
    }

    /// Records that the integration branch of the user's repository was moved, or why it was not.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn published(
        &self,
        request: RequestId,
        branch: String,
        commit: ObjectName,
        refused: Option<String>,
    ) -> Result<(), Error> {
        self.write("record a publication", move |verb| {
            let session: SessionId = one(
                verb,
                "SELECT session FROM requests WHERE id = ?1",
                [request.key()],
                |row| id(row, 0),
            )?
            .ok_or_else(|| Error::missing("request", request))?;
            verb.event(
                session,
                Some(request),
                Body::Published {
                    request,
                    branch,
                    commit,
                    refused,
                },
            );
            Ok(())
        })
        .await
    }
}

fn land(verb: &mut Verb<'_>, lease: &Lease, integrated: &ObjectName) -> Result<(), Trouble> {
    lease::verify(verb, lease)?;
    let change = lease.change()?;
    let state: ChangeState = one(
        verb,
        "SELECT state FROM changes WHERE id = ?1",
        [change.key()],
        |row| word(row, 0),
    )?
    .ok_or_else(|| Error::missing("change", change))?;
    // Only what may be integrated may be about to land.
    state.apply(ChangeCommand::Integrate)?;
    run(
        verb,
        "UPDATE changes SET integrated = ?2 WHERE id = ?1",
        (change.key(), integrated),
    )?;
    Ok(())
}

fn settle(verb: &mut Verb<'_>, lease: &Lease, outcome: ChangeOutcome) -> Result<(), Trouble> {
    let change = lease.change()?;
    lease::end(verb, lease)?;
    postpone::found(verb, change)?;
    let void = Landing {
        void: true,
        ..Landing::default()
    };
    let (command, landing) = match outcome {
        ChangeOutcome::Integrated { commit } => (
            ChangeCommand::Integrate,
            Landing {
                integrated: Some(commit),
                ..Landing::default()
            },
        ),
        ChangeOutcome::Conflicted { files } => (
            ChangeCommand::Conflict,
            Landing {
                failure: Some(Failure::new(Reason::Conflict, named(&files))),
                conflicts: files,
                ..void
            },
        ),
        ChangeOutcome::Rejected { failure } => (
            ChangeCommand::Reject,
            Landing {
                failure: Some(failure),
                ..void
            },
        ),
        ChangeOutcome::Requeued => (ChangeCommand::Requeue, void),
        ChangeOutcome::Postponed {
            failure,
            may_have_landed,
        } => {
            let (command, until) = postpone::change(verb, change)?;
            (
                command,
                Landing {
                    failure: Some(failure),
                    void: !may_have_landed,
                    until,
                    ..Landing::default()
                },
            )
        }
    };
    let request = transition::change(verb, change, command, landing)?;
    progress::follow(verb, request)
}

/// The first few of these files.
fn named(files: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = files.iter().take(SHOWN).map(String::as_str).collect();
    match files.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
