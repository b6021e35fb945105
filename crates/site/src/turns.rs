//! Between turns: snapshots of a site's files, the way back to one, and forks of one.
//!
//! The record of the workspace is changed first, then the sandbox is shown its layers; where that
//! fails, the record is as before. Old layers are folded beside the running sandbox.

use crate::{
    error::Error,
    kept::is_kept,
    open::{Guard, Sites, all_layers, blocking, furnish},
    site::{Site, held},
    wanted::Wanted,
};
use sandbox::toolchains::Toolchains;
use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, Ordering},
};
use workspace::{Before, Fold, Layering, Workspace};

/// What a site knows of changes of its layers.
#[derive(Default)]
pub(crate) struct Turns {
    /// Held by the one change that may be under way.
    changing: tokio::sync::Mutex<()>,
    /// A change was given up: nobody knows whether the sandbox has the layers of the record.
    unsettled: AtomicBool,
    /// Whether layers are being folded, and that this is to end.
    folding: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Turns {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.unsettled.load(Ordering::Acquire) {
            return Err(Error::Unsettled);
        }
        Ok(())
    }

    /// Layers need not be folded any further.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Site {
    /// That this site has snapshots, undo and forks: its kind of sandbox can change layers, and its
    /// workspace has some.
    ///
    /// # Errors
    /// [`Error::NoSnapshots`], which says why not.
    pub fn check_snapshots(&self) -> Result<(), Error> {
        let why = match (self.sites.abilities().switch, self.layering) {
            (true, Layering::Overlay) => return Ok(()),
            (false, _) => "this kind cannot change the layers of a workspace",
            (true, Layering::Copy) => "workspaces are plain copies on this machine",
        };
        let kind = self.sites.kind();
        Err(Error::NoSnapshots { kind, why })
    }

    /// The names of the moments that [`Site::undo`] leads to, oldest first.
    ///
    /// # Errors
    /// After [`Site::close`].
    pub async fn snapshots(&self) -> Result<Vec<String>, Error> {
        let files = self.files()?;
        blocking(move || Ok(held(&files).snapshots())).await
    }

    /// What was written between a moment and the one before it, in bytes on disk. It is measured.
    ///
    /// # Errors
    /// When there is no such moment, or it cannot be measured.
    pub async fn snapshot_bytes(&self, name: &str) -> Result<u64, Error> {
        let (files, name) = (self.files()?, name.to_owned());
        blocking(move || Ok(held(&files).snapshot_bytes(&name)?)).await
    }

    /// Keeps the files as they are now under a name, at the cost of what was written since the last
    /// time. Between turns only.
    ///
    /// # Errors
    /// When anything runs in the sandbox; where there are no snapshots, or there is one of this name.
    /// The site goes on as it was, unless the sandbox had to be ended.
    pub async fn snapshot(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.change(move |files| files.snapshot(&name)).await
    }

    /// Takes the files back to a moment, or without a name to where the first turn began. What was
    /// written since is gone, and so are later moments. Home and temporary directory stay as they are.
    /// Between turns only.
    ///
    /// # Errors
    /// As [`Site::snapshot`]; when there is no such moment.
    pub async fn undo(&self, to: Option<&str>) -> Result<(), Error> {
        let to = to.map(str::to_owned);
        self.change(move |files| files.undo(to.as_deref())).await
    }

    /// Takes the name of a moment away: nothing leads to it any more, and what was written stays. That
    /// there is no such moment is no error. Something may run meanwhile.
    ///
    /// # Errors
    /// After [`Site::close`]; when the record cannot be written.
    pub async fn forget(&self, name: &str) -> Result<(), Error> {
        let _one = self.turns.changing.lock().await;
        let (files, name) = (self.files()?, name.to_owned());
        blocking(move || Ok(held(&files).forget(&name)?)).await
    }

