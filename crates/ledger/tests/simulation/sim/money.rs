//! What was really spent, by every answer of the ledger, heard or not.

use super::{
    Broken,
    call::{Answer, Call},
};
use domain::{Amount, GrantId, RequestId, event::Body};
use skep_ledger::{Error, Subject};
use std::collections::{BTreeMap, BTreeSet};

/// A grant: what is reserved and not settled, and what was settled.
struct Known {
    request: RequestId,
    reserved: u64,
    spent: u64,
}

/// Tokens, which nothing but calls of models spends.
#[derive(Default)]
pub(crate) struct Money {
    totals: BTreeMap<RequestId, u64>,
    grants: BTreeMap<GrantId, Known>,
    settled: BTreeSet<(GrantId, u64)>,
}

impl Money {
    pub(crate) fn opens(&mut self, request: RequestId, budget: Amount) {
        self.totals.insert(request, budget.tokens);
    }

    pub(crate) fn total(&self, request: RequestId) -> u64 {
        self.totals.get(&request).copied().unwrap_or_default()
    }

    /// What a request has spent at least, and at the most: a reservation counts once its grant is
    /// closed.
    pub(crate) fn spent(&self, request: RequestId) -> (u64, u64) {
        self.grants
            .values()
            .filter(|grant| grant.request == request)
            .fold((0, 0), |(least, most), grant| {
                (least + grant.spent, most + grant.spent + grant.reserved)
            })
    }

    pub(crate) fn is_settled(&self, grant: GrantId, call: u64) -> bool {
        self.settled.contains(&(grant, call))
    }

    pub(crate) fn answered(
        &mut self,
        call: &Call,
        answer: &Result<Answer, Error>,
        request: impl Fn(Subject) -> Option<RequestId>,
    ) -> Result<(), Broken> {
        let Ok(answer) = answer else { return Ok(()) };
        match (call, answer) {
            (Call::TopUp(request, amount), _) => {
                *self.totals.entry(*request).or_default() += amount.tokens;
            }
            (Call::OpenGrant(lease, _), Answer::Grant(grant)) => {
                let request = request(lease.subject).unwrap();
                let known = Known {
                    request,
                    reserved: 0,
                    spent: 0,
                };
                self.grants.insert(*grant, known);
            }
            (Call::Reserve(grant, amount), _) => self.known(*grant).reserved += amount.tokens,
            (Call::Unreserve(grant, amount), _) => self.known(*grant).reserved -= amount.tokens,
            (Call::Settle(grant, reserved, body), _) => {
                let Body::ModelCalled { call, spent, .. } = body else {
                    return Ok(());
                };
                Broken::unless(self.settled.insert((*grant, *call)), || {
                    format!("call {call} of {grant} was settled twice")
                })?;
                let known = self.known(*grant);
                known.reserved -= reserved.tokens;
                known.spent += spent.tokens;
            }
            (Call::Model(grant, ..), _) => {
                let reserved = self.known(*grant).reserved;
                Broken::unless(reserved > 0, || {
                    format!("a call of {grant} is made, and nothing is reserved")
                })?;
            }
            _ => {}
        }
        Ok(())
    }

    fn known(&mut self, grant: GrantId) -> &mut Known {
        self.grants
            .get_mut(&grant)
            .expect("a grant that was opened")
    }
}
