//! How much is taken before a submission is refused.

use ledger::Admission;
use serde::Deserialize;

/// The most that `waiting` may be: more than that is not looked after by anybody.
const MOST_WAITING: u64 = 1_000_000;
/// The most that `per_minute` may be: a thousand in a second is as good as no limit.
const MOST_PER_MINUTE: u32 = 60_000;

/// The table `[limits]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// How many requests may wait to be planned.
    waiting: Option<u64>,
    /// How many requests one user may submit in a minute.
    per_minute: Option<u32>,
}

impl Limits {
    /// What the ledger takes.
    pub(crate) fn admission(self) -> Admission {
        let usual = Admission::default();
        Admission {
            waiting: self.waiting.unwrap_or(usual.waiting),
            per_minute: self.per_minute.or(usual.per_minute),
        }
    }

    /// Says which of them makes no sense.
    pub(super) fn validate(self) -> Result<(), String> {
        let bounded = |name, value: Option<u64>, most| match value {
            Some(value) if !(1..=most).contains(&value) => Err(format!(
                "`{name}` in `[limits]` is {value}; it must be from 1 to {most}"
            )),
            _ => Ok(()),
        };
        bounded("waiting", self.waiting, MOST_WAITING)?;
        let per_minute = self.per_minute.map(u64::from);
        bounded("per_minute", per_minute, MOST_PER_MINUTE.into())
    }
}
