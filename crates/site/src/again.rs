//! Opening a site around a workspace that is there: of an attempt whose holder was killed, and of a fork
//! that another process made.

use crate::{
    beside::Shown,
    elsewhere::refused,
    error::Error,
    open::{Guard, Sites, base_key, blocking, furnish},
    site::Site,
    wanted::Wanted,
};
use git::Mirror;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use sandbox::toolchains::Toolchains;
use std::{
    fs,
    time::{Duration, Instant},
};
use workspace::Workspace;

/// How long the processes of a killed holder may take to end. The kernel ends them with their
/// namespace, in some milliseconds.
const WITHIN: Duration = Duration::from_secs(10);

/// The most bytes that are looked at of one process's mounts.
const MOST: usize = 1 << 20;

impl Sites {
    /// Opens the site of an attempt again whose holder was killed: the same workspace with all that
    /// was written in it, and a new sandbox. Nothing is set up again.
    ///
    /// # Errors
    /// When the workspace is not there, or cannot be trusted: the machine was restarted, its base is
    /// gone, or something still writes to it. A sweep takes it away once the attempt has ended.
    pub async fn reopen(&self, mirror: &Mirror, wanted: Wanted) -> Result<Site, Error> {
        let shown = self.shown(&wanted.beside).await?;
        let toolchains = self.toolchains(&wanted.extra_roots);
        let workspace = {
            let (sites, id) = (self.clone(), wanted.id.clone());
            blocking(move || {
                wait_for_the_dead(&id)?;
                Ok(sites.store().reopen_workspace(&id)?)
            })
            .await?
        };
        let guard = Guard::new(self, workspace);
        self.around(guard, mirror, &wanted, (toolchains, shown))
            .await
    }

    /// Opens a site that was to be kept again, and in which nothing runs any more: the same workspace with
    /// all that was written in it, after a restart of the machine too, and a new sandbox. Whatever
    /// fails, the workspace stays. Of `wanted`, the same counts as in [`Sites::join`].
    ///
    /// # Errors
    /// When the workspace is not there, something still writes to it, what it lies over is gone, or no
    /// sandbox can be made around it.
    pub async fn resume(&self, mirror: &Mirror, wanted: Wanted) -> Result<Site, Error> {
        let shown = self.shown(&wanted.beside).await?;
        // What it lies over is made again where it is gone.
        self.base(&wanted.repository, mirror, wanted.base, None)
            .await?;
        let written = self.written(&wanted.also).await?;
        self.also_bases(&wanted.also, &written).await?;
        let toolchains = self.toolchains(&wanted.extra_roots);
        let workspace = {
            let (sites, id) = (self.clone(), wanted.id.clone());
            blocking(move || {
                wait_for_the_dead(&id)?;
                Ok(sites.store().resume_workspace(&id)?)
            })
            .await?
        };
        let guard = Guard::new(self, workspace).keeping();
        let mut site = self
            .around(guard, mirror, &wanted, (toolchains, shown))
            .await?;
        site.outlive();
        Ok(site)
    }

    /// Opens a site around the workspace of a fork, which another process made for this one and holds
    /// until this returns. Of `wanted`, its setup, its tree and the files that are taken along do not
    /// count: they are in the workspace.
    ///
    /// # Errors
    /// When the workspace is not there, or no sandbox can be made around it; it goes then.
    pub async fn join(&self, mirror: &Mirror, wanted: Wanted) -> Result<Site, Error> {
        let shown = self.shown(&wanted.beside).await?;
        let toolchains = self.toolchains(&wanted.extra_roots);
        let workspace = {
            let (sites, id) = (self.clone(), wanted.id.clone());
            let toolchains = toolchains.clone();
            blocking(move || {
                let workspace = sites.store().open_workspace(&id)?;
                furnish(&workspace, &toolchains)?;
                Ok(workspace)
            })
            .await?
        };
        let guard = Guard::new(self, workspace);
        self.around(guard, mirror, &wanted, (toolchains, shown))
            .await
    }

    /// A site around a workspace that is whole.
    async fn around(
        &self,
        guard: Guard,
        mirror: &Mirror,
        wanted: &Wanted,
        (toolchains, shown): (Toolchains, Vec<Shown>),
    ) -> Result<Site, Error> {
        if !self.abilities().local_files {
            return Err(refused("they went with the sandbox that had them"));
        }
        let also = wanted.also.iter();
        let keys: Vec<String> =
            [base_key(&wanted.repository, wanted.base)]
                .into_iter()
                .chain(also.map(|one| {
                    format!("{} for {}", base_key(&one.repository, one.commit), one.name)
                }))
                .collect();
        let found = bases_of(guard.workspace()?);
        if found != keys {
            return Err(Error::OtherBase {
                id: wanted.id.clone(),
                found: found.join(", "),
                wanted: keys.join(", "),
            });
        }
        let written = self.written(&wanted.also).await?;
        let sandbox = self
            .sandbox(guard.workspace()?, &toolchains, wanted, &shown)
            .await?;
        let base = mirror.tree_of(wanted.base)?;
        let site = self.whole(guard, sandbox, (mirror, base), (&toolchains, shown))?;
        Ok(site.writing(written))
    }
}

/// What its repositories lie over, its own first.
fn bases_of(workspace: &Workspace) -> Vec<String> {
    let also = workspace.also_base_keys();
    [workspace.base_key().to_owned()]
        .into_iter()
        .chain(also.map(|(name, key)| format!("{key} for {name}")))
        .collect()
}

/// Waits until no process has the workspace `id` mounted. Those of a killed holder are ended by the
/// kernel, but not in the same moment; two mounts of one layer would spoil it.
pub(crate) fn wait_for_the_dead(id: &str) -> Result<(), Error> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let alive = users(id);
        let Some(&first) = alive.first() else {
            return Ok(());
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let pids: Vec<String> = alive.iter().map(ToString::to_string).collect();
            return Err(Error::InUse {
                id: id.to_owned(),
                pids: pids.join(", "),
            });
        }
        wait_for(first, left);
    }
}

/// The processes that have the workspace among their mounts. One whose mounts may not be read is
/// another user's, and cannot have it.
fn users(id: &str) -> Vec<i32> {
    let part = format!("workspaces/{id}/");
    let Ok(list) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                .is_ok_and(|mounts| mounts.len() <= MOST && mounts.contains(&part))
        })
        .collect()
}

/// Waits for the end of a process, or for so long.
fn wait_for(pid: i32, left: Duration) {
    let Some(pid) = Pid::from_raw(pid) else {
        return;
    };
    // Gone already when there is no descriptor to be had; what is wrong with the wait, the next look
    // shows.
    if let (Ok(end), Ok(left)) = (
        pidfd_open(pid, PidfdFlags::empty()),
        Timespec::try_from(left),
    ) {
        poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&left)).ok();
    }
}
