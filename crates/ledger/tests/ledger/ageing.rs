//! What waits is overtaken for a bounded time: the patience of its priority, and a share for each
//! thing of its queue that is held.

use crate::support::{Place, new_attempt, place, plan};
use domain::{
    Failure, Reason, RequestId,
    entity::{Placement, Priority},
};
use ledger::{ClaimedJob, SHARE, Seek, Settlement};
use std::time::Duration;

/// A planned request of this user and priority with this many jobs.
async fn asked(place: &Place, user: &str, priority: Priority, jobs: u32) -> RequestId {
    let ledger = &place.ledger;
    let mut ask = place.ask().await;
    ask.placement = Placement {
        user: user.into(),
        priority,
        ..Placement::default()
    };
    let request = ledger.submit(place.session, ask, None).await.unwrap();
    let seek = Seek::from(Some(request));
    let claimed = ledger.claim_request(&place.owner, seek).await.unwrap();
    let names: Vec<String> = (0..jobs).map(|n| format!("job{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ledger
        .plan_request(&claimed.unwrap().lease, plan(&names), None)
        .await
        .unwrap();
    request
}

/// Something urgent of another user, with nothing held, comes now; whose job is claimed.
async fn overtaken_now(place: &Place, patient: RequestId) -> bool {
    let urgent = asked(place, "urgent", Priority::Interactive, 1).await;
    let claimed = place.claim().await;
    if claimed.request.id == patient {
        return false;
    }
    assert_eq!(claimed.request.id, urgent);
    let lease = &claimed.lease;
    place
        .ledger
        .start_attempt(lease, new_attempt())
        .await
        .unwrap();
    let failure = Failure::new(Reason::Stuck, "");
    place
        .ledger
        .settle_attempt(lease, Settlement::Failed { failure })
        .await
        .unwrap();
    true
}

/// Time goes by, and whoever holds something goes on holding it.
async fn pass(place: &Place, span: Duration, held: &[ClaimedJob]) {
    place.clock.advance(span);
    for claimed in held {
        place.ledger.heartbeat(&claimed.lease).await.unwrap();
    }
}

#[tokio::test]
async fn work_is_overtaken_for_its_patience_and_a_share_for_each_held_thing_and_no_longer() {
    let instant = Duration::from_secs(1);
    for priority in [
        Priority::Interactive,
        Priority::Normal,
        Priority::Background,
    ] {
        for held in [0, 1, 4] {
            let place = place().await;
            let mut holders = Vec::new();
            if held > 0 {
                asked(&place, "patient", Priority::Interactive, held).await;
                for _ in 0..held {
                    holders.push(place.claim().await);
                }
            }
            let patient = asked(&place, "patient", priority, 1).await;
            let bound = priority.patience() + SHARE * held;
            let what = format!("{priority:?} with {held} held");
            if !bound.is_zero() {
                assert!(overtaken_now(&place, patient).await, "{what}: at once");
                pass(&place, bound - instant, &holders).await;
                assert!(overtaken_now(&place, patient).await, "{what}: before");
                pass(&place, instant * 2, &holders).await;
            } else {
                pass(&place, instant, &holders).await;
            }
            assert!(!overtaken_now(&place, patient).await, "{what}: after");
            place.holds().await;
        }
    }
}
