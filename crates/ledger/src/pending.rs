//! Calls that are under way: which calls of a grant have something reserved, and how much.
//!
//! The calls of a grant are numbered by its spender, from one and without a gap, in the order in
//! which they are reserved. So a number that is not pending and not the next one was there before,
//! and a verb that comes a second time is known by its number alone.

use crate::error::Error;
use domain::{Amount, GrantId};
use std::collections::BTreeMap;

/// The most calls of one grant that are under way at once.
pub(crate) const MAX: usize = 1_000;

/// What is reserved for each call that is under way, in the row of its grant.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Pending(BTreeMap<u64, Amount>);

/// What a reservation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is to be made.
    New,
    /// It stands already, of the same amount.
    Again,
}

impl Pending {
    /// Takes note of the call of this number, of a grant with so many calls before.
    pub(crate) fn reserve(
        &mut self,
        grant: GrantId,
        before: u64,
        call: u64,
        amount: Amount,
    ) -> Result<Asked, Error> {
        match self.0.get(&call) {
            Some(known) if *known == amount => return Ok(Asked::Again),
            Some(_) => return Err(Error::CallTaken { grant, call }),
            None => {}
        }
        if call <= before && call > 0 {
            return Err(Error::Settled { grant, call });
        }
        if call != before.saturating_add(1) {
            return Err(Error::Invalid(format!(
                "the next call of grant {grant} is {}, and not {call}",
                before.saturating_add(1)
            )));
        }
        if self.0.len() >= MAX {
            return Err(Error::Invalid(format!(
                "a grant has {MAX} calls under way at the most"
            )));
        }
        self.0.insert(call, amount);
        Ok(Asked::New)
    }

    /// What was reserved for a call, which is over.
    pub(crate) fn end(&mut self, call: u64) -> Option<Amount> {
        self.0.remove(&call)
    }

    pub(crate) fn total(&self) -> Amount {
        self.0.values().copied().fold(Amount::ZERO, Amount::plus)
    }
}
