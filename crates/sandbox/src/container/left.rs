//! What owners that have ended left in an engine.
//!
//! Their [marks](super::marks) say which engines to ask: whoever clears up after users of other kinds
//! starts nothing and waits for nothing.

use std::time::{Duration, Instant, SystemTime};

use super::engine::{Engine, clear_traces};
use super::marks::{Left, Stale};
use super::{Choice, Options, Way, blocking, find, orphans, place, traces};
use crate::namespace::cgroup;
use crate::{Error, Trouble};

/// How long an engine of a killed owner is waited for: it ends some seconds after what it was asked
/// last, and may be making a container until then.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// What owners that have ended left in engines, as far as that is known.
#[derive(Debug, Default)]
pub struct Remains {
    /// Containers, by their ids.
    pub containers: Vec<String>,
    /// Engines in which some may be left, and that were not there for a week: where they listened, or
    /// `podman`. They are asked no more.
    pub forgotten: Vec<String>,
    /// Why an engine could not be asked, or a container not be removed: the first.
    pub failed: Option<Error>,
}

impl Remains {
    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }
}

/// The containers that owners of this data directory, or of others, left when they ended. An engine is
/// asked only if an owner of this one used it and ended without clearing up.
pub async fn left(options: &Options) -> Remains {
    let stale = Stale::of(options.data.as_deref());
    let (mut found, now) = (Remains::default(), SystemTime::now());
    for choice in stale.choices(&options.engine) {
        match reach(&choice, options).await {
            Ok(Reached::At(engine, _)) => match engine.stale().await {
                Ok(some) => found.containers.extend(some),
                Err(error) => found.fail(error),
            },
            Ok(Reached::Absent(why)) => {
                let its = stale.reached_by(&choice, &options.engine);
                let (long, not): (Vec<_>, Vec<_>) = its.partition(|it| it.is_long_absent(now));
                found.forgotten.extend(long.into_iter().map(Left::engine));
                if !not.is_empty() {
                    found.fail(why);
                }
            }
            Err(error) => found.fail(error),
        }
    }
    // The same one may have been asked in two ways.
    found.containers.sort_unstable();
    found.containers.dedup();
    found.forgotten.dedup();
    found
}

/// Removes them, and what killed owners left in the temporary directory. Waits, within bounds, for
/// engines of killed owners, which may be at work.
pub async fn clear(options: &Options) -> Remains {
    place::sweep(&std::env::temp_dir());
    let stale = Stale::of(options.data.as_deref());
    let mut removed = Remains::default();
    if stale.is_empty() {
        return removed;
    }
    let deadline = Instant::now() + ENDS_WITHIN;
    while stale.still_serve() && Instant::now() < deadline {
        // There is no event for the end of a process of somebody else's.
        tokio::time::sleep(LOOK).await;
    }
    for choice in stale.choices(&options.engine) {
        // One that does not answer keeps nobody from asking the others.
        match reach(&choice, options).await {
            Ok(Reached::At(engine, way)) => {
                let its = Stale::of(options.data.as_deref()).found_by(&way);
                match take_away(&engine, its).await {
                    Ok(some) => removed.containers.extend(some),
                    Err(error) => removed.fail(error),
                }
            }
            Ok(Reached::Absent(why)) => {
                give_up(&stale, (&choice, &options.engine), why, &mut removed).await;
            }
            Err(error) => {
                let its = stale.reached_by(&choice, &options.engine);
                its.for_each(|left| left.is_back(SystemTime::now()));
                removed.fail(error);
            }
        }
    }
    removed.forgotten.dedup();
    removed
}

/// Removes what owners left that have ended, those of these marks among them.
pub(super) async fn take_away(engine: &Engine, stale: Stale) -> Result<Vec<String>, Error> {
    let mut orphans = Vec::new();
    if !stale.is_empty() {
        let ended = || Ok(orphans::end());
        orphans = blocking("end what a killed process left", ended).await?;
    }
    let removed = engine.sweep().await?;
    if !stale.is_empty() {
        // Those that the engine had are removed by now.
        let kept = || Ok(traces::left());
        orphans.extend(blocking("look for what a runtime kept", kept).await?);
    }
    clear_traces(orphans).await?;
    if !stale.is_empty() {
        // Those above the containers' can only go after them.
        let swept = || {
            cgroup::sweep();
            Ok(())
        };
        blocking("remove control groups", swept).await?;
    }
    stale.forget();
    Ok(removed)
}

/// An engine that is looked for because of a mark.
enum Reached {
    At(Box<Engine>, Way),
    /// There is none any more, and how that shows.
    Absent(Error),
}

async fn reach(choice: &Choice, options: &Options) -> Result<Reached, Error> {
    let (looked, socket) = (choice.clone(), choice.socket());
    let way = blocking("look for an engine", move || find::look(&looked)).await;
    let way: Way = match way {
        Err(
            error @ Error::Engine {
                trouble: Trouble::EngineMissing,
                ..
            },
        ) => return Ok(Reached::Absent(error)),
        // One that is there and does not answer may do so again.
        Err(error) if socket.is_some_and(|it| matches!(it.try_exists(), Ok(false))) => {
            return Ok(Reached::Absent(error));
        }
        other => other?,
    };
    let engine = Engine::reach(way.clone(), options.data.as_deref()).await?;
    Ok(Reached::At(Box::new(engine), way))
}

/// Notes of each mark of an engine that it is not there. Those that can be forgotten are, when nothing
/// runs any more of what their owners started.
async fn give_up(stale: &Stale, of: (&Choice, &Choice), why: Error, told: &mut Remains) {
    let ((choice, chosen), now) = (of, SystemTime::now());
    let its: Vec<_> = stale.reached_by(choice, chosen).collect();
    if its.iter().any(|left| left.is_long_absent(now)) {
        let ended = blocking("end what a killed process left", || Ok(orphans::end()));
        if let Err(error) = ended.await {
            return told.fail(error);
        }
    }
    let (gone, stay): (Vec<_>, Vec<_>) = its.into_iter().partition(|left| left.is_absent(now));
    told.forgotten.extend(gone.into_iter().map(Left::engine));
    if !stay.is_empty() {
        told.fail(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_installed_any_more_is_said_to_be_missing() {
        let data = tempfile::tempdir().unwrap();
        let run = data.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("engine.another-boot.1-2-3-0"), "started /x/engine").unwrap();
        let (stale, chosen) = (Stale::of(Some(data.path())), Choice::Found);
        let choice = stale.choices(&chosen).pop().unwrap();
        let why = Error::engine(Trouble::EngineMissing, "there is no Podman".to_owned());
        let mut told = Remains::default();
        give_up(&stale, (&choice, &chosen), why, &mut told).await;
        let failed = told.failed.unwrap().to_string();
        assert!(failed.contains("no Podman"), "{failed}");
        assert!(told.forgotten.is_empty(), "it may be installed again");
        assert!(run.join("engine.another-boot.1-2-3-0.absent").exists());
    }
}
