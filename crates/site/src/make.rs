//! A commit made into a site: workspace, setup, sandbox.

use crate::{
    beside::Shown,
    elsewhere::{Elsewhere, refused},
    error::Error,
    fill,
    include::Included,
    open::{Guard, Sites, blocking, furnish, layers},
    pool::Recipe,
    setup::{Ground, SetUp},
    site::Site,
    wanted::Wanted,
    way::Way,
};
use domain::egress::Part;
use gateway::Egress;
use git::{Mirror, TreeId};
use sandbox::toolchains::{ToolMount, Toolchains};
use std::sync::Arc;
use workspace::{Base, Layering, Workspace};

impl Sites {
    /// Opens a site: workspace, setup, sandbox.
    ///
    /// # Errors
    /// When any part of it cannot be made; nothing is left behind then.
    pub async fn site(&self, mirror: &Mirror, wanted: Wanted) -> Result<Site, Error> {
        let has_files = self.abilities().local_files;
        let further = !wanted.also.is_empty() || !wanted.beside.is_empty();
        if !has_files && (wanted.setup.is_some() || further) {
            return Err(refused("neither setups nor further repositories go there"));
        }
        let base = self
            .base(&wanted.repository, mirror, wanted.base, None)
            .await?;
        let written = self.written(&wanted.also).await?;
        let also = self.also_bases(&wanted.also, &written).await?;
        let shown = self.shown(&wanted.beside).await?;
        let toolchains = self.toolchains(&wanted.extra_roots);
        let ground = wanted.setup.as_ref().map(|setup| Ground {
            mirror,
            wanted: &wanted,
            setup,
            base: &base,
            toolchains: &toolchains,
            shown: &shown,
        });
        let has_layers = self.store().layering() == Layering::Overlay;
        let (layer, mut set_up) = match ground.as_ref().filter(|_| has_layers) {
            Some(ground) => {
                let (layer, done) = self.set_up(ground).await?;
                (Some(layer), Some(done))
            }
            None => (None, None),
        };
        let egress = self.egress(&wanted);
        let recipe = Recipe {
            base: base.clone(),
            also,
            layer,
            toolchains: toolchains.clone(),
            shown: shown.clone(),
            channel: wanted.channel || egress.is_some(),
            wanted: wanted.clone(),
        };
        let (mut guard, ready) = match self.warm(&recipe).await {
            Some((workspace, sandbox)) => (Guard::new(self, workspace), Some(sandbox)),
            None => (self.workspace_of(&wanted.id, &recipe).await?, None),
        };
        if let Some(ground) = ground.filter(|_| !has_layers) {
            set_up = Some(self.set_up_alone(&mut guard, &ground).await?);
        }
        if let Some(tree) = wanted.tree {
            let mirror = mirror.clone();
            let base = wanted.base;
            guard
                .with(move |workspace| {
                    let edit = workspace.edit();
                    fill::fill(&mirror, mirror.tree_of(base)?, tree, &edit)
                })
                .await?;
        }
        for one in written.clone() {
            let Some(tree) = one.tree else { continue };
            guard
                .with(move |workspace| {
                    let edit = workspace.edit_also(&one.name)?;
                    fill::fill(&one.mirror, one.base, tree, &edit)
                })
                .await?;
        }
        let was_ready = ready.is_some();
        let sandbox = match ready {
            Some(sandbox) => sandbox,
            None => self.bare_sandbox(guard.workspace()?, &recipe).await?,
        };
        let elsewhere = match has_files {
            true => None,
            false => Some(Elsewhere::fill(&*sandbox, guard.workspace()?).await?),
        };
        let way = match egress {
            Some(egress) => Way::open(&egress, &*sandbox).await?,
            None => None,
        };
        let base = mirror.tree_of(wanted.base)?;
        let site = self.whole(guard, (sandbox, way), (mirror, base), (&toolchains, shown))?;
        let site = site.writing(written).elsewhere(elsewhere);
        Ok(site.set_up_as(set_up).was_ready_if(was_ready))
    }

    /// The site of a workspace and of the sandbox around it.
    pub(crate) fn whole(
        &self,
        mut guard: Guard,
        sandbox: (Box<dyn sandbox::Sandbox>, Option<Way>),
        (mirror, base): (&Mirror, TreeId),
        (toolchains, shown): (&Toolchains, Vec<Shown>),
    ) -> Result<Site, Error> {
        let workspace = guard.take()?;
        let watch = self.watch(&workspace, &*sandbox.0);
        let (sites, mirror) = (self.clone(), mirror.clone());
        let site = Site::new(sites, workspace, watch, sandbox, toolchains, mirror, base);
        Ok(site.showing(shown))
    }

    /// A workspace in which nothing has run but the setup whose layer it lies over.
    pub(crate) async fn workspace_of(&self, id: &str, recipe: &Recipe) -> Result<Guard, Error> {
        let (sites, id, base) = (self.clone(), id.to_owned(), recipe.base.clone());
        let also = recipe.also.clone();
        let workspace = if let Some(layer) = recipe.layer.clone() {
            let store = sites.store().clone();
            blocking(move || Ok(store.create_set_up_also(&id, &base, &layer, &also)?)).await?
        } else {
            let toolchains = recipe.toolchains.clone();
            let include = Arc::clone(&recipe.wanted.include);
            blocking(move || sites.workspace(&id, (&base, &also), &include, &toolchains)).await?
        };
        Ok(Guard::new(self, workspace))
    }

