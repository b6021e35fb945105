//! Budgets as people write them.

use domain::{Amount, Micros};

/// What a person is willing to spend; what is not set is left to the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Budget {
    /// Tokens, input and output together.
    pub(crate) tokens: Option<u64>,
    /// Money.
    pub(crate) money: Option<Micros>,
}

impl Budget {
    /// Reads `200k`, `1.5M`, `300000`, `$2` or `$0.50`; both, with a comma between.
    ///
    /// # Errors
    /// Says what is wrong, with an example.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut budget = Self::default();
        for part in text.split(',') {
            let part = part.trim();
            let one = match part.strip_prefix('$') {
                Some(dollars) => Self {
                    money: Some(Micros(
                        scaled(dollars, 1_000_000).ok_or_else(|| wrong(part))?,
                    )),
                    tokens: None,
                },
                None => Self {
                    tokens: Some(tokens(part).ok_or_else(|| wrong(part))?),
                    money: None,
                },
            };
            budget = budget.or(one);
        }
        let zero = budget.tokens == Some(0) || budget.money == Some(Micros(0));
        if zero {
            return Err(format!("a budget of `{text}` lets nothing run"));
        }
        Ok(budget)
    }

    /// This, and what `other` says where this says nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.or(other.tokens),
            money: self.money.or(other.money),
        }
    }

    /// The amount that is granted: what is not set does not limit. None where nothing is set.
    pub(crate) fn amount(self) -> Option<Amount> {
        if self == Self::default() {
            return None;
        }
        let unbounded = Amount::unbounded();
        Some(Amount {
            tokens: self.tokens.unwrap_or(unbounded.tokens),
            money: self.money.unwrap_or(unbounded.money),
            ..unbounded
        })
    }
}

fn wrong(text: &str) -> String {
    format!("`{text}` is not a budget: write tokens like `200k`, or money like `$2`")
}

fn tokens(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (text.get(..at)?, 1_000),
        (at, 'm' | 'M') => (text.get(..at)?, 1_000_000),
        _ => (text, 1),
    };
    scaled(number, unit)
}

/// A decimal number times a unit, exactly; none if it is not one, or has digits below the unit.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        if place == 0 && digit != b'0' {
            return None;
        }
        total = total.checked_add(place * u64::from(digit - b'0'))?;
    }
    (total < Amount::UNBOUNDED).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<u64>, Option<u64>) {
        let budget = Budget::parse(text).unwrap();
        (budget.tokens, budget.money.map(|money| money.0))
    }

    #[test]
    fn budgets_are_tokens_or_dollars_or_both() {
        assert_eq!(read("200k"), (Some(200_000), None));
        assert_eq!(read("1.5M"), (Some(1_500_000), None));
        assert_eq!(read("300000"), (Some(300_000), None));
        assert_eq!(read("$2"), (None, Some(2_000_000)));
        assert_eq!(read("$0.50"), (None, Some(500_000)));
        assert_eq!(read("$.5, 100k"), (Some(100_000), Some(500_000)));
    }

    #[test]
    fn what_is_not_a_budget_is_refused_with_an_example() {
        for text in [
            "",
            "k",
            "$",
            "-5",
            "2 dollars",
            "1.2345678$",
            "$1.0000001",
            "0",
            "$0",
            "1e9",
            "99999999999M",
        ] {
            assert!(Budget::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            Budget::parse("lots").unwrap_err(),
            "`lots` is not a budget: write tokens like `200k`, or money like `$2`"
        );
    }

    #[test]
    fn what_is_not_set_does_not_limit() {
        assert_eq!(Budget::default().amount(), None);
        let amount = Budget::parse("$2").unwrap().amount().unwrap();
        assert_eq!(amount.money.0, 2_000_000);
        assert_eq!(amount.tokens, Amount::UNBOUNDED);
    }
}
