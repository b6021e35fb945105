//! What is spent: tokens, money, wall time and iterations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Money in millionths of a US dollar. Integer, so that sums are exact.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    /// Dollars, with as many digits as small sums need: `$0.00`, `$0.0031`, `$12.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if self.0 == 0 || self.0 >= 100_000 {
            write!(f, "${dollars}.{:02}", rest / 10_000)
        } else {
            write!(f, "${dollars}.{:04}", rest.div_ceil(100))
        }
    }
}

/// An amount in each of the four measures of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// Tokens of models, input and output together.
    #[serde(default)]
    pub tokens: u64,
    /// Money.
    #[serde(default)]
    pub money: Micros,
    /// Wall time of attempts, in milliseconds.
    #[serde(default)]
    pub wall_ms: u64,
    /// Turns of agents.
    #[serde(default)]
    pub iterations: u64,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self::each(0);
    /// So much that it is no limit, and yet small enough that sums of many do not overflow.
    pub const UNBOUNDED: u64 = 1 << 52;

    const fn each(value: u64) -> Self {
        Self {
            tokens: value,
            money: Micros(value),
            wall_ms: value,
            iterations: value,
        }
    }

    /// An amount that limits nothing.
    #[must_use]
    pub const fn unbounded() -> Self {
        Self::each(Self::UNBOUNDED)
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            tokens: f(self.tokens, other.tokens),
            money: Micros(f(self.money.0, other.money.0)),
            wall_ms: f(self.wall_ms, other.wall_ms),
            iterations: f(self.iterations, other.iterations),
        }
    }

    /// The sum, measure by measure.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// The difference, measure by measure, nothing below zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// The smaller of the two in each measure.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.zip(other, u64::min)
    }

    /// Whether every measure of `other` fits into this.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.minus(self) == Self::ZERO
    }

    /// The first measure of which `other` wants more than there is here.
    #[must_use]
    pub fn lacking(self, other: Self) -> Option<Measure> {
        let lack = other.minus(self);
        [
            (lack.tokens, Measure::Tokens),
            (lack.money.0, Measure::Money),
            (lack.wall_ms, Measure::WallTime),
            (lack.iterations, Measure::Iterations),
        ]
        .into_iter()
        .find_map(|(amount, measure)| (amount > 0).then_some(measure))
    }
}

/// One of the four things a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Tokens of models.
    Tokens,
    /// Money.
    Money,
    /// Wall time.
    WallTime,
    /// Turns of agents.
    Iterations,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::WallTime => "wall time",
            Self::Iterations => "iterations",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_with_the_digits_it_needs() {
        let shown = |micros| Micros(micros).to_string();
        assert_eq!(shown(0), "$0.00");
        assert_eq!(shown(3_100), "$0.0031");
        assert_eq!(shown(1), "$0.0001");
        assert_eq!(shown(12_500_000), "$12.50");
    }

    #[test]
    fn what_is_lacking_is_named() {
        let have = Amount {
            tokens: 10,
            ..Amount::unbounded()
        };
        let want = Amount {
            tokens: 11,
            ..Amount::ZERO
        };
        assert_eq!(have.lacking(want), Some(Measure::Tokens));
        assert!(!have.covers(want));
    }
}
