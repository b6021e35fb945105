//! Keepers: they remove what is old, and then blobs that nothing names.

use super::{
    actor::{Actor, Heard, View},
    call::Call,
};
use domain::Timestamp;
use std::time::Duration;

/// How old garbage is that may go, so that what was just stored stays.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Default)]
pub(crate) struct Keeper;

impl Actor for Keeper {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        if view.ending {
            return None;
        }
        Some(match view.random.below(100) {
            0..35 => {
                let age = view.random.below(600_000_000);
                let before = view.now.0 - i64::try_from(age).unwrap();
                Call::Prune(Timestamp(before))
            }
            35..60 => Call::Collect(Duration::ZERO),
            60..75 => Call::Collect(DAY),
            _ => return None,
        })
    }

    fn hear(&mut self, _: &mut View<'_>, _: &Call, _: Heard) {}

    fn is_idle(&self) -> bool {
        true
    }
}
