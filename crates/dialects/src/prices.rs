//! What tokens cost.
//!
//! Prices are list prices for standard service, in US dollars for a million tokens, as the
//! vendors published them in the month that stands beside each group. Discounts, priority
//! tiers and the fees of a vendor's own tools are not in them. A model that is not here, and
//! not in the configuration, has no known price.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// Money in millionths of a US dollar.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// The sum, at most the largest amount that there is.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::fmt::Display for Micros {
    /// In dollars: cents where that says something, else as many digits as it takes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dollars, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros % 10_000 == 0 || self.0 >= 1_000_000 {
            write!(f, "${dollars}.{:02}", micros / 10_000)
        } else {
            write!(f, "${dollars}.{micros:06}")
        }
    }
}

/// What the tokens of a model cost: micro-dollars for a million tokens of each kind, so that
/// $3 per million is 3,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input at the full price.
    pub input: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Input read from a cache; `input` where the provider has no price for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Input written to a cache; `input` where the provider has no price for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Input written to a cache for an hour; `cache_write` where there is no such thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_long: Option<u64>,
    /// Where long requests cost more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongContext>,
}

/// What a request costs when it is long: all its tokens, not only those above the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongContext {
    /// A request with more input tokens than this, cached ones included, is long.
    pub above: u64,
    /// All kinds of input cost this many percent of the short price.
    pub input_percent: u64,
    /// Output costs this many percent of the short price.
    pub output_percent: u64,
}

impl Price {
    /// A price without anything about caches or length.
    #[must_use]
    pub const fn flat(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            cache_read: None,
            cache_write: None,
            cache_write_long: None,
            long: None,
        }
    }

    /// What one call cost, rounded up. `None` when its input or output is unknown: unknown is
    /// never zero.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Micros> {
        let (input, output) = (usage.input?, usage.output?);
        let write_rate = self.cache_write.unwrap_or(self.input);
        let all_writes = usage.cache_write.unwrap_or(0);
        let long_writes = usage.cache_write_long.unwrap_or(0).min(all_writes);
        let parts = [
            (input, self.input),
            (
                usage.cache_read.unwrap_or(0),
                self.cache_read.unwrap_or(self.input),
            ),
            (all_writes - long_writes, write_rate),
            (long_writes, self.cache_write_long.unwrap_or(write_rate)),
        ];
        let input_cost: u128 = parts
            .iter()
            .map(|(tokens, rate)| u128::from(*tokens) * u128::from(*rate))
            .sum();
        let output_cost = u128::from(output) * u128::from(self.output);
        let (input_percent, output_percent) = match self.long {
            Some(long) if usage.total_input()? > long.above => {
                (long.input_percent, long.output_percent)
            }
            _ => (100, 100),
        };
        let total =
            input_cost * u128::from(input_percent) + output_cost * u128::from(output_percent);
        Some(Micros(
            u64::try_from(total.div_ceil(100_000_000)).unwrap_or(u64::MAX),
        ))
    }

    /// The most that a call with this much input and output can cost, for a reservation: all of
    /// the input at the dearest rate that it can have.
    #[must_use]
    pub fn ceiling(&self, input: u64, output: u64) -> Micros {
        let usage = Usage {
            input: Some(0),
            output: Some(output),
            cache_write: Some(input),
            ..Usage::default()
        };
        let dearest = Self {
            cache_write: Some(self.cache_write.unwrap_or(0).max(self.input)),
            ..*self
        };
        dearest.cost(&usage).unwrap_or(Micros(u64::MAX))
    }
}

/// The known prices.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    overrides: BTreeMap<String, Price>,
}

impl Prices {
    /// The prices that Skep ships with.
    #[must_use]
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Sets the price of a model, for a configuration that knows better.
    pub fn set(&mut self, model: impl Into<String>, price: Price) {
        self.overrides.insert(model.into(), price);
    }

    /// The price of a model. The name may carry the vendor's own prefix (`anthropic/`,
    /// `openai/`) and the date of a snapshot (`-20251001`, `-2025-10-01`, `@20251001`,
    /// `-latest`).
    #[must_use]
    pub fn get(&self, model: &str) -> Option<Price> {
        let vendorless = model
            .strip_prefix("anthropic/")
            .or_else(|| model.strip_prefix("openai/"))
            .unwrap_or(model);
        let dateless = without_date(vendorless);
        [model, vendorless, dateless].into_iter().find_map(|name| {
            self.overrides.get(name).copied().or_else(|| {
                TABLE
                    .iter()
                    .find(|(own, _)| *own == name)
                    .map(|(_, price)| *price)
            })
        })
    }

