//! The policy's setup, run once for all sites that it serves.
//!
//! What it leaves is kept as a layer of the store, under a key of all that it can have seen
//! (`key.rs`). It is made in a workspace and a sandbox of its own, from a base commit and never from
//! what an agent changed, and from there on nobody writes to it. One at a time makes it; who asks
//! meanwhile waits, and is told of the failure if it fails: in other processes, too, of one that began
//! after they asked. A failure is not kept for whoever asks later.

use crate::{
    also::Also,
    beside::{Beside, Shown},
    error::Error,
    flights::{Failure, failed_since},
    key::{self, Sees},
    open::{Guard, Sites, blocking, furnish},
    site::{Site, environment, shell},
    wanted::Wanted,
};
use domain::{AttemptId, egress::Part, event::Body, policy::Setup};
use git::{Mirror, TreeId};
use sandbox::toolchains::Toolchains;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use workspace::{Base, Claim, Moment, SetupBuilder, SetupLayer, Tracked};

/// How long to wait for another process beyond the time that the setup may take there.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Between two looks at another process's lock: the kernel tells nobody when one is released.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most characters that are told of a path.
const MOST_SHOWN: usize = 500;
/// The key of the base of a setup that sees its inputs only.
const EMPTY: &str = "empty";

/// How the setup of a site went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// Whether what an earlier one left was used.
    pub cached: bool,
    /// How long the command took when it ran.
    pub took: Duration,
    /// Why `setup.inputs` was of no use: a path of the commit that the setup writes without having
    /// seen it.
    pub misfit: Option<String>,
    /// The globs of `setup.inputs` that no file of the commit matches.
    pub unmatched: Vec<String>,
}

impl SetUp {
    pub(crate) fn of(took: Duration, cached: bool) -> Self {
        Self {
            cached,
            took,
            misfit: None,
            unmatched: Vec::new(),
        }
    }

    /// What is recorded of it: for which attempt, and who works in the site.
    #[must_use]
    pub fn event(&self, attempt: AttemptId, part: Part) -> Body {
        Body::SetUp {
            attempt,
            part,
            cached: self.cached,
            duration_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            misfit: self.misfit.clone(),
            unmatched: (!self.unmatched.is_empty()).then(|| self.unmatched.clone()),
        }
    }
}

impl Site {
    /// How its setup went, if it has one.
    #[must_use]
    pub fn set_up(&self) -> Option<&SetUp> {
        self.set_up.as_ref()
    }
}

/// What a site is set up from.
pub(crate) struct Ground<'a> {
    pub(crate) mirror: &'a Mirror,
    pub(crate) wanted: &'a Wanted,
    pub(crate) setup: &'a Setup,
    pub(crate) base: &'a Base,
    pub(crate) toolchains: &'a Toolchains,
    pub(crate) shown: &'a [Shown],
}

impl Sites {
    /// What the setup leaves over a commit: an earlier one's layer, or a new one.
    ///
    /// # Errors
    /// When the setup does not succeed, or its layer cannot be made.
    pub(crate) async fn set_up(&self, ground: &Ground<'_>) -> Result<(SetupLayer, SetUp), Error> {
        let tree = ground.mirror.tree_of(ground.wanted.base)?;
        let (mut misfit, mut unmatched) = (None, Vec::new());
        if let Some(globs) = ground.setup.inputs.clone() {
            let mirror = ground.mirror.clone();
            let inputs = blocking(move || key::inputs(&mirror, tree, &globs)).await?;
            unmatched = inputs.unmatched.iter().map(|it| shown(it)).collect();
            if !unmatched.is_empty() {
                tracing::warn!(globs = ?unmatched, "no file matches these of `setup.inputs`");
            }
            let sees = Sees::Inputs(Arc::new(inputs.files));
            let (layer, done) = self.layer(ground, &sees).await?;
            misfit = fits(ground.mirror.clone(), tree, layer.clone(), sees).await?;
            if misfit.is_none() {
                return Ok((layer, SetUp { unmatched, ..done }));
            }
            tracing::info!(
                path = misfit,
                "the setup writes what the commit has and `setup.inputs` does not name"
            );
        }
        let commit = Sees::Commit(ground.base.key().to_owned());
        let (layer, done) = self.layer(ground, &commit).await?;
        let done = SetUp {
            misfit,
            unmatched,
            ..done
        };
        Ok((layer, done))
    }

