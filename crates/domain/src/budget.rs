//! Accounts that conserve what they hold.
//!
//! At every moment `total + overdraft = free + reserved + committed`. A child's account is carved
//! from its parent: the parent holds the child's total as reserved until the child is closed, and
//! then commits what the child committed. What a provider took beyond a reservation is recorded
//! as it was, as overdraft, and closes the account.

use crate::amount::{Amount, Measure};
use serde::{Deserialize, Serialize};

/// An account: what a spender may use and has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// What was granted.
    pub total: Amount,
    /// What is neither spoken for nor spent.
    pub free: Amount,
    /// What is spoken for: estimates of calls under way, totals of open children.
    pub reserved: Amount,
    /// What was spent.
    pub committed: Amount,
    /// What was spent beyond the total.
    pub overdraft: Amount,
    /// Whether nothing more may be reserved.
    pub closed: bool,
}

/// Why an account refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is not enough left of one measure.
    #[error("the budget has not enough {0} left")]
    Exhausted(Measure),
    /// The account was closed.
    #[error("the budget is closed")]
    Closed,
    /// More was settled or released than was reserved.
    #[error("more was settled than was reserved")]
    NotReserved,
}

impl Account {
    /// A new account with all of `total` free.
    #[must_use]
    pub fn new(total: Amount) -> Self {
        Self {
            total,
            free: total,
            ..Self::default()
        }
    }

    /// Moves `amount` from free to reserved, before it is spent.
    ///
    /// # Errors
    /// When the account is closed or has less free in some measure; it is unchanged then.
    pub fn reserve(self, amount: Amount) -> Result<Self, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        if let Some(measure) = self.free.lacking(amount) {
            return Err(Refused::Exhausted(measure));
        }
        Ok(Self {
            free: self.free.minus(amount),
            reserved: self.reserved.plus(amount),
            ..self
        })
    }

    /// Ends a reservation of `reserved` of which `spent` was used; the rest is free again.
    ///
    /// Spending more than was reserved is taken from what is free, and beyond that recorded as
    /// overdraft, which closes the account.
    ///
    /// # Errors
    /// When less than `reserved` is reserved.
    pub fn settle(self, reserved: Amount, spent: Amount) -> Result<Self, Refused> {
        if !self.reserved.covers(reserved) {
            return Err(Refused::NotReserved);
        }
        let freed = self.free.plus(reserved.minus(spent));
        let beyond = spent.minus(reserved);
        let overdraft = beyond.minus(freed);
        Ok(Self {
            total: self.total,
            free: freed.minus(beyond),
            reserved: self.reserved.minus(reserved),
            committed: self.committed.plus(spent),
            overdraft: self.overdraft.plus(overdraft),
            closed: self.closed || overdraft != Amount::ZERO,
        })
    }

    /// Adds to the total, and opens the account again if that pays the overdraft.
    #[must_use]
    pub fn top_up(self, amount: Amount) -> Self {
        let debt = self.overdraft.minus(amount);
        Self {
            total: self.total.plus(amount),
            free: self.free.plus(amount.minus(self.overdraft)),
            overdraft: debt,
            closed: self.closed && debt != Amount::ZERO,
            ..self
        }
    }

    /// Closes the account: what is still reserved counts as spent, since it may have been.
    #[must_use]
    pub fn close(self) -> Self {
        Self {
            reserved: Amount::ZERO,
            committed: self.committed.plus(self.reserved),
            closed: true,
            ..self
        }
    }

    /// Whether `total + overdraft = free + reserved + committed`.
    #[must_use]
    pub fn conserves(self) -> bool {
        self.total.plus(self.overdraft) == self.free.plus(self.reserved).plus(self.committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Micros;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Operation {
        Reserve(Amount),
        Settle(Amount),
        TopUp(Amount),
        Close,
    }

    fn amounts() -> impl Strategy<Value = Amount> {
        (0..100u64, 0..100u64, 0..100u64, 0..100u64).prop_map(
            |(tokens, money, wall_ms, iterations)| Amount {
                tokens,
                money: Micros(money),
                wall_ms,
                iterations,
            },
        )
    }

    fn operations() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => amounts().prop_map(Operation::Reserve),
            4 => amounts().prop_map(Operation::Settle),
            1 => amounts().prop_map(Operation::TopUp),
            1 => Just(Operation::Close),
        ]
    }

    proptest! {
        #[test]
        fn every_sequence_of_operations_conserves_the_budget(
            total in amounts(),
            sequence in proptest::collection::vec(operations(), 0..60),
        ) {
            let mut account = Account::new(total);
            let mut held: Vec<Amount> = Vec::new();
            let mut spent_in_all = Amount::ZERO;
            for operation in sequence {
                match operation {
                    Operation::Reserve(amount) => {
                        if let Ok(next) = account.reserve(amount) {
                            account = next;
                            held.push(amount);
                        }
                    }
                    Operation::Settle(spent) => {
                        if let Some(reserved) = held.pop() {
                            account = account.settle(reserved, spent).unwrap();
                            spent_in_all = spent_in_all.plus(spent);
                        }
                    }
                    Operation::TopUp(amount) => account = account.top_up(amount),
                    Operation::Close => {
                        spent_in_all = held.drain(..).fold(spent_in_all, Amount::plus);
                        account = account.close();
                    }
                }
                prop_assert!(account.conserves(), "{account:?}");
                prop_assert_eq!(account.committed, spent_in_all);
            }
        }
    }

    #[test]
    fn overspending_is_recorded_as_it_was_and_closes_the_account() {
        let reserve = Amount {
            tokens: 10,
            ..Amount::ZERO
        };
        let account = Account::new(reserve).reserve(reserve).unwrap();
        let account = account
            .settle(
                reserve,
                Amount {
                    tokens: 25,
                    ..Amount::ZERO
                },
            )
            .unwrap();
        assert_eq!(account.committed.tokens, 25);
        assert_eq!(account.overdraft.tokens, 15);
        assert_eq!(account.reserve(Amount::ZERO), Err(Refused::Closed));
    }

    #[test]
    fn closing_counts_what_was_not_settled_as_spent() {
        let account = Account::new(Amount {
            tokens: 10,
            ..Amount::ZERO
        })
        .reserve(Amount {
            tokens: 4,
            ..Amount::ZERO
        })
        .unwrap()
        .close();
        assert_eq!(account.committed.tokens, 4);
        assert!(account.conserves());
    }
}
