//! `skep demo`.

use super::run::{About, header, stat};
use crate::{
    config::DEFAULT_AGENT,
    context::Context,
    demo::{
        model::{self, Model},
        probe::{Bait, Report},
        repository::{self, Variant},
        tell,
    },
    exit::Exit,
    report::Error,
    signals::Signals,
    view::{
        patch,
        result::{self, Outcome},
        story::Story,
    },
    watch::{self, Ended},
};
use dialects::{Dialect, Price, Prices};
use domain::{
    RequestId,
    entity::Planning,
    event::{Agent, Body},
};
use gateway::Providers;
use sandbox::Kind;
use server::{New, Node};
use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

/// How many jobs of the demo run at once.
const PARALLEL: u32 = 3;
/// The longest patch that is shown, in bytes.
const MAX_PATCH: usize = 64 << 10;
/// How many events are read at once.
const PAGE: usize = 1_000;

/// See everything at work on a small repository, without a model or a key
///
/// It makes a repository with bugs and failing tests, and gives four jobs to the built-in agent,
/// three at once, each in its sandbox. The model is a script and says so; all else is real.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep demo\n  skep demo --dir worklog   # keep the repository")]
pub(crate) struct Args {
    /// Make the repository there and keep it; its tests fail at its first commit, and pass on
    /// skep/integration
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let path = context.env.get("PATH").unwrap_or_default();
    let place = Place::find(args.dir.as_deref(), context)?;
    let variant = Variant::found(&path).await;
    make_repository(variant, &place.repository, &path).await?;
    let tests = first_tests(variant, &place.repository, &path).await?;
    let bait = Bait::lay().await.map_err(system("preparing the probe"))?;
    let outside = bait
        .probe_outside(&path)
        .await
        .map_err(system("running the probe"))?;
    let script = variant
        .script(&bait.command())
        .map_err(|error| Error::Internal(domain::failure::chain(&error)))?;
    let model = Model::start(script, bait.canary().to_owned())
        .await
        .map_err(system("starting the scripted model"))?;
    let output = context.output;
    if !output.is_json() {
        output.aside(&tell::opening(variant, &place.repository, &tests));
    }
    let mut signals = Signals::listen()?;
    let tour = Tour {
        context,
        place: &place,
        variant,
        path,
    };
    let toured = tour.take(&model, &mut signals).await;
    let inside = toured.as_ref().ok().and_then(|toured| toured.probe.clone());
    let probed = tell::Probed {
        outside,
        inside,
        touched: bait.was_touched(),
        heard: model.heard_canary(),
    };
    model.close().await;
    bait.clear().await;
    let toured = toured?;
    if !output.is_json() && is_heard(toured.exit) {
        let kept = args.dir.is_some().then_some(place.repository.as_path());
        output.say(&toured.text)?;
        output.say(&tell::probe(&probed, output.width()))?;
        output.say(&tell::closing(&tests, toured.exit, toured.request, kept))?;
    }
    place.clear()?;
    // What must hold is what the demo is for: a hole in the sandbox is no success.
    if toured.exit == Exit::Done && !probed.is_sealed() {
        return Ok(Exit::Failed);
    }
    Ok(toured.exit)
}

/// Whether anybody is left to read what is said.
const fn is_heard(exit: Exit) -> bool {
    !matches!(exit, Exit::OutputClosed | Exit::HungUp)
}

fn system(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { doing, source }
}

/// Where the demo happens.
struct Place {
    repository: PathBuf,
    data: PathBuf,
    /// What goes away with the demo.
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn find(dir: Option<&Path>, context: &Context) -> Result<Self, Error> {
        if let Some(dir) = dir {
            let (config, _) = context.config()?;
            let repository = context.directory.join(dir);
            let taken = std::fs::read_dir(&repository)
                .map(|mut entries| entries.next().is_some())
                .unwrap_or(false);
            if taken || repository.is_file() {
                return Err(Error::Refused {
                    message: format!(
                        "{} is there already, and is not empty",
                        repository.display()
                    ),
                    hint: "name a directory that does not exist yet".into(),
                });
            }
            return Ok(Self {
                repository,
                data: context.data(&config)?,
                temporary: None,
            });
        }
        let temporary = tempfile::Builder::new()
            .prefix("skep-demo-")
            .tempdir()
            .map_err(system("making a temporary directory"))?;
        Ok(Self {
            repository: temporary.path().join("worklog"),
            data: temporary.path().join("data"),
            temporary: Some(temporary),
        })
    }

    fn clear(self) -> Result<(), Error> {
        match self.temporary {
            Some(temporary) => {
                let path = temporary.path().to_owned();
                temporary.close().map_err(|source| Error::File {
                    doing: "removing",
                    path,
                    source,
                })
            }
            None => Ok(()),
        }
    }
}

/// Makes the repository, with one commit, by nobody's configuration but its own.
async fn make_repository(variant: Variant, at: &Path, path: &OsStr) -> Result<(), Error> {
    let file = |source| Error::File {
        doing: "writing the repository",
        path: at.into(),
        source,
    };
    std::fs::create_dir_all(at).map_err(file)?;
    variant.write(at).map_err(file)?;
    for arguments in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "--all"],
        &["commit", "--quiet", "--message=A week of work, with bugs"],
    ] {
        let mut command = vec![
            "git",
            "-c",
            "user.name=Skep demo",
            "-c",
            "user.email=demo@localhost",
            "-c",
            "commit.gpgsign=false",
        ];
        command.extend(arguments);
        let ended = repository::run(&command, at, path)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => {
                    Error::Node(server::Error::Git(git::Error::ProgramMissing))
                }
                _ => system("making the repository")(source),
            })?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Err(system("making the repository")(io::Error::other(said)));
        }
    }
    Ok(())
}

