//! Sandboxes that are ready before anybody asks for them.
//!
//! Each has a workspace of its own, over one commit's base and over what one setup left there, with
//! toolchains mounted and limits set, and nothing has run in it: it is what a cold one is. Two sites of
//! one kind within a while make it likely that a third will be asked for, and one is prepared. Who
//! asks for exactly that gets it, and its workspace gets the name that was asked for; one over another
//! commit serves nobody, and goes. They are bounded in number; none is made where memory or the disk
//! run short; those that nobody took for a while are ended, and all of them with the process.

use crate::{
    beside::Shown,
    error::Error,
    gc,
    open::{Guard, Sites, blocking, lock},
    wanted::Wanted,
};
use sandbox::{Sandbox, toolchains::Toolchains};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinHandle};
use workspace::{Base, SetupLayer, Workspace};

/// How many sandboxes are kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// The most in all; none turns it off.
    pub all: usize,
    /// The most over one commit.
    pub each: usize,
}

impl Warm {
    /// None.
    pub const OFF: Self = Self { all: 0, each: 0 };
}

/// How long one waits for somebody, and how long it is remembered what was asked for.
const IDLE: Duration = Duration::from_secs(60);
/// How often something must be asked for before one is prepared.
const ASKED: u64 = 2;
/// The part of the machine's memory that must be free.
const FREE_MEMORY: u64 = 10;

/// What a sandbox is made of.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) base: Base,
    /// Those of further repositories that are written.
    pub(crate) also: Vec<(String, Base)>,
    pub(crate) layer: Option<SetupLayer>,
    pub(crate) toolchains: Toolchains,
    pub(crate) shown: Vec<Shown>,
    pub(crate) wanted: Wanted,
    /// Whether it has a channel, whoever serves that.
    pub(crate) channel: bool,
}

impl Recipe {
    /// Whether nothing of it is of one site alone.
    fn is_general(&self) -> bool {
        let Self { wanted, layer, .. } = self;
        wanted.tree.is_none()
            && wanted.extras.is_none()
            && wanted.also.iter().all(|one| one.tree.is_none())
            && (layer.is_some() || wanted.setup.is_none() && wanted.include.is_empty())
    }

    /// The same text for whatever can be served by the same sandbox.
    fn key(&self) -> String {
        let Self { wanted, .. } = self;
        let layer = self.layer.as_ref().map(SetupLayer::key);
        let also = self.also.iter().map(|(name, base)| (name, base.key()));
        let beside = wanted.beside.iter().map(|one| (&one.name, one.commit));
        format!(
            "{:?}",
            (
                self.base.key(),
                layer,
                &self.toolchains,
                &wanted.programs,
                also.collect::<Vec<_>>(),
                beside.collect::<Vec<_>>(),
                self.channel,
            )
        )
    }
}

/// One that nobody has taken yet.
pub(crate) struct Ready {
    key: String,
    since: Instant,
    pub(crate) workspace: Workspace,
    pub(crate) sandbox: Box<dyn Sandbox>,
}

/// What was asked for.
struct Asked {
    key: String,
    last: Instant,
    times: u64,
    /// Once it was asked for often enough: it holds the base.
    recipe: Option<Recipe>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    ready: Vec<Ready>,
    /// Last asked for last.
    asked: Vec<Asked>,
    /// Makes and ends them.
    keeper: Option<JoinHandle<()>>,
    /// None is made any more.
    closed: bool,
}

/// What will be asked for again, and how many of it are to be ready.
struct Likely<'a> {
    asked: &'a Asked,
    recipe: &'a Recipe,
    most: usize,
}

/// What was asked for last is the likeliest to be asked for again: it gets its part of what there may
/// be, then what was asked for before it. So what is made is never what the next look has to end.
fn likely(asked: &[Asked], warm: Warm) -> Vec<Likely<'_>> {
    let mut room = warm.all;
    let often = asked.iter().rev().filter_map(|asked| {
        let recipe = asked.recipe.as_ref()?;
        let most = warm.each.min(room);
        room = room.saturating_sub(most);
        Some(Likely {
            asked,
            recipe,
            most,
        })
    });
    often.collect()
}

