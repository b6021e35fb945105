//! How many jobs may be under way at once where several requests are worked on together.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Room for so many jobs and plans in the making, whichever request they are of. Who waits longest comes first. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// Room for so many, and at least for one.
    #[must_use]
    pub fn new(jobs: u32) -> Self {
        let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(
            jobs.clamp(1, Semaphore::MAX_PERMITS),
        )))
    }

    /// Waits for a place, which lasts as long as what this returns; none once `stop` is set.
    pub(crate) async fn place(&self, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        let place = stop.run_until_cancelled(Arc::clone(&self.0).acquire_owned());
        // It is never closed.
        place.await?.ok()
    }
}
