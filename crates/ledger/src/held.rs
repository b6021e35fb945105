//! Holding a lease for as long as some work takes.

use crate::{Error, Lease, Ledger};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often a holder says that it lives: several times in a lease.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Runs `work` while the lease is kept alive; cancels it as soon as the lease is lost, and waits
/// until it has cleaned up.
///
/// What wakes it: a commit in the ledger, or the time for a heartbeat. It ends with the work.
pub async fn held(
    ledger: &Ledger,
    lease: &Lease,
    lost: &CancellationToken,
    work: impl Future<Output = ()>,
) {
    let watch = async {
        let mut changes = ledger.changes();
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let standing = tokio::select! {
                _ = beat.tick() => ledger.heartbeat(lease).await.map(drop),
                Ok(()) = changes.changed() => ledger.standing(lease).await,
            };
            match standing {
                Ok(()) => {}
                Err(Error::LeaseLost(_)) => return lost.cancel(),
                Err(error) => tracing::warn!(%error, "a heartbeat failed; it is tried again"),
            }
        }
    };
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        () = watch => work.await,
    }
}