/// Those of one process.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    changed: Arc<Notify>,
}

impl Pool {
    /// Takes one that is ready, and notes what was asked for.
    fn ask(&self, recipe: &Recipe, most: usize) -> Option<Ready> {
        let key = recipe.key();
        let mut state = lock(&self.state);
        let known = state.asked.iter().position(|asked| asked.key == key);
        let before = known.map_or(0, |at| state.asked.remove(at).times);
        let times = before.saturating_add(1);
        if state.asked.len() >= most.max(1) {
            state.asked.remove(0);
        }
        state.asked.push(Asked {
            key: key.clone(),
            last: Instant::now(),
            times,
            recipe: (times >= ASKED).then(|| recipe.clone()),
        });
        let found = state.ready.iter().position(|ready| ready.key == key)?;
        Some(state.ready.remove(found))
    }

    /// What to make next, and what has to go.
    fn plan(&self, warm: Warm, now: Instant) -> (Option<(String, Recipe)>, Vec<Ready>) {
        let mut state = lock(&self.state);
        if state.closed {
            state.asked.clear();
            return (None, std::mem::take(&mut state.ready));
        }
        state
            .asked
            .retain(|asked| now.saturating_duration_since(asked.last) < IDLE);
        let mut gone = Vec::new();
        let State { ready, asked, .. } = &mut *state;
        let idle = |one: &mut Ready| now.saturating_duration_since(one.since) >= IDLE;
        gone.extend(ready.extract_if(.., idle));
        let likely = likely(asked, warm);
        let count = |ready: &[Ready], key: &str| ready.iter().filter(|it| it.key == key).count();
        let next = likely
            .iter()
            .find(|it| count(ready, &it.asked.key) < it.most);
        let Some(next) = next else {
            return (None, gone);
        };
        let made = (next.asked.key.clone(), next.recipe.clone());
        if ready.len() >= warm.all {
            let most = |key: &str| likely.iter().find(|it| it.asked.key == key);
            let most = |key: &str| most(key).map_or(0, |it| it.most);
            let more = |it: &Ready| count(ready, &it.key) > most(&it.key);
            match ready.iter().position(more) {
                Some(other) => gone.push(ready.remove(other)),
                None => return (None, gone),
            }
        }
        (Some(made), gone)
    }

    fn put(&self, ready: Ready) {
        lock(&self.state).ready.push(ready);
    }

    /// Nobody will ask for it again soon, or it cannot be made.
    fn forget(&self, key: &str) {
        lock(&self.state).asked.retain(|asked| asked.key != key);
    }

    /// When the first of what is there has waited long enough; none where nothing is.
    fn until(&self) -> Option<Instant> {
        let state = lock(&self.state);
        let ready = state.ready.iter().map(|it| it.since);
        let asked = state.asked.iter().map(|it| it.last);
        Some(ready.chain(asked).min()? + IDLE)
    }

    fn take_all(&self) -> Vec<Ready> {
        let mut state = lock(&self.state);
        state.asked.clear();
        std::mem::take(&mut state.ready)
    }
}

impl Sites {
    /// How many sandboxes are ready for somebody.
    #[must_use]
    pub fn ready(&self) -> usize {
        lock(&self.pool().state).ready.len()
    }