    /// What a call of this model cost. `None` when the price or the usage is unknown.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Micros> {
        self.get(model)?.cost(usage)
    }
}

/// A model's name without the date of its snapshot.
fn without_date(name: &str) -> &str {
    if let Some(base) = name.strip_suffix("-latest") {
        return base;
    }
    for (length, pattern) in [(9, "-dddddddd"), (9, "@dddddddd"), (11, "-dddd-dd-dd")] {
        let Some(at) = name.len().checked_sub(length).filter(|at| *at > 0) else {
            continue;
        };
        let Some(tail) = name.get(at..) else { continue };
        let fits = tail.bytes().zip(pattern.bytes()).all(|(byte, want)| {
            if want == b'd' {
                byte.is_ascii_digit()
            } else {
                byte == want
            }
        });
        if fits {
            return name.get(..at).unwrap_or(name);
        }
    }
    name
}

/// Anthropic writes to the cache at 1.25 times the input price, for an hour at twice.
const fn claude(input: u64, cache_read: u64, output: u64) -> Price {
    Price {
        input,
        output,
        cache_read: Some(cache_read),
        cache_write: Some(input / 4 * 5),
        cache_write_long: Some(input * 2),
        long: None,
    }
}

/// OpenAI's models without a price for cache writes.
const fn gpt(input: u64, cache_read: u64, output: u64) -> Price {
    Price {
        cache_read: Some(cache_read),
        ..Price::flat(input, output)
    }
}

/// OpenAI's newer models, which write to the cache at 1.25 times the input price.
const fn gpt_writing(input: u64, cache_read: u64, output: u64) -> Price {
    Price {
        cache_write: Some(input / 4 * 5),
        ..gpt(input, cache_read, output)
    }
}

/// Twice the input and one and a half times the output above a number of tokens.
const fn long_above(above: u64, price: Price) -> Price {
    Price {
        long: Some(LongContext {
            above,
            input_percent: 200,
            output_percent: 150,
        }),
        ..price
    }
}

