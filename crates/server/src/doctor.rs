//! What works on this machine, each thing tried for real.

mod models;

use crate::{Options, agents::HostAgents, node::backend};
use agents::{find, profile::Profile};
use sandbox::toolchains;
use worker::Agents;

/// Whether something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Good,
    /// It is missing, and Skep works without it.
    Lacking,
    /// Skep cannot work without it.
    Broken,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it belongs to: `sandbox`, `git`, `data`, `toolchains`, `agents` or `models`.
    pub area: &'static str,
    /// What was tried.
    pub name: String,
    /// Whether it works.
    pub health: Health,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn good(area: &'static str, name: impl Into<String>, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        Self {
            area,
            name,
            health: Health::Good,
            detail,
            remedy: None,
        }
    }

    fn bad(
        area: &'static str,
        name: impl Into<String>,
        health: Health,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (name, detail) = (name.into(), detail.into());
        Self {
            area,
            name,
            health,
            detail,
            remedy: Some(remedy.into()),
        }
    }
}

/// Tries everything that `run` needs. Providers are called only where `online` says so: a call costs
/// something.
pub async fn doctor(options: &Options, online: bool) -> Vec<Finding> {
    let data = data(options).await;
    // Where the data directory cannot be used, that is said already.
    let place = match data.health {
        Health::Broken => std::env::temp_dir(),
        _ => options.data.clone(),
    };
    let mut findings = vec![git(options), data];
    findings.extend(room(options));
    findings.extend(restored(options).await);
    findings.extend(sandboxes(options));
    // Asked before an engine is used: whoever uses one removes them.
    findings.extend(left_in_engine(options).await);
    let mut found = backend(options).probe(&place).await;
    if options.sandbox != sandbox::Kind::Container {
        found.extend(sandbox::container::found());
    }
    for found in found {
        let health = match (found.ok, found.optional) {
            (true, _) => Health::Good,
            (false, true) => Health::Lacking,
            (false, false) => Health::Broken,
        };
        findings.push(Finding {
            area: "sandbox",
            name: found.name.to_owned(),
            health,
            detail: found.detail,
            remedy: found.remedy,
        });
    }
    findings.extend(toolchains_inside(options).await);
    findings.extend(agents_here(options).await);
    findings.extend(models::models(options, online).await);
    findings
}

fn git(options: &Options) -> Finding {
    let found = git::Program::find(&options.path).and_then(|program| {
        let version = program.version()?;
        Ok(format!(
            "{}.{} at {}",
            version.major,
            version.minor,
            program.path().display()
        ))
    });
    match found {
        Ok(detail) => Finding::good("git", "git", detail),
        Err(error) => Finding::bad(
            "git",
            "git",
            Health::Broken,
            domain::failure::chain(&error),
            "install git 2.38 or newer",
        ),
    }
}

/// How many sandboxes of people there are, if there are any.
fn sandboxes(options: &Options) -> Option<Finding> {
    let name = "sandboxes";
    let tally = match crate::standing::tally(&options.data) {
        Ok(tally) => tally,
        Err(error) => {
            return Some(Finding::bad(
                "data",
                name,
                Health::Lacking,
                domain::failure::chain(&error),
                "`skep sandbox list` shows what there is",
            ));
        }
    };
    let stopped = tally.stopped.len().saturating_add(tally.past.len());
    let counts = [
        (tally.running.len(), "running"),
        (stopped, "stopped"),
        (tally.past.len(), "past their time"),
    ];
    let words = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = words
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    (!words.is_empty()).then(|| Finding::good("data", name, words.join(", ")))
}

async fn data(options: &Options) -> Finding {
    let tried = std::fs::create_dir_all(&options.data).and_then(|()| {
        let probe = options.data.join(format!("probe-{}", std::process::id()));
        std::fs::write(&probe, b"probe")?;
        std::fs::remove_file(&probe)?;
        Ok(std::fs::read_dir(&options.data)?.next().is_some())
    });
    let place = options.data.display().to_string();
    let broken = |detail: String, remedy: &str| {
        let detail = format!("{place}: {detail}");
        Finding::bad("data", "data directory", Health::Broken, detail, remedy)
    };
    match tried {
        // An empty one is left as it is.
        Ok(false) => Finding::good("data", "data directory", place),
        Ok(true) => match ledger::Ledger::open(ledger::Options::new(&options.data)).await {
            Ok(ledger) => {
                ledger.close().await;
                Finding::good("data", "data directory", place)
            }
            // Whatever opens it has the words for each way in which it can be lost.
            Err(error) => broken(
                domain::failure::chain(&error),
                "`skep list` says what to do about it",
            ),
        },
        Err(error) => broken(
            error.to_string(),
            "name a directory that you can write with --data or SKEP_DATA",
        ),
    }
}

/// That too little is free for anything to run, if it is so.
fn room(options: &Options) -> Option<Finding> {
    let error = options.disk.check(&options.data).err()?;
    Some(Finding::bad(
        "data",
        "disk",
        Health::Broken,
        domain::failure::chain(&error),
        "free some space (`skep gc` gives back what nothing needs), or name a directory on another disk with \
         --data or SKEP_DATA",
    ))
}

/// That the ledger was restored and nothing of it is done until it is taken over.
async fn restored(options: &Options) -> Option<Finding> {
    let detail = match ledger::Restoration::of(&options.data).await {
        Ok(found) => found?.to_string(),
        Err(error) => domain::failure::chain(&error),
    };
    Some(Finding::bad(
        "data",
        "restored ledger",
        Health::Broken,
        detail,
        "when the ledger that was backed up does not work any more, run `skep ledger take-over`",
    ))
}