    /// A sandbox that is ready for this, with its workspace under the name that is wanted.
    pub(crate) async fn warm(&self, recipe: &Recipe) -> Option<(Workspace, Box<dyn Sandbox>)> {
        let warm = self.options().warm;
        let can = self.kind().is_sealed() && self.abilities().local_files && recipe.is_general();
        if warm.all == 0 || !can {
            return None;
        }
        let found = self.pool().ask(recipe, warm.all);
        self.keep_warm();
        let mut ready = found?;
        let found = ready.sandbox.diagnose().await;
        if !found.alive || !found.sidecars.iter().all(|sidecar| sidecar.alive) {
            self.end(vec![ready]).await;
            return None;
        }
        let id = recipe.wanted.id.clone();
        let renamed = blocking(move || {
            let renamed = ready.workspace.rename(&id);
            Ok((ready, renamed))
        })
        .await;
        match renamed {
            Ok((ready, Ok(()))) => Some((ready.workspace, ready.sandbox)),
            Ok((ready, Err(error))) => {
                tracing::debug!(%error, "a prepared workspace could not be used");
                self.end(vec![ready]).await;
                None
            }
            Err(_) => None,
        }
    }

    /// Has the pool filled in the background.
    fn keep_warm(&self) {
        let mut state = lock(&self.pool().state);
        self.pool().changed.notify_one();
        if state.closed {
            return;
        }
        if state.keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            state.keeper = Some(tokio::spawn(self.clone().keeper()));
        }
    }

    /// Woken by whoever asks and by the clock; owns what is ready; ends when nothing is there and
    /// nothing was asked for in a while, or with [`Sites::close`].
    async fn keeper(self) {
        let changed = Arc::clone(&self.pool().changed);
        loop {
            let (next, gone) = self.pool().plan(self.options().warm, Instant::now());
            self.end(gone).await;
            match next {
                Some((key, recipe)) if !self.is_short() => match self.prepare(&key, recipe).await {
                    Ok(ready) => self.pool().put(ready),
                    Err(error) => {
                        tracing::debug!(%error, "a sandbox could not be prepared");
                        self.pool().forget(&key);
                    }
                },
                Some(_) => {
                    let all = self.pool().take_all();
                    self.end(all).await;
                }
                None => {
                    let Some(until) = self.pool().until() else {
                        return;
                    };
                    let wait = tokio::time::sleep_until(until.into());
                    tokio::select! {
                        () = changed.notified() => {}
                        () = wait => {}
                    }
                }
            }
        }
    }

    /// Makes one, as a cold one is made.
    async fn prepare(&self, key: &str, recipe: Recipe) -> Result<Ready, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("warm-{:x}-{number:x}", std::process::id());
        let mut guard = self.workspace_of(&id, &recipe).await?;
        let sandbox = self.bare_sandbox(guard.workspace()?, &recipe).await?;
        Ok(Ready {
            key: key.to_owned(),
            since: Instant::now(),
            workspace: guard.take()?,
            sandbox,
        })
    }

    /// Whether what is there is needed for something else.
    fn is_short(&self) -> bool {
        let options = self.options();
        gc::is_scarce(&options.directory, options.disk.store) || memory_is_short()
    }

    async fn end(&self, gone: Vec<Ready>) {
        for ready in gone {
            let guard = Guard::new(self, ready.workspace);
            if let Err(error) = ready.sandbox.destroy().await {
                tracing::warn!(%error, "a prepared sandbox did not end well");
            }
            drop(guard);
        }
    }

    /// Ends all that is ready, and prepares no more.
    pub(crate) async fn cool(&self) {
        let keeper = {
            let mut state = lock(&self.pool().state);
            state.closed = true;
            state.keeper.take()
        };
        self.pool().changed.notify_one();
        // One that is being made is waited for: given up in the middle, it would end after the process
        // had seen to what it leaves, or not at all.
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::warn!(%error, "the task that prepares sandboxes failed");
        }
        let all = self.pool().take_all();
        self.end(all).await;
    }
}

/// Whether less than a part of the machine's memory is free. Where nobody knows, it is not.
fn memory_is_short() -> bool {
    is_little(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// The same of what the kernel says.
fn is_little(meminfo: &str) -> bool {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    match (of("MemAvailable:"), of("MemTotal:")) {
        (Some(free), Some(all)) => free < all / FREE_MEMORY,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
