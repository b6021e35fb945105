//! Files in and out of a sandbox: what is asked of it, and what an owner does with the bytes.
//!
//! The work is done inside, by a process of ours with the rights of commands: a link that was left there
//! leads it nowhere but inside. Its owner opens no path of the workspace; it sees an archive.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::archive::local::name_of;
use crate::archive::{self, Bounds, Progress, Reader, Writer};
use crate::namespace::wire;
use crate::{Command, Error, Exit, Process, Sandbox, Stdin};

/// What is carried.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Carry {
    /// How.
    pub task: Task,
    /// From where, or where to: a path as seen by commands; relative ones begin in the workspace.
    pub path: OsString,
    /// After this long it is ended.
    pub timeout: Option<Duration>,
}

/// How something is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Out: what is at the path comes under its own name. Of a directory that is named with `.` at the
    /// end only what is in it.
    Out,
    /// Out: what is in the directory at the path, without contents, for [`Reader::next_listed`].
    List,
    /// Out: the files and links below the directory at the path that the input names, with a zero byte
    /// behind each, in that order. What is neither ends it.
    Pick,
    /// In: as `cp -r` does, into the directory at the path or else under that name.
    In,
    /// In: into the directory at the path, which is made where there is none.
    Fill,
}

impl Task {
    /// Whether nothing inside is written by it: our own program reads, and no other runs.
    pub(crate) fn reads(self) -> bool {
        match self {
            Self::Out | Self::List | Self::Pick => true,
            Self::In | Self::Fill => false,
        }
    }
}

impl Carry {
    /// Without a limit of time.
    pub fn new(task: Task, path: impl Into<OsString>) -> Self {
        Self {
            task,
            path: path.into(),
            timeout: None,
        }
    }

    /// Sets the time after which it is ended.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// As the inside reads it.
    pub(crate) fn command(&self, workspace: &Path) -> Command {
        let (task, stdin) = match self.task {
            Task::Out => (wire::CARRY_OUT, Stdin::Null),
            Task::List => (wire::CARRY_LIST, Stdin::Null),
            Task::Pick => (wire::CARRY_PICK, Stdin::Pipe),
            Task::In => (wire::CARRY_IN, Stdin::Pipe),
            Task::Fill => (wire::CARRY_FILL, Stdin::Pipe),
        };
        let name = match self.task {
            Task::Out => name_of(Path::new(&self.path))
                .map(OsString::from)
                .unwrap_or_default(),
            _ => OsString::new(),
        };
        let words = [OsString::from_vec(task.to_vec()), self.path.clone(), name];
        let mut command = Command::new(words, workspace).with_stdin(stdin);
        command.timeout = self.timeout;
        command
    }
}

/// The owner's ends of what is carried.
#[derive(Debug)]
pub struct Ends {
    /// What goes in.
    pub stdin: Option<pipe::Sender>,
    /// What comes out.
    pub stdout: pipe::Receiver,
    /// What failed.
    pub stderr: pipe::Receiver,
}

impl Ends {
    /// Takes them of a process that carries; none where it has them no more.
    pub fn of(process: &mut Process) -> Option<Self> {
        Some(Self {
            stdin: process.stdin.take(),
            stdout: process.stdout.take()?,
            stderr: process.stderr.take()?,
        })
    }
}

/// Carries something out of a sandbox, and gives it to `work`, on a thread that may block. When this is
/// dropped, what carries inside is killed, and `work` finds that the archive has ended.
///
/// # Errors
/// What failed inside, or what `work` says.
pub async fn copy_out<T: Send + 'static>(
    sandbox: &dyn Sandbox,
    carry: Carry,
    bounds: Bounds,
    work: impl FnOnce(&mut Reader<File>) -> Result<T, archive::Error> + Send + 'static,
) -> Result<T, Error> {
    let mut process = sandbox.carry(carry).await?;
    let ends = Ends::of(&mut process).ok_or(Error::Gone)?;
    receive(ends, process.wait(), (bounds, Progress::default()), work).await
}

/// Carries into a sandbox what `work` writes, on a thread that may block. When this is dropped, what
/// carries inside is killed, and `work` finds that nobody reads any more.
///
/// # Errors
/// What failed inside, or what `work` says.
pub async fn copy_in<T: Send + 'static>(
    sandbox: &dyn Sandbox,
    carry: Carry,
    work: impl FnOnce(&mut Writer<File>) -> Result<T, archive::Error> + Send + 'static,
) -> Result<T, Error> {
    let mut process = sandbox.carry(carry).await?;
    let ends = Ends::of(&mut process).ok_or(Error::Gone)?;
    send(ends, process.wait(), Progress::default(), work).await
}

