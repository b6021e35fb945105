//! Starting the processes that hold sandboxes.

use super::passed;
use crate::{
    context::Context,
    more,
    report::{Error, Report},
    signals::Signals,
};
use domain::SandboxId;
use sandbox::Secret;
use server::standing::{Berth, Record, fresh_id};
use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
};

/// The longest thing that the holder says: with it, fifty lines of a sidecar that failed.
const LONGEST: u64 = 1 << 20;
/// How long a holder may take to write down that it stands alone.
const SETTLES: Duration = Duration::from_secs(10);
/// How much of its diagnostics is shown where it says nothing.
const TAIL: usize = 2_000;

/// A holder that is to be started.
pub(super) struct Wanted {
    /// The sandbox that it is to start again, if it is not a new one.
    pub(super) stopped: Option<SandboxId>,
    /// The name of its sandbox.
    pub(super) name: Option<String>,
    /// How long it holds it; as long as it would be there anyway, of one that was stopped.
    pub(super) lasts: Option<Duration>,
    /// What of, as words for `skep sandbox hold`.
    pub(super) of: Vec<OsString>,
    /// The secrets that it is handed.
    pub(super) secrets: Vec<Secret>,
    /// Variables of the environment that it does not get.
    pub(super) without: Vec<OsString>,
    /// Whether it fetches something from a URL.
    pub(super) fetches: bool,
}

/// A holder that was started, and the conversation with it.
struct Begun {
    holder: Child,
    talk: UnixStream,
}

/// What the holder says when it is ready, or why it is not: one of the two.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Report>,
}

/// A sandbox whose holder is started.
struct Started {
    berth: Berth,
    /// Whether it is a new one, which goes where it is not wanted any more.
    is_new: bool,
    begun: Option<Begun>,
}

/// Starts these holders, one beside the other, and waits until all are ready. Where one is not, or this
/// process ends before, however it does, all of them end; nothing is left of new sandboxes, and others
/// stay stopped.
pub(super) async fn start(
    context: &Context,
    data: &Path,
    wanted: &[Wanted],
    signals: &mut Signals,
) -> Result<Vec<Record>, Error> {
    let mut started = Vec::new();
    let (told, tell) = io::pipe().map_err(pipes)?;
    let begun = begin_all(context, data, wanted, &told, &mut started);
    let ready = match begun {
        Ok(()) => signals.or(all_ready(&mut started, wanted)).await.flatten(),
        Err(error) => Err(error),
    };
    let ready = ready.and_then(|ready| {
        let_stand(tell, ready.len())?;
        Ok(ready)
    });
    if ready.is_ok() {
        for begun in started.iter_mut().filter_map(|it| it.begun.as_mut()) {
            settled(&mut begun.talk).await;
        }
        return ready;
    }
    for one in started {
        if let Some(mut begun) = one.begun {
            end(&mut begun.holder).await;
        }
        if one.is_new {
            one.berth.abandon(data);
        }
    }
    ready
}

/// Waits until a holder has written down that it stands alone, and lets go of its output then.
async fn settled(talk: &mut UnixStream) {
    let mut rest = Vec::new();
    let mut talk = talk.take(LONGEST);
    let written = talk.read_to_end(&mut rest);
    if tokio::time::timeout(SETTLES, written).await.is_err() {
        tracing::debug!("a holder does not let go of its output");
    }
}

fn pipes(source: io::Error) -> Error {
    Error::System {
        doing: "talking to the holders of sandboxes",
        source,
    }
}

/// Tells all holders at once that they stand alone from now on: each takes a byte, and the kernel writes
/// so few of them all or none. Holders to whom nothing was said end with this process.
fn let_stand(mut tell: io::PipeWriter, holders: usize) -> Result<(), Error> {
    let word = vec![b'.'; holders];
    match tell.write(&word).map_err(pipes)? {
        written if written == holders => Ok(()),
        _ => Err(pipes(io::ErrorKind::WriteZero.into())),
    }
}