    async fn change(
        &self,
        change: impl FnOnce(&mut Workspace) -> Result<Before, workspace::Error> + Send + 'static,
    ) -> Result<(), Error> {
        let _one = self.turns.changing.lock().await;
        self.turns.check()?;
        self.check_snapshots()?;
        let (files, sandbox) = (self.files()?, self.sandbox()?);
        let unsettled = Unsettled::new(&self.turns.unsettled);
        let changed = {
            let files = Arc::clone(&files);
            blocking(move || {
                let mut files = held(&files);
                Ok(change(&mut files).map(|before| (before, all_layers(&files))))
            })
            .await?
        };
        let (before, layers) = match changed {
            Ok(changed) => changed,
            Err(error) => {
                // What the record says has not changed.
                unsettled.settle();
                return Err(error.into());
            }
        };
        let switched = sandbox.switch(layers).await;
        let settled = {
            let files = Arc::clone(&files);
            let failed = switched.is_err();
            blocking(move || {
                let mut files = held(&files);
                Ok(if failed {
                    files.take_back(before).map(|()| None)
                } else {
                    files.settle().map(|()| files.fold())
                })
            })
            .await?
        };
        match (switched, settled) {
            (Err(error), Ok(_)) => {
                unsettled.settle();
                return Err(error.into());
            }
            (Err(error), Err(record)) => {
                tracing::error!(%record, "a change of layers could not be taken back");
                return Err(error.into());
            }
            (Ok(()), settled) => {
                unsettled.settle();
                match settled {
                    Ok(Some(fold)) => self.fold(fold, &files),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "layers that are not needed stay for now");
                    }
                }
            }
        }
        self.sites.clean();
        Ok(())
    }

    /// Folds old layers beside the running sandbox.
    fn fold(&self, fold: Fold, files: &Arc<Mutex<Workspace>>) {
        if self.turns.folding.swap(true, Ordering::AcqRel) {
            return;
        }
        let files = Arc::downgrade(files);
        let (folding, stop) = (
            Arc::clone(&self.turns.folding),
            Arc::clone(&self.turns.stop),
        );
        self.sites.beside(move || {
            let adopted = fold.build(&stop).and_then(|built| {
                match Weak::upgrade(&files) {
                    Some(files) => held(&files).adopt(built),
                    // The site is closed, and its files go.
                    None => Ok(()),
                }
            });
            match adopted {
                Ok(()) | Err(workspace::Error::Stopped) => {}
                Err(error) => tracing::debug!(%error, "layers were not folded"),
            }
            folding.store(false, Ordering::Release);
        });
    }

    /// Opens another site with the files as they were at a moment, or without a name where the first
    /// turn began: a workspace of its own under the id of `wanted`, a new home, a sandbox. This one may
    /// run meanwhile. Nothing is set up again, and the toolchains are this site's: of `wanted`, its id, its programs
    /// and its channel count.
    ///
    /// # Errors
    /// When there is no such moment, or any part of the site cannot be made.
    pub async fn fork(&self, moment: Option<&str>, wanted: Wanted) -> Result<Site, Error> {
        let toolchains = self.toolchains.clone();
        let forked = self.forked(moment, &wanted.id, Some(&toolchains)).await?;
        let guard = Guard::new(&self.sites, forked);
        let sandbox = self
            .sites
            .sandbox(guard.workspace()?, &toolchains, &wanted, self.shown())
            .await?;
        let shown = self.shown().to_vec();
        let of = (&self.mirror, self.base);
        let fork = self.sites.whole(guard, sandbox, of, (&toolchains, shown))?;
        Ok(fork.writing(self.also.clone()))
    }

    /// Makes the workspace of a fork for another process, which opens it by [`Sites::join`]. While what
    /// this returns lives, nobody sweeps it; afterwards it goes, unless that process has it.
    ///
    /// # Errors
    /// As [`Site::fork`].
    pub async fn fork_for_another(&self, moment: &str, id: &str) -> Result<Parting, Error> {
        let files = self.forked(Some(moment), id, None).await?;
        Ok(Parting {
            sites: self.sites.clone(),
            files: Some(files),
        })
    }

    /// Makes the workspace of a fork, with the files of toolchains where they are given.
    async fn forked(
        &self,
        moment: Option<&str>,
        id: &str,
        toolchains: Option<&Toolchains>,
    ) -> Result<Workspace, Error> {
        // Layers move to where forks share them: not while the sandbox is shown where they are.
        let _one = self.turns.changing.lock().await;
        self.turns.check()?;
        self.check_snapshots()?;
        let (files, moment) = (self.files()?, moment.map(str::to_owned));
        let (id, toolchains) = (id.to_owned(), toolchains.cloned());
        blocking(move || {
            let fork = held(&files).fork(moment.as_deref(), &id)?;
            Ok(match toolchains {
                Some(toolchains) => furnish(&fork, &toolchains).map(|()| fork),
                None => Ok(fork),
            })
        })
        .await?
    }
}

/// The files of a fork that another process is about to take.
pub struct Parting {
    sites: Sites,
    files: Option<Workspace>,
}

impl Drop for Parting {
    fn drop(&mut self) {
        let Some(files) = self.files.take() else {
            return;
        };
        let id = files.id().to_owned();
        // Whoever took it holds it as well, and keeps this from taking it away.
        drop(files);
        let directory = &self.sites.options().directory;
        let stays = |other: &str| other != id || is_kept(directory, other);
        match self.sites.store().sweep(stays) {
            Ok(_) => self.sites.clean(),
            Err(error) => {
                tracing::warn!(%error, "a fork that nobody took stays until the next sweep");
            }
        }
    }
}

/// Says that a change was given up, unless it was settled.
struct Unsettled<'a>(Option<&'a AtomicBool>);

impl<'a> Unsettled<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Release);
        Self(Some(flag))
    }

    fn settle(mut self) {
        if let Some(flag) = self.0.take() {
            flag.store(false, Ordering::Release);
        }
    }
}