/// Containers whose owners have ended. Where none can be there, no engine is asked.
async fn left_in_engine(options: &Options) -> Option<Finding> {
    let of = sandbox::container::Options {
        data: Some(options.data.clone()),
        ..sandbox::container::Options::default()
    };
    let (name, remedy) = ("left containers", "run `skep gc`");
    let left = sandbox::container::left(&of).await;
    let detail = if let Some(error) = &left.failed {
        format!(
            "processes that have ended used containers, and whether some are left is not known: {}",
            domain::failure::chain(error)
        )
    } else if !left.containers.is_empty() {
        let all = left.containers.join(", ");
        format!("of processes that have ended: {all}")
    } else if !left.forgotten.is_empty() {
        let all = left.forgotten.join(", ");
        format!("in engines that were not there for a week, some may be left: {all}")
    } else {
        return None;
    };
    let lacking = Health::Lacking;
    Some(Finding::bad("sandbox", name, lacking, detail, remedy))
}

/// The toolchains that a sandbox shows, each asked for its version inside one.
async fn toolchains_inside(options: &Options) -> Vec<Finding> {
    let found = if options.sandbox == sandbox::Kind::Host {
        site::unsealed(&site::Host {
            path: options.path.clone(),
            home: options.home.clone(),
            env: std::sync::Arc::clone(&options.env),
        })
    } else if backend(options).image().is_some() {
        site::of_image()
    } else {
        toolchains::discover(&toolchains::Input {
            path: options.path.clone(),
            home: options.home.clone(),
            env: &*options.env,
            extra_roots: Vec::new(),
        })
    };
    let mut findings = Vec::new();
    let inside = match Inside::open(options, &found).await {
        Ok(inside) => inside,
        Err(error) => {
            findings.push(Finding::bad(
                "toolchains",
                "sandbox",
                Health::Broken,
                format!(
                    "no sandbox with the toolchains can be made: {}",
                    domain::failure::chain(&error)
                ),
                "mend what is broken under `sandbox`, then try again",
            ));
            return findings;
        }
    };
    for (name, argument) in [
        ("cargo", "--version"),
        ("python3", "--version"),
        ("node", "--version"),
        ("npm", "--version"),
        ("go", "version"),
        ("java", "-version"),
        ("git", "--version"),
    ] {
        let known = found.found.iter().any(|tool| tool.name == name);
        match inside.version(name, argument).await {
            Some(version) => findings.push(Finding::good("toolchains", name, version)),
            None if known => findings.push(Finding::bad(
                "toolchains",
                name,
                Health::Lacking,
                "it is installed here, and does not run inside a sandbox",
                "name its directory under `toolchains.roots` in skep.toml",
            )),
            None => {}
        }
    }
    inside.close().await;
    for note in found.notes {
        findings.push(Finding::bad(
            "toolchains",
            "left out",
            Health::Lacking,
            note.what,
            note.remedy,
        ));
    }
    findings
}

/// A sandbox without a repository, to try programs in.
struct Inside {
    sandbox: Box<dyn sandbox::Sandbox>,
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    place: std::path::PathBuf,
}

impl Inside {
    async fn open(
        options: &Options,
        found: &toolchains::Toolchains,
    ) -> Result<Self, sandbox::Error> {
        let place = options.data.join(format!("doctor-{}", std::process::id()));
        let io = |source| sandbox::Error::Io {
            doing: "make a directory for the probe",
            source,
        };
        std::fs::create_dir_all(&place).map_err(io)?;
        let mut spec = sandbox::Spec::new(sandbox::Workspace::Directory(place.clone()));
        found.mount_into(&mut spec);
        let sandbox = match backend(options).create(spec).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                remove(&place);
                return Err(error);
            }
        };
        let environment = site::environment(&*sandbox, found, &[]);
        Ok(Self {
            sandbox,
            environment,
            place,
        })
    }

    async fn version(&self, program: &str, argument: &str) -> Option<String> {
        let command = sandbox::Command::new([program, argument], self.sandbox.workspace())
            .with_env(self.environment.iter().cloned())
            .with_timeout(std::time::Duration::from_secs(20));
        let output = sandbox::exec_captured(&*self.sandbox, command, 4096)
            .await
            .ok()?;
        let text = format!("{}{}", output.stdout.text(), output.stderr.text());
        let line = text.lines().next().unwrap_or_default().trim().to_owned();
        output.exit.success().then_some(line)
    }

    async fn close(self) {
        if let Err(error) = self.sandbox.destroy().await {
            tracing::warn!(%error, "the sandbox of the probe did not end well");
        }
        remove(&self.place);
    }
}

fn remove(place: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(place) {
        tracing::warn!(%error, "the directory of the probe could not be deleted");
    }
}

async fn agents_here(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finder = HostAgents {
        path: options.path.clone(),
    };
    for profile in Profile::shipped().unwrap_or_default() {
        let Some(program) = &profile.program else {
            if finder.find(&profile.name).is_ok() {
                findings.push(Finding::good(
                    "agents",
                    &profile.name,
                    profile.summary.clone(),
                ));
            }
            continue;
        };
        match find::find(&profile, &options.path) {
            Some(found) => findings.push(match found.version(&profile, &options.path).await {
                Some(version) => Finding::good("agents", &profile.name, version),
                None => Finding::bad(
                    "agents",
                    &profile.name,
                    Health::Lacking,
                    format!(
                        "`{}` is here, and does not tell its version",
                        program.binary
                    ),
                    format!(
                        "run `{} {}` to see why; `{}` installs it again",
                        program.binary,
                        program.version.join(" "),
                        program.install
                    ),
                ),
            }),
            None => findings.push(Finding::bad(
                "agents",
                &profile.name,
                Health::Lacking,
                format!("`{}` is not in PATH", program.binary),
                format!("install it with `{}`", program.install),
            )),
        }
    }
    findings
}
