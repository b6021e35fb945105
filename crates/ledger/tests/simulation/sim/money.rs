//! What was really spent, by every answer of the ledger, heard or not.

use super::{
    Broken,
    call::{Answer, Call},
};
use domain::{Amount, GrantId, RequestId, event::Body};
use skep_ledger::{Error, Exchange, Subject};
use std::collections::{BTreeMap, BTreeSet};

/// What a call was settled with.
type End = (Body, Option<Exchange>);

/// A call of a grant, by its number.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    Reserved(u64),
    GivenBack,
    Settled(Box<End>),
}

/// A grant with its calls.
struct Grant {
    request: RequestId,
    calls: BTreeMap<u64, Known>,
}

/// Tokens, which nothing but calls of models spends.
#[derive(Default)]
pub(crate) struct Money {
    totals: BTreeMap<RequestId, u64>,
    /// What was added under keys.
    added: BTreeMap<String, (RequestId, Amount)>,
    grants: BTreeMap<GrantId, Grant>,
    /// Requests that were removed.
    gone: BTreeSet<RequestId>,
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
            .flat_map(|grant| grant.calls.values())
            .fold((0, 0), |(least, most), call| match call {
                Known::Reserved(reserved) => (least, most + reserved),
                Known::GivenBack => (least, most),
                Known::Settled(end) => (least + took(&end.0), most + took(&end.0)),
            })
    }

    pub(crate) fn is_settled(&self, grant: GrantId, call: u64) -> bool {
        let known = self.grants.get(&grant);
        known.is_some_and(|known| matches!(known.calls.get(&call), Some(Known::Settled(_))))
    }

    /// The request that a grant spends for.
    pub(crate) fn request(&self, grant: GrantId) -> Option<RequestId> {
        self.grants.get(&grant).map(|grant| grant.request)
    }

    /// A request was removed, with its grants and keys.
    pub(crate) fn forget(&mut self, request: RequestId) {
        self.gone.insert(request);
        self.added.retain(|_, (known, _)| *known != request);
    }

    /// Whether the answer is that of what is gone.
    fn is_gone(&self, request: Option<RequestId>, answer: &Result<Answer, Error>) -> bool {
        let gone = request.is_some_and(|request| self.gone.contains(&request));
        gone && matches!(answer, Err(Error::NotFound { .. }))
    }

    pub(crate) fn answered(
        &mut self,
        call: &Call,
        answer: &Result<Answer, Error>,
        request: impl Fn(Subject) -> Option<RequestId>,
    ) -> Result<(), Broken> {
        match (call, answer) {
            (Call::TopUp(request, amount, key), answer) => {
                self.topped_up(*request, *amount, key.as_deref(), answer)
            }
            (Call::OpenGrant(lease, _), Ok(Answer::Grant(grant))) => {
                let known = Grant {
                    request: request(lease.subject).unwrap(),
                    calls: BTreeMap::new(),
                };
                self.grants.insert(*grant, known);
                Ok(())
            }
            (Call::Reserve(grant, call, amount), answer) => {
                self.reserved(*grant, *call, *amount, answer)
            }
            (Call::Unreserve(grant, call), Ok(_)) => {
                let known = self.known(*grant).calls.insert(*call, Known::GivenBack);
                Broken::unless(!matches!(known, None | Some(Known::Settled(_))), || {
                    format!("call {call} of {grant} was given back, and was {known:?}")
                })
            }
            (Call::Settle(grant, end), answer) => self.settled(*grant, end, answer),
            (Call::Model(grant, call, _), Ok(_)) => {
                let known = self.known(*grant).calls.get(call).cloned();
                Broken::unless(matches!(known, Some(Known::Reserved(_))), || {
                    format!("call {call} of {grant} is made, and is {known:?}")
                })
            }
            _ => Ok(()),
        }
    }

    /// What is added under a key is added once.
    fn topped_up(
        &mut self,
        request: RequestId,
        amount: Amount,
        key: Option<&str>,
        answer: &Result<Answer, Error>,
    ) -> Result<(), Broken> {
        if self.is_gone(Some(request), answer) {
            return Ok(());
        }
        let known = key.and_then(|key| self.added.get(key));
        match (known, answer) {
            (Some(known), Ok(_)) if *known == (request, amount) => Ok(()),
            (Some(known), Err(Error::KeyTaken { .. })) if *known != (request, amount) => Ok(()),
            (None, Ok(_)) => {
                *self.totals.entry(request).or_default() += amount.tokens;
                if let Some(key) = key {
                    self.added.insert(key.into(), (request, amount));
                }
                Ok(())
            }
            (None, Err(Error::Ended { .. })) => Ok(()),
            (known, answer) => Err(Broken::new(format!(
                "{key:?} was used for {known:?}, and was answered with {answer:?}"
            ))),
        }
    }

    /// A call is reserved once, with one amount.
    fn reserved(
        &mut self,
        grant: GrantId,
        call: u64,
        amount: Amount,
        answer: &Result<Answer, Error>,
    ) -> Result<(), Broken> {
        if self.is_gone(self.request(grant), answer) {
            return Ok(());
        }
        let known = self.known(grant).calls.get(&call).cloned();
        let holds = match (&known, answer) {
            (None, Ok(_)) => {
                let known = Known::Reserved(amount.tokens);
                self.known(grant).calls.insert(call, known);
                true
            }
            (Some(Known::Reserved(known)), Ok(_)) => *known == amount.tokens,
            (Some(_), Ok(_)) => false,
            (known, Err(Error::CallTaken { .. })) => {
                matches!(known, Some(Known::Reserved(known)) if *known != amount.tokens)
            }
            (known, Err(Error::Settled { .. })) => {
                matches!(known, Some(Known::GivenBack | Known::Settled(_)))
            }
            (_, Err(Error::Refused(_))) => true,
            (_, Err(_)) => false,
        };
        Broken::unless(holds, || {
            format!("call {call} of {grant} is {known:?}, and {amount:?} was answered: {answer:?}")
        })
    }

    /// A call is settled once, and again with the same only.
    fn settled(
        &mut self,
        grant: GrantId,
        end: &End,
        answer: &Result<Answer, Error>,
    ) -> Result<(), Broken> {
        let Body::ModelCalled { call, .. } = &end.0 else {
            return Ok(());
        };
        if self.is_gone(self.request(grant), answer) {
            return Ok(());
        }
        let known = self.known(grant).calls.get(call).cloned();
        let holds = match (&known, answer) {
            (Some(Known::Reserved(_)), Ok(_)) => {
                let known = Known::Settled(Box::new(end.clone()));
                self.known(grant).calls.insert(*call, known);
                true
            }
            (Some(Known::Settled(known)), Ok(_)) => **known == *end,
            (Some(Known::Settled(known)), Err(Error::CallTaken { .. })) => **known != *end,
            (Some(Known::Reserved(_)), Err(_)) => true,
            _ => false,
        };
        Broken::unless(holds, || {
            format!("call {call} of {grant} is {known:?}, and {end:?} was answered: {answer:?}")
        })
    }

    fn known(&mut self, grant: GrantId) -> &mut Grant {
        self.grants
            .get_mut(&grant)
            .expect("a grant that was opened")
    }
}

fn took(body: &Body) -> u64 {
    match body {
        Body::ModelCalled { spent, .. } => spent.tokens,
        _ => 0,
    }
}
