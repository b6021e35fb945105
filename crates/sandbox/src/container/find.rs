//! Which engine there is on this machine.

use std::ffi::{OsStr, OsString};
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
            let podman = || program("podman").map(|podman| start(podman, &[]));
            let user = rustix::process::geteuid().as_raw();
            found(
                |name| std::env::var_os(name),
                sockets(Path::new("/run"), user),
                podman,
            )
        }
    }
}

/// The engine that there is, of those that have a name in this environment, a socket of these or a
/// program.
fn found(
    env: impl Fn(&str) -> Option<OsString>,
    [podman, docker]: [Vec<PathBuf>; 2],
    program: impl FnOnce() -> Option<Way>,
) -> Result<Way, Error> {
    for name in NAMES {
        if let Some(address) = env(name).filter(|address| !address.is_empty()) {
            return named(name, &address);
        }
    }
    serving(&podman)
        .or_else(program)
        .or_else(|| serving(&docker))
        .ok_or_else(|| refused(&docker).unwrap_or_else(missing))
}

fn served(path: &Path) -> Result<Way, Error> {
    UnixStream::connect(path)
        .map(|_| Way::Socket(path.to_owned()))
        .map_err(|error| unreachable(path, &error))
}

/// The engine that this variable names.
fn named(variable: &str, address: &OsStr) -> Result<Way, Error> {
    match address.to_str().and_then(|it| it.strip_prefix("unix://")) {
        Some(path) => served(Path::new(path)),
        // What it holds may be a secret.
        None => Err(Error::engine(
            Trouble::EngineUnreachable,
            format!("{variable} names no socket of this machine (unix://PATH)"),
        )),
    }
}

/// Where Podman and Docker listen by custom, for this user.
fn sockets(run: &Path, user: u32) -> [Vec<PathBuf>; 2] {
    let (podman, docker) = ("podman/podman.sock", "docker.sock");
    if user == 0 {
        return [vec![run.join(podman)], vec![run.join(docker)]];
    }
    let own = run.join(format!("user/{user}"));
    [
        vec![own.join(podman)],
        vec![own.join(docker), run.join(docker)],
    ]
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
    use std::fs;
    use std::os::unix::net::UnixListener;

    const USER: u32 = 1000;

    /// The sockets of a machine: those that are named are served.
    struct Machine {
        run: tempfile::TempDir,
        _served: Vec<UnixListener>,
    }

    impl Machine {
        fn serving(sockets: &[&str]) -> Self {
            let run = tempfile::tempdir().unwrap();
            for directory in ["podman", "user/1000/podman"] {
                fs::create_dir_all(run.path().join(directory)).unwrap();
            }
            let bind = |socket: &&str| UnixListener::bind(run.path().join(socket)).unwrap();
            let _served = sockets.iter().map(bind).collect();
            Self { run, _served }
        }

        /// What is found where no variable names an engine.
        fn found(&self, user: u32, program: bool) -> Result<Way, Error> {
            let sockets = sockets(self.run.path(), user);
            found(|_| None, sockets, || program.then(started))
        }

        fn at(&self, socket: &str) -> Way {
            Way::Socket(self.run.path().join(socket))
        }
    }

    fn why(refused: Result<Way, Error>) -> Trouble {
        match refused.unwrap_err() {
            Error::Engine { trouble, .. } => trouble,
            other => panic!("{other:?}"),
        }
    }

    fn started() -> Way {
        Way::Start {
            podman: "podman".into(),
            arguments: Vec::new(),
        }
    }

    const OWN_PODMAN: &str = "user/1000/podman/podman.sock";
    const OWN_DOCKER: &str = "user/1000/docker.sock";
    const DOCKER: &str = "docker.sock";
    const PODMAN: &str = "podman/podman.sock";

    #[test]
    fn an_engine_of_the_users_own_goes_before_one_of_root_and_podman_before_docker() {
        let all = [OWN_PODMAN, OWN_DOCKER, DOCKER, PODMAN];
        for served in 0..all.len() {
            let machine = Machine::serving(&all[served..]);
            let own = |socket: &str| all[served..].contains(&socket).then(|| machine.at(socket));
            let with = own(OWN_PODMAN).unwrap_or_else(started);
            assert_eq!(machine.found(USER, true).unwrap(), with, "{served}");
            let without = [OWN_PODMAN, OWN_DOCKER, DOCKER]
                .iter()
                .find_map(|it| own(it));
            assert_eq!(machine.found(USER, false).ok(), without, "{served}");
            // Root's own is that of root.
            assert_eq!(machine.found(0, false).unwrap(), machine.at(PODMAN));
        }
        let docker = Machine::serving(&[DOCKER]);
        assert_eq!(docker.found(0, true).unwrap(), started());
        assert_eq!(docker.found(0, false).unwrap(), docker.at(DOCKER));
    }

    #[test]
    fn a_socket_that_nobody_serves_is_passed_over_and_named_where_nothing_else_is() {
        let machine = Machine::serving(&[DOCKER]);
        for dead in [OWN_PODMAN, OWN_DOCKER] {
            drop(UnixListener::bind(machine.run.path().join(dead)).unwrap());
        }
        assert_eq!(machine.found(USER, true).unwrap(), started());
        assert_eq!(machine.found(USER, false).unwrap(), machine.at(DOCKER));
        let machine = Machine::serving(&[]);
        assert_eq!(why(machine.found(USER, false)), Trouble::EngineMissing);
        drop(UnixListener::bind(machine.run.path().join(OWN_DOCKER)).unwrap());
        assert_eq!(why(machine.found(USER, false)), Trouble::EngineUnreachable);
    }

    #[test]
    fn what_a_person_names_goes_before_all_or_is_refused() {
        let machine = Machine::serving(&[OWN_PODMAN, DOCKER, PODMAN]);
        let named = |pairs: &[(&str, String)]| {
            let env = |name: &str| {
                let pair = pairs.iter().find(|it| it.0 == name);
                pair.map(|it| OsString::from(&it.1))
            };
            found(env, sockets(machine.run.path(), USER), || Some(started()))
        };
        let url = |socket: &str| format!("unix://{}", machine.run.path().join(socket).display());
        let (podman, docker) = (url(PODMAN), url(DOCKER));
        let both = [("DOCKER_HOST", docker.clone()), ("CONTAINER_HOST", podman)];
        assert_eq!(named(&both).unwrap(), machine.at(PODMAN));
        let one = [("CONTAINER_HOST", String::new()), ("DOCKER_HOST", docker)];
        assert_eq!(named(&one).unwrap(), machine.at(DOCKER));
        for wrong in [url("nowhere.sock"), "tcp://127.0.0.1:2375".to_owned()] {
            let refused = named(&[("DOCKER_HOST", wrong)]);
            assert_eq!(why(refused), Trouble::EngineUnreachable);
        }
    }

    #[test]
    fn where_no_engine_is_there_it_is_said_how_to_get_one() {
        assert_eq!(Trouble::of_error(&missing()), Some(Trouble::EngineMissing));
        assert!(Trouble::EngineMissing.remedy().contains("apt-get install"));
    }
}