/// Reads what is carried out, wherever the sandbox is held. `exit` is the end of what carries.
///
/// # Errors
/// What failed inside, or what `work` says.
pub async fn receive<T: Send + 'static, E: From<Error>>(
    ends: Ends,
    exit: impl Future<Output = Result<Exit, E>>,
    (bounds, progress): (Bounds, Progress),
    work: impl FnOnce(&mut Reader<File>) -> Result<T, archive::Error> + Send + 'static,
) -> Result<T, E> {
    let Ends {
        stdin,
        stdout,
        stderr,
    } = ends;
    drop(stdin);
    let stdout = stdout.into_blocking_fd().map_err(streams)?;
    let working = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::new(File::from(stdout), bounds).watched(progress);
        work(&mut reader)
    });
    settle(working, exit, stderr).await
}

/// Writes what is carried in, wherever the sandbox is held. `exit` is the end of what carries.
///
/// # Errors
/// What failed inside, or what `work` says.
pub async fn send<T: Send + 'static, E: From<Error>>(
    ends: Ends,
    exit: impl Future<Output = Result<Exit, E>>,
    progress: Progress,
    work: impl FnOnce(&mut Writer<File>) -> Result<T, archive::Error> + Send + 'static,
) -> Result<T, E> {
    let Ends {
        stdin,
        stdout,
        stderr,
    } = ends;
    drop(stdout);
    let stdin = stdin.ok_or(Error::Gone)?;
    let stdin = stdin.into_blocking_fd().map_err(streams)?;
    let working = tokio::task::spawn_blocking(move || {
        let mut writer = Writer::new(File::from(stdin)).watched(progress);
        let done = work(&mut writer)?;
        writer.finish()?;
        Ok(done)
    });
    settle(working, exit, stderr).await
}

/// Asks for what is carried out, piece by piece, wherever the sandbox is held: for [`Task::Pick`].
/// `exit` is the end of what carries, and comes when what asks is dropped.
///
/// # Errors
/// What failed inside, or what `work` says.
pub async fn exchange<T: Send + 'static, E: From<Error>>(
    ends: Ends,
    exit: impl Future<Output = Result<Exit, E>>,
    bounds: Bounds,
    work: impl FnOnce(File, Reader<File>) -> Result<T, archive::Error> + Send + 'static,
) -> Result<T, E> {
    let Ends {
        stdin,
        stdout,
        stderr,
    } = ends;
    let stdin = stdin.ok_or(Error::Gone)?;
    let stdin = stdin.into_blocking_fd().map_err(streams)?;
    let stdout = stdout.into_blocking_fd().map_err(streams)?;
    let working = tokio::task::spawn_blocking(move || {
        work(File::from(stdin), Reader::new(File::from(stdout), bounds))
    });
    settle(working, exit, stderr).await
}

fn streams(source: std::io::Error) -> Error {
    Error::io("prepare a copy")(source)
}

/// Waits for both sides, and says what is nearest to the cause.
async fn settle<T, E: From<Error>>(
    working: tokio::task::JoinHandle<Result<T, archive::Error>>,
    exit: impl Future<Output = Result<Exit, E>>,
    stderr: pipe::Receiver,
) -> Result<T, E> {
    let (worked, exit, complaint) = tokio::join!(working, exit, complaint(stderr));
    let worked = worked.map_err(|error| streams(std::io::Error::other(error)))?;
    match worked {
        // What it failed of is said by the other side.
        Err(archive::Error::Ended) => {}
        Err(error) => return Err(Error::Archive(error).into()),
        Ok(done) => {
            verdict(exit?, &complaint)?;
            return Ok(done);
        }
    }
    verdict(exit?, &complaint)?;
    Err(Error::Archive(archive::Error::Ended).into())
}

/// What was said on the third stream, of which only so much counts.
async fn complaint(stderr: pipe::Receiver) -> Vec<u8> {
    const LONGEST: u64 = 8 + 4096;
    let mut said = Vec::new();
    let mut stderr = stderr.take(LONGEST);
    if let Err(error) = stderr.read_to_end(&mut said).await {
        tracing::debug!(%error, "what failed in a sandbox is not heard");
    }
    said
}

/// How it ended inside.
fn verdict(exit: Exit, complaint: &[u8]) -> Result<(), Error> {
    if exit.success() {
        return Ok(());
    }
    let said = complaint
        .split_first_chunk::<4>()
        .and_then(|(doing, rest)| {
            let (errno, path) = rest.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*doing), i32::from_le_bytes(*errno), path))
        });
    match said {
        Some((doing, errno, path)) if exit.code == Some(1) => Err(Error::Carry {
            doing: doing_of(doing),
            path: OsString::from_vec(path.to_vec()).into(),
            source: std::io::Error::from_raw_os_error(errno),
        }),
        _ => Err(Error::CarryEnded { exit }),
    }
}

fn doing_of(doing: u32) -> &'static str {
    match doing {
        wire::CARRY_ENTER => "begin in the workspace for",
        wire::CARRY_OPEN => "open",
        wire::CARRY_LOOK => "look at",
        wire::CARRY_LIST_DIRECTORY => "list",
        wire::CARRY_MAKE => "make",
        wire::CARRY_REPLACE => "replace",
        wire::CARRY_WRITE => "write",
        wire::CARRY_RECEIVE => "receive",
        wire::CARRY_SEND => "send",
        _ => "read",
    }
}
