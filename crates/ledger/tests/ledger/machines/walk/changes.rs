//! Verbs of integrators.

use super::{super::draw::ChangeEnd, Walk, agree};
use domain::{ChangeState, Failure, Reason, machine::Machine, state::ChangeCommand};
use ledger::{ChangeOutcome, MAX_LOST_INTEGRATORS, MAX_POSTPONED};

impl Walk<'_> {
    pub(super) async fn merge(&mut self) {
        let expected = match self.merging {
            Some(_) => None,
            None => self.model.next_change(),
        };
        let claimed = self.place.claim_change().await;
        let found = claimed.as_ref().map(|it| self.index(it.change.job));
        assert_eq!(found, expected);
        let (Some(job), Some(claimed)) = (found, claimed) else {
            return;
        };
        let known = &mut self.model.jobs[job];
        known.change(ChangeCommand::Merge);
        let given_up = known.unmerged >= MAX_LOST_INTEGRATORS;
        assert_eq!(claimed.given_up.is_some(), given_up);
        assert_eq!(claimed.change.integrated.is_some(), known.intended);
        self.merging = Some((job, claimed));
    }

    pub(super) async fn check_change(&mut self) {
        let Some((job, claimed)) = &self.merging else {
            return;
        };
        let result = self.place.ledger.change_checking(&claimed.lease).await;
        let known = &mut self.model.jobs[*job];
        let can = |state: ChangeState| state.next(ChangeCommand::Check).is_some();
        let allowed = known.change.is_some_and(can);
        agree(&result, allowed, "checking a merge");
        if allowed {
            known.change(ChangeCommand::Check);
        }
    }

    pub(super) async fn land(&mut self) {
        let Some((job, claimed)) = &self.merging else {
            return;
        };
        let result = self.place.ledger.land_change(&claimed.lease, "e".into());
        let result = result.await;
        let known = &mut self.model.jobs[*job];
        let can = |state: ChangeState| state.next(ChangeCommand::Integrate).is_some();
        agree(
            &result,
            known.change.is_some_and(can),
            "being about to land",
        );
        known.intended |= result.is_ok();
    }

    pub(super) async fn settle_change(&mut self, end: ChangeEnd) {
        let Some((job, claimed)) = self.merging.take() else {
            return;
        };
        let known = &mut self.model.jobs[job];
        known.unmerged = 0;
        let (command, outcome) = match end {
            ChangeEnd::Integrate => (
                ChangeCommand::Integrate,
                ChangeOutcome::Integrated { commit: "e".into() },
            ),
            ChangeEnd::Conflict => (
                ChangeCommand::Conflict,
                ChangeOutcome::Conflicted {
                    files: vec!["a".into()],
                },
            ),
            ChangeEnd::Reject => (
                ChangeCommand::Reject,
                ChangeOutcome::Rejected {
                    failure: Failure::new(Reason::ChecksFailed, ""),
                },
            ),
            ChangeEnd::Requeue => {
                known.intended = false;
                (ChangeCommand::Requeue, ChangeOutcome::Requeued)
            }
            ChangeEnd::Postpone { may_have_landed } => {
                known.intended &= may_have_landed;
                known.postponed += 1;
                let command = if known.postponed < MAX_POSTPONED {
                    ChangeCommand::Requeue
                } else {
                    ChangeCommand::Reject
                };
                let failure = Failure::new(Reason::Storage, "");
                let outcome = ChangeOutcome::Postponed {
                    failure,
                    may_have_landed,
                };
                (command, outcome)
            }
        };
        known.change(command);
        let ledger = &self.place.ledger;
        ledger.settle_change(&claimed.lease, outcome).await.unwrap();
        if matches!(end, ChangeEnd::Postpone { .. }) && command == ChangeCommand::Requeue {
            self.model.jobs[job].until = self.change_until(job).await;
        }
        self.late = Some(claimed.lease);
        self.model.follow();
    }
}
