//! Processes: each has the ledger open and is one owner of leases.

use super::{
    Broken,
    random::{SimClock, SimIds},
};
use skep_ledger::{Clock, Ids, Ledger, Options, Owner};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// A process that runs.
pub(crate) struct Process {
    pub(crate) ledger: Ledger,
    pub(crate) owner: Owner,
    /// Whether something was committed since the last look.
    pub(crate) changes: watch::Receiver<u64>,
    run: PathBuf,
}

impl Process {
    pub(crate) async fn start(
        directory: &Path,
        clock: &Arc<SimClock>,
        ids: &Arc<SimIds>,
    ) -> Result<Self, Broken> {
        let ledger = Ledger::open(Options {
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            ids: Arc::clone(ids) as Arc<dyn Ids>,
            tick: None,
            ..Options::new(directory)
        })
        .await?;
        Ok(Self {
            owner: ledger.owner().await?,
            changes: ledger.changes(),
            ledger,
            run: directory.join("run"),
        })
    }

    /// Ends it as `kill -9` does: nothing is said to anybody, and its lock is free. A killed
    /// process leaves the file of its lock, unless somebody has removed it.
    pub(crate) async fn kill(self, leave_lock: bool) {
        let before = locks(&self.run);
        self.ledger.close().await;
        drop(self.ledger);
        // The ledger is gone, so that dropping the owner tells nobody.
        drop(self.owner);
        if leave_lock {
            for lock in before.difference(&locks(&self.run)) {
                fs::write(lock, "").unwrap();
            }
        }
    }
}

fn locks(run: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "lock"))
        .collect()
}
