//! Which engine there is on this machine.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::{Error, Trouble};

/// The variables by which people name an engine to its own programs.
const NAMES: [&str; 2] = ["CONTAINER_HOST", "DOCKER_HOST"];

/// Which engine makes containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that `CONTAINER_HOST` or `DOCKER_HOST` names; else the first of: Podman where its socket
    /// is served; Podman, started for as long as it is needed; Docker. Those of this user before those
    /// of root.
    #[default]
    Found,
    /// One that listens at this socket.
    Socket(PathBuf),
    /// Podman, started with these arguments before its command.
    Podman(Vec<OsString>),
}

impl Choice {
    /// Where it listens, if that is what is chosen.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Socket(path) => Some(path.clone()),
            Self::Found | Self::Podman(_) => None,
        }
    }
}

/// How an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Socket(PathBuf),
    Start {
        podman: PathBuf,
        arguments: Vec<OsString>,
    },
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "one listens at {}", path.display()),
            Self::Start { podman, .. } => write!(f, "{} is there", podman.display()),
        }
    }
}

pub(super) fn look(choice: &Choice) -> Result<Way, Error> {
    let start = |podman, arguments: &[OsString]| Way::Start {
        podman,
        arguments: machine()
            .into_iter()
            .chain(arguments.iter().cloned())
            .collect(),
    };
    match choice {
        Choice::Socket(path) => served(path),
        Choice::Podman(arguments) => program("podman")
            .map(|podman| start(podman, arguments))
            .ok_or_else(missing),
        Choice::Found => {
            if let Some(named) = NAMES.iter().find_map(|name| named(name)) {
                return named;
            }
            let [podman, docker] = sockets();
            serving(&podman)
                .or_else(|| program("podman").map(|podman| start(podman, &[])))
                .or_else(|| serving(&docker))
                .ok_or_else(|| refused(&docker).unwrap_or_else(missing))
        }
    }
}

fn served(path: &Path) -> Result<Way, Error> {
    UnixStream::connect(path)
        .map(|_| Way::Socket(path.to_owned()))
        .map_err(|error| unreachable(path, &error))
}

/// The engine that this variable names, where it names one.
fn named(variable: &str) -> Option<Result<Way, Error>> {
    let address = std::env::var_os(variable).filter(|address| !address.is_empty())?;
    let path = address.to_str().and_then(|it| it.strip_prefix("unix://"));
    Some(match path {
        Some(path) => served(Path::new(path)),
        // What it holds may be a secret.
        None => Err(Error::engine(
            Trouble::EngineUnreachable,
            format!("{variable} names no socket of this machine (unix://PATH)"),
        )),
    })
}

/// Where Podman and Docker listen by custom.
fn sockets() -> [Vec<PathBuf>; 2] {
    let user = rustix::process::geteuid();
    let own = PathBuf::from(format!("/run/user/{}", user.as_raw()));
    match user.is_root() {
        true => [
            vec!["/run/podman/podman.sock".into()],
            vec!["/run/docker.sock".into()],
        ],
        false => [
            vec![own.join("podman/podman.sock")],
            vec![own.join("docker.sock"), "/run/docker.sock".into()],
        ],
    }
}

fn serving(sockets: &[PathBuf]) -> Option<Way> {
    let path = sockets
        .iter()
        .find(|path| UnixStream::connect(path).is_ok())?;
    Some(Way::Socket(path.clone()))
}

/// Why the first of these that is there cannot be used.
fn refused(sockets: &[PathBuf]) -> Option<Error> {
    sockets
        .iter()
        .filter(|path| path.exists())
        .find_map(|path| Some(unreachable(path, &UnixStream::connect(path).err()?)))
}

fn unreachable(path: &Path, error: &std::io::Error) -> Error {
    Error::engine(
        Trouble::EngineUnreachable,
        format!("the engine at {} does not answer ({error})", path.display()),
    )
}

fn missing() -> Error {
    let what = "neither Podman nor Docker is there".to_owned();
    Error::engine(Trouble::EngineMissing, what)
}

/// What Podman must be told on this machine, which its own settings may not know.
fn machine() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--log-level=error".into()];
    if !Path::new("/run/systemd/system").exists() {
        arguments.push("--cgroup-manager=cgroupfs".into());
        arguments.push("--events-backend=file".into());
    }
    // crun refuses control groups of version 1.
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && program("runc").is_some() {
        arguments.push("--runtime=runc".into());
    }
    arguments
}

/// A program in `PATH`, or where engines look besides.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = path.to_string_lossy().into_owned() + ":" + crate::stdio::DEFAULT_PATH;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| {
            let data = std::fs::metadata(path);
            data.is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_engine_is_there_it_is_said_how_to_get_one() {
        assert_eq!(Trouble::of_error(&missing()), Some(Trouble::EngineMissing));
        assert!(Trouble::EngineMissing.remedy().contains("apt-get install"));
    }
}
