//! What a call used, in tokens.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// More tokens than this in one call is nonsense, and counts as unknown.
const ABSURD: u64 = 1 << 40;

/// The tokens of one call, or of several. `None` is "not told", never zero.
///
/// The kinds are disjoint, so that each can be priced: `input` does not include what was read
/// from or written to a prompt cache. Where a provider does not tell cached tokens apart, they
/// are in `input`, and `cache_read` and `cache_write` are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read at the full price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Tokens written by the model, reasoning included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Tokens read from a prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Tokens written to a prompt cache, whatever its lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// The part of `cache_write` that is kept for an hour, which costs more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_long: Option<u64>,
    /// The part of `output` that was reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Everything that was read: input, cache reads and cache writes. `None` when `input` is
    /// unknown.
    #[must_use]
    pub fn total_input(&self) -> Option<u64> {
        let input = self.input?;
        Some(
            input
                .saturating_add(self.cache_read.unwrap_or(0))
                .saturating_add(self.cache_write.unwrap_or(0)),
        )
    }

    /// Everything that was read and written. `None` when either is unknown.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        Some(self.total_input()?.saturating_add(self.output?))
    }

    /// Whether enough is known to settle a reservation: both what went in and what came out.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }

    /// The usage of this call and another one together.
    ///
    /// Input and output become unknown when either side's is, because a sum with an unknown
    /// part is unknown. The finer kinds are sums of what was told.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        let any = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        Self {
            input: both(self.input, other.input),
            output: both(self.output, other.output),
            cache_read: any(self.cache_read, other.cache_read),
            cache_write: any(self.cache_write, other.cache_write),
            cache_write_long: any(self.cache_write_long, other.cache_write_long),
            reasoning: any(self.reasoning, other.reasoning),
        }
    }

    /// No tokens at all: the start of a sum.
    pub const ZERO: Self = Self {
        input: Some(0),
        output: Some(0),
        cache_read: None,
        cache_write: None,
        cache_write_long: None,
        reasoning: None,
    };

    /// What a `usage` object of the Messages dialect tells.
    #[must_use]
    pub fn from_messages(usage: &Value) -> Self {
        let mut told = Self::default();
        told.take_messages(usage);
        told
    }

    /// Takes what a Chat Completions `usage` object tells; what it does not tell is kept.
    ///
    /// `prompt_tokens` includes cached tokens there, so they are taken out.
    pub(crate) fn take_chat(&mut self, usage: &Value) {
        let prompt = count(usage, &["prompt_tokens"]);
        let cached = count(usage, &["prompt_tokens_details", "cached_tokens"])
            .or_else(|| count(usage, &["prompt_cache_hit_tokens"]));
        let written = count(usage, &["prompt_tokens_details", "cache_write_tokens"]);
        if let Some(prompt) = prompt {
            let apart = cached.unwrap_or(0).saturating_add(written.unwrap_or(0));
            self.input = Some(prompt.saturating_sub(apart));
        }
        set(&mut self.cache_read, cached);
        set(&mut self.cache_write, written);
        set(&mut self.output, count(usage, &["completion_tokens"]));
        set(
            &mut self.reasoning,
            count(usage, &["completion_tokens_details", "reasoning_tokens"]),
        );
    }

    /// Takes what a Messages `usage` object tells; what it does not tell is kept, because
    /// later events of a stream repeat only some of the counts.
    pub(crate) fn take_messages(&mut self, usage: &Value) {
        set(&mut self.input, count(usage, &["input_tokens"]));
        set(&mut self.output, count(usage, &["output_tokens"]));
        set(
            &mut self.cache_read,
            count(usage, &["cache_read_input_tokens"]),
        );
        set(
            &mut self.cache_write,
            count(usage, &["cache_creation_input_tokens"]),
        );
        set(
            &mut self.cache_write_long,
            count(usage, &["cache_creation", "ephemeral_1h_input_tokens"]),
        );
        set(
            &mut self.reasoning,
            count(usage, &["output_tokens_details", "thinking_tokens"]),
        );
    }
}

fn set(slot: &mut Option<u64>, told: Option<u64>) {
    if told.is_some() {
        *slot = told;
    }
}

/// A count of tokens at a path of keys; anything but a plausible whole number is unknown.
fn count(value: &Value, path: &[&str]) -> Option<u64> {
    let mut at = value;
    for key in path {
        at = at.get(key)?;
    }
    let number = at.as_u64().or_else(|| {
        let float = at.as_f64()?;
        // Some servers write `12.0`.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, not negative and below 1e12 where it is cast"
        )]
        (float >= 0.0 && float.fract() == 0.0 && float < 1e12).then_some(float as u64)
    })?;
    (number < ABSURD).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cached_tokens_are_taken_out_of_the_input() {
        let mut usage = Usage::default();
        usage.take_chat(&json!({
            "prompt_tokens": 100, "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }));
        assert_eq!(usage.input, Some(40));
        assert_eq!(usage.cache_read, Some(60));
        assert_eq!(usage.cache_write, None);
        assert_eq!(usage.reasoning, Some(5));
        assert_eq!(usage.total(), Some(107));
    }

    #[test]
    fn wrong_types_and_absurd_counts_are_unknown() {
        for wrong in [
            json!(null),
            json!("5"),
            json!(-1),
            json!(1.5),
            json!(u64::MAX),
            json!([1]),
        ] {
            let mut usage = Usage::default();
            usage.take_chat(&json!({"prompt_tokens": wrong, "completion_tokens": wrong}));
            usage.take_messages(&json!({"input_tokens": wrong, "output_tokens": wrong}));
            assert_eq!(usage, Usage::default(), "{wrong}");
        }
        let mut usage = Usage::default();
        usage.take_chat(&json!({"prompt_tokens": 3.0}));
        assert_eq!(usage.input, Some(3));
    }

    #[test]
    fn a_sum_with_an_unknown_part_is_unknown() {
        let known = Usage {
            input: Some(1),
            output: Some(2),
            ..Usage::default()
        };
        let half = Usage {
            input: Some(1),
            cache_read: Some(9),
            ..Usage::default()
        };
        let sum = known.plus(&half);
        assert_eq!(sum.input, Some(2));
        assert_eq!(sum.output, None);
        assert_eq!(sum.cache_read, Some(9));
        assert_eq!(Usage::ZERO.plus(&known), known);
        assert!(!sum.is_known());
    }
}