/// Runs the tests at the first commit, outside of a sandbox: they are Skep's own.
async fn first_tests(variant: Variant, at: &Path, path: &OsStr) -> Result<tell::Tests, Error> {
    let ended = repository::run(variant.tests(), at, path)
        .await
        .map_err(system("running the tests of the repository"))?;
    Ok(tell::Tests {
        command: variant.tests().join(" "),
        passed: ended.status.success(),
    })
}

struct Tour<'a> {
    context: &'a Context,
    place: &'a Place,
    variant: Variant,
    path: OsString,
}

/// What came of it.
struct Toured {
    request: RequestId,
    exit: Exit,
    text: String,
    /// What the probe said inside.
    probe: Option<Report>,
}

impl Tour<'_> {
    async fn take(&self, model: &Model, signals: &mut Signals) -> Result<Toured, Error> {
        let node = Node::open(self.options(model)?).await?;
        let plan = self
            .variant
            .plan()
            .map_err(|error| Error::Internal(domain::failure::chain(&error)))?;
        let submitted = node
            .submit(New {
                path: self.place.repository.clone(),
                chosen: server::Chosen::default(),
                prompt: "Make the week add up".into(),
                planning: Planning::Given,
                plan: Some(plan),
                agent: DEFAULT_AGENT.into(),
                model: Some(format!("{}/{}", model::PROVIDER, model::NAME)),
                budget: None,
                dirty: false,
                parallel: PARALLEL,
                placement: domain::entity::Placement::default(),
                key: None,
                retry_of: None,
            })
            .await?;
        let output = self.context.output;
        if !output.is_json() {
            let about = About {
                agent: DEFAULT_AGENT,
                sandbox: Kind::Namespace,
                devices: node.devices(),
                nested: node.nested(),
                parallel: PARALLEL,
            };
            output.aside(&header(&submitted, &about));
        }
        let (request, session) = (submitted.request, submitted.session);
        let Ended { story, exit, .. } =
            watch::work(&node, request, session, output, signals, None).await?;
        let probe = said_inside(&node, request).await?;
        let mut text = String::new();
        if !output.is_json() && is_heard(exit) {
            let diff = node
                .diff(ledger::Found::Request(request), MAX_PATCH)
                .await
                .ok();
            let files: Vec<_> = diff
                .iter()
                .flat_map(|diff| diff.files.iter().map(stat))
                .collect();
            let outcome = Outcome {
                request,
                story: &story,
                spent: node.ledger().spent(request).await?,
                checked: submitted.checked,
                files: &files,
                fetched: None,
                width: output.width(),
            };
            let shown = diff.map(|diff| patch::render(&diff.patch));
            text = result::with_patch(&outcome, shown.as_deref().unwrap_or_default());
            text.push_str(&tell::seen(&story, &changed(&node, &story).await));
        }
        node.close().await;
        Ok(Toured {
            request,
            exit,
            text,
            probe,
        })
    }

    fn options(&self, model: &Model) -> Result<server::Options, Error> {
        let mut prices = Prices::builtin();
        prices.set(
            format!("{}/{}", model::PROVIDER, model::NAME),
            Price::flat(0, 0),
        );
        let scripted = gateway::Settings {
            name: model::PROVIDER.into(),
            dialects: vec![Dialect::ChatCompletions],
            base_url: model.base_url(),
            key: None,
            default_model: Some(model::NAME.into()),
            models: vec![model::NAME.into()],
            times: gateway::Times::default(),
        };
        Ok(server::Options {
            data: self.place.data.clone(),
            path: self.path.clone(),
            home: self.context.env.home()?,
            env: self.context.env.without(Vec::new()),
            providers: Providers::new([scripted], prices)?,
            default_model: None,
            sandbox: Kind::Namespace,
            container: sandbox::container::Options::default(),
            notify: Vec::new(),
            disk: server::DiskBounds::default(),
            shares: server::Shares::default(),
            devices: Vec::new(),
            nested: false,
            admission: ledger::Admission::default(),
            egress: std::sync::Arc::new(gateway::Fixed::default()),
            forges: server::Forges::default(),
        })
    }
}

/// The files that each job changed and that landed.
async fn changed(node: &Node, story: &Story) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for job in story.jobs.iter().filter(|job| job.outcome() == Some(true)) {
        let Some(change) = job.change() else { continue };
        if let Ok(diff) = node.diff(ledger::Found::Change(change.id), 0).await {
            let paths = diff.files.iter().map(|file| file.path.to_string());
            all.push((job.name.clone(), paths.collect()));
        }
    }
    all
}

/// What the probe said in its sandbox, as the log has it.
async fn said_inside(node: &Node, request: RequestId) -> Result<Option<Report>, Error> {
    let mut after = 0;
    loop {
        let page = node.ledger().request_events(request, after, PAGE).await?;
        for envelope in &page {
            after = envelope.sequence;
            if let Body::Agent {
                event: Agent::ToolResult { output, .. },
                ..
            } = &envelope.body
                && Report::is_in(output)
            {
                return Ok(Some(Report::read(output)));
            }
        }
        if page.len() < PAGE {
            return Ok(None);
        }
    }
}