    async fn layer(&self, ground: &Ground<'_>, sees: &Sees) -> Result<(SetupLayer, SetUp), Error> {
        let images = self.options().backend.images().await?;
        let key = key::key(self.kind(), images.as_deref(), ground, sees);
        let flight = self.flights().of(&key);
        let (failures, asked) = (flight.failures(), Moment::now());
        let _turn = flight.turn.lock().await;
        if let Some(error) = flight.failed_since(failures) {
            return Err(error);
        }
        let start = Instant::now();
        let builder = loop {
            let (store, of) = (self.store().clone(), key.clone());
            match blocking(move || Ok(store.claim_setup(&of)?)).await? {
                // Another process made it, from after this asked, and failed.
                Claim::Free(builder) => match failed_since(&builder, asked)? {
                    Some(error) => return Err(error),
                    None => break builder,
                },
                Claim::Present(layer) => {
                    let done = SetUp::of(layer.took(), true);
                    return Ok((layer, done));
                }
                Claim::Busy => {}
            }
            let waited = start.elapsed();
            if waited > ground.setup.timeout.saturating_add(PATIENCE) {
                return Err(workspace::Error::BaseBusy { key, waited }.into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let made = self.make(ground, sees, builder).await;
        if let Err(error) = &made {
            flight.fail(error);
        }
        let layer = made?;
        let done = SetUp::of(layer.took(), false);
        self.keep();
        let durable = layer.clone();
        self.beside(move || {
            if let Err(error) = durable.make_durable() {
                tracing::warn!(%error, "what the setup left would not outlive a restart of the machine");
            }
        });
        Ok((layer, done))
    }

    /// Makes a layer, in a workspace of its own.
    async fn make(
        &self,
        ground: &Ground<'_>,
        sees: &Sees,
        builder: SetupBuilder,
    ) -> Result<SetupLayer, Error> {
        let (builder, workspace) = {
            let (store, mirror) = (self.store().clone(), ground.mirror.clone());
            let (base, sees) = (ground.base.clone(), sees.clone());
            let include = Arc::clone(&ground.wanted.include);
            let toolchains = ground.toolchains.clone();
            blocking(move || {
                let workspace = match &sees {
                    Sees::Commit(_) => builder.workspace(&base)?,
                    Sees::Inputs(files) => {
                        let empty = store.base::<Error>(EMPTY, |_| Ok(()))?;
                        let mut workspace = builder.workspace(&empty)?;
                        key::lay_out(&mirror, files, &workspace)?;
                        workspace.freeze()?;
                        workspace
                    }
                };
                // Part of the layer: a setup may change or remove them.
                for file in include.iter() {
                    workspace
                        .edit()
                        .write(file.path.as_ref(), file.executable, &file.content)?;
                }
                furnish(&workspace, &toolchains)?;
                Ok((builder, workspace))
            })
            .await?
        };
        let mut guard = Guard::new(self, workspace);
        let ran = self.run_setup(&guard, ground).await;
        let ran = ran.map_err(|error| match (error, sees) {
            (
                Error::Setup {
                    command,
                    how,
                    output,
                },
                Sees::Inputs(_),
            ) => Error::Setup {
                command,
                how: format!("{how}; it saw only what `setup.inputs` names"),
                output,
            },
            (error, _) => error,
        });
        let took = match ran {
            Ok(took) => took,
            Err(error) => {
                if let Some(failure) = Failure::of(&error) {
                    let told = blocking(move || Ok(builder.fail(&failure.text())?)).await;
                    if let Err(error) = told {
                        tracing::debug!(%error, "those who wait are not told of the failure");
                    }
                }
                return Err(error);
            }
        };
        let workspace = guard.take()?;
        let kept = blocking(move || Ok(builder.keep(workspace, took)?)).await;
        self.clean();
        kept
    }

    /// Runs the setup command in a workspace, in a sandbox that ends with it.
    pub(crate) async fn run_setup(
        &self,
        guard: &Guard,
        ground: &Ground<'_>,
    ) -> Result<Duration, Error> {
        let &Ground {
            setup, toolchains, ..
        } = ground;
        let wanted = Wanted {
            channel: false,
            part: Part::Setup,
            // Whoever works in it later must not matter.
            programs: Vec::new(),
            extras: sandbox::Extras::default(),
            ..ground.wanted.clone()
        };
        let workspace = guard.workspace()?;
        let mut shown = ground.shown.to_vec();
        // What it leaves is of its own repository: where that is a layer, it only sees the others.
        if workspace.also_base_keys().next().is_none() {
            let others: Vec<Beside> = wanted.also.iter().map(Also::shown).collect();
            shown.extend(self.shown(&others).await?);
        }
        let (sandbox, way) = self.sandbox(workspace, toolchains, &wanted, &shown).await?;
        let watch = self.watch(workspace, &*sandbox);
        let besides = way.as_ref().map_or(&[][..], |way| &way.environment);
        let environment = environment(&*sandbox, toolchains, besides);
        let ran = shell(&*sandbox, &environment, &setup.command, setup.timeout).await;
        if let Some(way) = way {
            way.served.close().await;
        }
        sandbox.destroy().await?;
        if let Some(full) = watch.full() {
            return Err(full.into());
        }
        let ran = ran?;
        if !ran.exit.success() {
            return Err(Error::Setup {
                command: setup.command.clone(),
                how: ran.exit.to_string(),
                output: ran.tail(2_000),
            });
        }
        Ok(ran.duration)
    }
}

/// A path or a glob as it is told.
fn shown(text: &str) -> String {
    text.escape_debug().take(MOST_SHOWN).collect()
}

/// The path at which a layer that was made from inputs does not fit over a commit, if there is one.
async fn fits(
    mirror: Mirror,
    tree: TreeId,
    layer: SetupLayer,
    sees: Sees,
) -> Result<Option<String>, Error> {
    let Sees::Inputs(files) = sees else {
        return Ok(None);
    };
    blocking(move || {
        let misfit = layer.misfit::<Error>(&mut |path| {
            Ok(match mirror.entry_in(tree, path)? {
                None => Tracked::Nothing,
                Some(entry) if entry.kind == git::FileKind::Directory => Tracked::Directory,
                Some(_) if key::is_among(&files, path) => Tracked::Seen,
                Some(_) => Tracked::Unseen,
            })
        })?;
        Ok(misfit.map(|path| shown(&path.to_string())))
    })
    .await
}
