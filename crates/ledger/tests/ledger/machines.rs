//! The ledger and the pure machines agree, step by step.

mod draw;
mod model;
mod seen;
mod walk;

use crate::support::place;
use draw::cases;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use seen::Seen;
use tokio::runtime::Runtime;
use walk::walk;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn no_sequence_of_verbs_leads_where_the_machines_do_not(case in cases(1..120)) {
        runtime().block_on(async {
            let place = place().await;
            walk(&place, case).await;
            place.holds().await;
        });
    }
}

/// The same cases each time, so that a step is missed only where what is drawn has changed.
#[test]
fn each_step_that_a_verb_can_take_is_taken_in_some_sequence() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    runtime().block_on(async {
        let place = place().await;
        for _ in 0..CASES {
            let case = cases(80..81).new_tree(&mut runner).unwrap().current();
            seen.count(&walk(&place, case).await);
            if seen.missing().is_empty() {
                break;
            }
        }
        place.holds().await;
    });
    let missing = seen.missing();
    assert!(missing.is_empty(), "no case took {missing:#?}");
}

/// The most cases until each step was taken.
const CASES: usize = 512;