const TABLE: &[(&str, Price)] = &[
    // platform.claude.com/docs/en/about-claude/pricing and the page of each model, 2026-11.
    ("claude-fable-5-2", claude(8_000_000, 200_000, 40_000_000)),
    ("claude-fable-5-1", claude(10_000_000, 250_000, 50_000_000)),
    ("claude-fable-5", claude(10_000_000, 1_000_000, 50_000_000)),
    ("claude-opus-5-5", claude(4_000_000, 200_000, 20_000_000)),
    ("claude-opus-5", claude(5_000_000, 500_000, 25_000_000)),
    ("claude-opus-4-8", claude(5_000_000, 500_000, 25_000_000)),
    ("claude-opus-4-7", claude(5_000_000, 500_000, 25_000_000)),
    ("claude-opus-4-6", claude(5_000_000, 500_000, 25_000_000)),
    ("claude-opus-4-5", claude(5_000_000, 500_000, 25_000_000)),
    ("claude-opus-4-1", claude(15_000_000, 1_500_000, 75_000_000)),
    ("claude-sonnet-5-5", claude(2_000_000, 100_000, 10_000_000)),
    ("claude-sonnet-5", claude(2_000_000, 200_000, 10_000_000)),
    ("claude-sonnet-4-6", claude(3_000_000, 300_000, 15_000_000)),
    ("claude-sonnet-4-5", claude(3_000_000, 300_000, 15_000_000)),
    (
        "claude-haiku-5-5",
        Price {
            long: Some(LongContext {
                above: 100_000,
                input_percent: 500,
                output_percent: 500,
            }),
            ..claude(100_000, 10_000, 500_000)
        },
    ),
    ("claude-haiku-4-5", claude(1_000_000, 100_000, 5_000_000)),
    // developers.openai.com/api/docs/pricing, standard tier, 2026-11. The whole request costs
    // more above the line.
    (
        "gpt-6.1-sol",
        long_above(272_000, gpt_writing(2_000_000, 100_000, 10_000_000)),
    ),
    (
        "gpt-6-sol",
        long_above(272_000, gpt_writing(2_000_000, 200_000, 10_000_000)),
    ),
    (
        "gpt-6-luna",
        long_above(272_000, gpt_writing(100_000, 10_000, 500_000)),
    ),
    (
        "gpt-5.6-terra",
        long_above(272_000, gpt_writing(2_000_000, 200_000, 12_000_000)),
    ),
    // The line is given as 200,000 and as 272,000; the lower one never counts too little.
    (
        "gpt-5.6-luna",
        long_above(200_000, gpt_writing(200_000, 20_000, 1_200_000)),
    ),
    (
        "gpt-5.5",
        long_above(272_000, gpt(5_000_000, 500_000, 30_000_000)),
    ),
    (
        "gpt-5.4",
        long_above(272_000, gpt(2_500_000, 250_000, 15_000_000)),
    ),
    ("gpt-5.4-mini", gpt(750_000, 75_000, 4_500_000)),
    ("gpt-5.4-nano", gpt(200_000, 20_000, 1_250_000)),
    ("gpt-5.2", gpt(1_750_000, 175_000, 14_000_000)),
    ("gpt-5-mini", gpt(250_000, 25_000, 2_000_000)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64) -> Usage {
        Usage {
            input: Some(input),
            output: Some(output),
            ..Usage::default()
        }
    }

    #[test]
    fn a_call_costs_what_its_kinds_of_tokens_cost() {
        let prices = Prices::builtin();
        let used = Usage {
            cache_read: Some(1_000_000),
            cache_write: Some(1_000_000),
            cache_write_long: Some(400_000),
            ..usage(1_000_000, 1_000_000)
        };
        // 4 + 0.20 + 0.6 × 5 + 0.4 × 8 + 20
        assert_eq!(
            prices.cost("claude-opus-5-5", &used),
            Some(Micros(30_400_000))
        );
        // Less than a millionth still costs one.
        assert_eq!(prices.cost("gpt-6-luna", &usage(1, 0)), Some(Micros(1)));
        assert_eq!(prices.cost("gpt-6-luna", &usage(0, 0)), Some(Micros(0)));
    }

    #[test]
    fn unknown_usage_and_unknown_models_have_no_cost() {
        let prices = Prices::builtin();
        let half = Usage {
            input: Some(5),
            ..Usage::default()
        };
        assert_eq!(prices.cost("claude-opus-5-5", &half), None);
        assert_eq!(prices.cost("llama", &usage(1, 1)), None);
        assert_eq!(prices.cost("claude-opus-5-5-turbo", &usage(1, 1)), None);
    }

    #[test]
    fn long_requests_cost_more_as_a_whole() {
        let prices = Prices::builtin();
        assert_eq!(
            prices.cost("gpt-6.1-sol", &usage(272_000, 1_000)),
            Some(Micros(554_000))
        );
        let long = Usage {
            cache_read: Some(1),
            ..usage(272_000, 1_000)
        };
        assert_eq!(prices.cost("gpt-6.1-sol", &long), Some(Micros(1_103_001)));
    }

    #[test]
    fn a_name_may_carry_a_vendor_and_a_date() {
        let prices = Prices::builtin();
        for name in [
            "claude-haiku-4-5",
            "claude-haiku-4-5-20251001",
            "claude-haiku-4-5@20251001",
            "claude-haiku-4-5-latest",
            "anthropic/claude-haiku-4-5-20251001",
        ] {
            assert_eq!(prices.get(name).map(|p| p.input), Some(1_000_000), "{name}");
        }
        assert!(prices.get("openai/gpt-6.1-sol-2026-09-29").is_some());
        assert!(prices.get("").is_none() && prices.get("-20251001").is_none());
    }

    #[test]
    fn a_configured_price_wins() {
        let mut prices = Prices::builtin();
        prices.set("claude-haiku-4-5", Price::flat(7, 7));
        prices.set("local", Price::flat(0, 0));
        assert_eq!(
            prices.get("claude-haiku-4-5-20251001"),
            Some(Price::flat(7, 7))
        );
        assert_eq!(prices.cost("local", &usage(9, 9)), Some(Micros(0)));
    }

    #[test]
    fn a_ceiling_is_never_under_the_cost() {
        for (name, price) in TABLE {
            for (input, output) in [(0, 0), (10, 5), (99_999, 3), (300_000, 70_000)] {
                let ceiling = price.ceiling(input, output);
                assert!(Some(ceiling) >= price.cost(&usage(input, output)), "{name}");
            }
        }
    }

    #[test]
    fn money_is_shown_in_dollars() {
        for (micros, shown) in [
            (0, "$0.00"),
            (50_000, "$0.05"),
            (1_234, "$0.001234"),
            (12_345_678, "$12.34"),
        ] {
            assert_eq!(Micros(micros).to_string(), shown);
        }
    }
}