    /// Sets up a workspace that is a copy: it has no layers that others could share.
    async fn set_up_alone(&self, guard: &mut Guard, ground: &Ground<'_>) -> Result<SetUp, Error> {
        let took = self.run_setup(guard, ground).await?;
        let mut workspace = guard.take()?;
        let frozen = move || {
            workspace.freeze()?;
            Ok(workspace)
        };
        *guard = Guard::new(self, blocking(frozen).await?);
        Ok(SetUp::of(took, false))
    }

    fn workspace(
        &self,
        id: &str,
        (base, also): (&Base, &[(String, Base)]),
        include: &[Included],
        toolchains: &Toolchains,
    ) -> Result<Workspace, Error> {
        let mut workspace = self.store().create_also(id, base, also)?;
        for file in include {
            workspace
                .edit()
                .write(file.path.as_ref(), file.executable, &file.content)?;
        }
        if !include.is_empty() {
            workspace.freeze()?;
        }
        furnish(&workspace, toolchains)?;
        Ok(workspace)
    }

    /// The egress of a site that its policy grants, where the site serves that itself.
    fn egress(&self, wanted: &Wanted) -> Option<Egress> {
        let outlet = wanted.outlet.as_ref().filter(|_| !wanted.channel);
        outlet.and_then(|outlet| outlet.egress(wanted.part))
    }

    /// A sandbox around a workspace, with the way out that a policy grants.
    pub(crate) async fn sandbox(
        &self,
        workspace: &Workspace,
        toolchains: &Toolchains,
        wanted: &Wanted,
        shown: &[Shown],
    ) -> Result<(Box<dyn sandbox::Sandbox>, Option<Way>), Error> {
        let egress = self.egress(wanted);
        let channel = wanted.channel || egress.is_some();
        let sandbox = self
            .create(workspace, toolchains, wanted, shown, channel)
            .await?;
        let way = match egress {
            Some(egress) => Way::open(&egress, &*sandbox).await?,
            None => None,
        };
        Ok((sandbox, way))
    }

    /// A sandbox around a workspace, whose channel nobody serves yet.
    pub(crate) async fn bare_sandbox(
        &self,
        workspace: &Workspace,
        recipe: &Recipe,
    ) -> Result<Box<dyn sandbox::Sandbox>, Error> {
        let Recipe {
            toolchains,
            wanted,
            shown,
            channel,
            ..
        } = recipe;
        self.create(workspace, toolchains, wanted, shown, *channel)
            .await
    }

    async fn create(
        &self,
        workspace: &Workspace,
        toolchains: &Toolchains,
        wanted: &Wanted,
        shown: &[Shown],
        channel: bool,
    ) -> Result<Box<dyn sandbox::Sandbox>, Error> {
        let spec = self.spec(workspace, toolchains, wanted, shown, channel)?;
        Ok(self.options().backend.create(spec).await?)
    }

    fn spec(
        &self,
        workspace: &Workspace,
        toolchains: &Toolchains,
        wanted: &Wanted,
        shown: &[Shown],
        channel: bool,
    ) -> Result<sandbox::Spec, Error> {
        let options = self.options();
        if !self.abilities().local_files {
            let mut spec = sandbox::Spec::new(sandbox::Workspace::Own);
            spec.limits = options.limits;
            spec.channel_port = channel.then_some(0);
            // The kind says whether it can.
            spec.extras = self.extras(wanted)?;
            return Ok(spec);
        }
        let mut spec = sandbox::Spec::new(layers(workspace.layers()));
        let also = workspace.also_layers().into_iter();
        spec.also = also.map(|(name, files)| (name, layers(files))).collect();
        spec.home = Some(workspace.home());
        spec.tmp = sandbox::Tmp::Directory(workspace.tmp());
        spec.limits = options.limits;
        spec.channel_port = channel.then_some(0);
        spec.extras = self.extras(wanted)?;
        toolchains.mount_into(&mut spec);
        // Without a seal, programs are where the host has them; those of an image are in it.
        let is_shown =
            self.kind() != sandbox::Kind::Host && self.options().backend.image().is_none();
        spec.mounts.extend(shown.iter().map(Shown::mount));
        for program in wanted.programs.iter().filter(|_| is_shown) {
            let mounts = self.program(program);
            for mount in mounts.iter().filter_map(ToolMount::without_layer) {
                if spec.mounts.iter().all(|known| known.target != mount.inside) {
                    spec.mounts
                        .push(sandbox::Mount::read_only(mount.host, mount.inside));
                    spec.masked.extend(mount.masked);
                }
            }
        }
        Ok(spec)
    }

    /// What a sandbox gets beyond what every one has: what was asked for it, and what the user gives to
    /// all.
    fn extras(&self, wanted: &Wanted) -> Result<sandbox::Extras, Error> {
        let mut extras = wanted.extras.clone();
        if wanted.part == Part::Setup || !self.kind().is_sealed() {
            return Ok(extras);
        }
        extras.nested |= self.nested();
        let found = sandbox::devices::find(self.devices()).map_err(sandbox::Error::from)?;
        for device in found {
            if !extras.devices.contains(&device) {
                extras.devices.push(device);
            }
        }
        Ok(extras)
    }
}