fn begin_all(
    context: &Context,
    data: &Path,
    wanted: &[Wanted],
    told: &io::PipeReader,
    started: &mut Vec<Started>,
) -> Result<(), Error> {
    sandbox::pass_nothing_on().map_err(server::Error::from)?;
    for one in wanted {
        let berth = match one.stopped {
            Some(id) => Berth::claim(data, id),
            None => Berth::make(data, fresh_id(), one.name.as_deref()),
        };
        let berth = berth.map_err(server::Error::from)?;
        let holder = begin(one, context, &berth, data, told);
        let (holder, failed) = match holder {
            Ok(holder) => (Some(holder), None),
            Err(error) => (None, Some(error)),
        };
        started.push(Started {
            berth,
            is_new: one.stopped.is_none(),
            begun: holder,
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

async fn all_ready(started: &mut [Started], wanted: &[Wanted]) -> Result<Vec<Record>, Error> {
    // All are told what they wait for before the first is waited for.
    for (one, wanted) in started.iter_mut().zip(wanted) {
        if let (Some(begun), false) = (&mut one.begun, wanted.secrets.is_empty()) {
            let line = more::hand(&wanted.secrets)?;
            // One that has ended says why, or nothing, below.
            if let Err(error) = begun.talk.write_all(&line).await {
                tracing::debug!(%error, "a holder does not take its secrets");
            }
        }
    }
    let mut ready = Vec::new();
    for (one, wanted) in started.iter_mut().zip(wanted) {
        let Some(begun) = &mut one.begun else {
            continue;
        };
        match listen(&mut begun.talk).await? {
            Said {
                ready: Some(record),
                ..
            } => ready.push(record),
            Said {
                error: Some(report),
                ..
            } => return Err(Error::Told(Box::new(report))),
            Said { .. } => {
                return Err(Error::Holder {
                    how: last_words(&mut begun.holder, &one.berth).await,
                    stopped: wanted.stopped,
                });
            }
        }
    }
    Ok(ready)
}

/// Starts the holder, with nothing of this process but those of its variables that it reads.
fn begin(
    wanted: &Wanted,
    context: &Context,
    berth: &Berth,
    data: &Path,
    told: &io::PipeReader,
) -> Result<Begun, Error> {
    let system = |source| Error::System {
        doing: "starting the holder of the sandbox",
        source,
    };
    let log = berth.log().map_err(server::Error::from)?;
    let (file, config) = context.config()?;
    // Its output, and what it is handed: nothing of that is on a disk or in an argument.
    let (talk, theirs) = std::os::unix::net::UnixStream::pair().map_err(system)?;
    talk.set_nonblocking(true).map_err(system)?;
    let talk = UnixStream::from_std(talk).map_err(system)?;
    let mut command = Command::new(std::env::current_exe().map_err(system)?);
    command
        .arg("--data")
        .arg(data)
        .arg("-C")
        // One that was stopped needs nothing of where it was made.
        .arg(match wanted.stopped {
            Some(_) => Path::new("/"),
            None => &context.directory,
        })
        .args(["sandbox", "hold", &berth.id.to_string()])
        .env_clear()
        .envs(passed::variables(&context.env, &file, wanted.fetches))
        .env("SKEP_CONFIG", std::path::absolute(config).map_err(system)?)
        .current_dir("/")
        .stdin(told.try_clone().map_err(pipes)?)
        .stdout(std::os::fd::OwnedFd::from(theirs))
        .stderr(log);
    if wanted.stopped.is_some() {
        command.arg("--start");
    }
    if let Some(lasts) = wanted.lasts {
        command.args(["--for", &format!("{}s", lasts.as_secs())]);
    }
    if let Some(name) = &wanted.name {
        command.arg(format!("--name={name}"));
    }
    if !wanted.secrets.is_empty() {
        command.arg("--handed");
    }
    command.args(&wanted.of);
    for variable in &wanted.without {
        command.env_remove(variable);
    }
    let holder = command.spawn().map_err(system)?;
    Ok(Begun { holder, talk })
}

/// What the holder says; neither the one nor the other when it ended without a word.
async fn listen(talk: &mut UnixStream) -> Result<Said, Error> {
    let nothing = Said {
        ready: None,
        error: None,
    };
    let mut line = Vec::new();
    let mut output = BufReader::new(talk.take(LONGEST));
    let read = output.read_until(b'\n', &mut line).await;
    read.map_err(|source| Error::System {
        doing: "hearing from the holder of the sandbox",
        source,
    })?;
    Ok(serde_json::from_slice(&line).unwrap_or(nothing))
}

/// It ends what it has made, and itself.
async fn end(holder: &mut Child) {
    let pid = holder
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        tracing::debug!(%error, "the holder has ended already");
    }
    if let Err(error) = holder.wait().await {
        tracing::debug!(%error, "the holder cannot be waited for");
    }
}

/// How a holder ended that said nothing: what its diagnostics say, else by what.
async fn last_words(holder: &mut Child, berth: &Berth) -> String {
    let text = berth.last_words(TAIL).unwrap_or_default();
    match (
        text.trim(),
        tokio::time::timeout(SETTLES, holder.wait()).await,
    ) {
        ("", Ok(Ok(status))) => status.to_string(),
        ("", _) => "without a word".to_owned(),
        (words, _) => words.to_owned(),
    }
}
