//! The machine that toolchains come from.

use crate::open::Sites;
use sandbox::toolchains::{self, ToolMount, Toolchains};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The value of a variable of the host, by its name.
pub type Environment = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// What is known of the machine that toolchains come from.
#[derive(Clone)]
pub struct Host {
    /// Its `PATH`.
    pub path: OsString,
    /// The home of the user whose toolchains these are.
    pub home: PathBuf,
    /// Its environment, asked only for the variables of toolchains.
    pub env: Environment,
}

impl Sites {
    /// The toolchains of the host, as a sandbox sees them. The kind `host` sees them as they are.
    #[must_use]
    pub fn toolchains(&self, extra_roots: &[PathBuf]) -> Toolchains {
        let host = self.host();
        if !self.abilities().local_files {
            return of_image();
        }
        if self.kind() == sandbox::Kind::Host {
            return unsealed(host);
        }
        if self.options().backend.image().is_some() {
            return of_image();
        }
        toolchains::discover(&toolchains::Input {
            path: host.path.clone(),
            home: host.home.clone(),
            env: &*host.env,
            extra_roots: extra_roots.to_vec(),
        })
    }

    pub(crate) fn program(&self, program: &Path) -> Vec<ToolMount> {
        let host = self.host();
        let input = toolchains::Input {
            path: host.path.clone(),
            home: host.home.clone(),
            env: &*host.env,
            extra_roots: Vec::new(),
        };
        toolchains::agent_roots(program, &input)
    }
}

/// The toolchains where an image has them: nothing of the host is shown, and `PATH` is the image's.
#[must_use]
pub fn of_image() -> Toolchains {
    Toolchains {
        env: vec![no_compiled_files()],
        ..Toolchains::default()
    }
}

/// Compiled files are no part of a change.
fn no_compiled_files() -> (OsString, OsString) {
    ("PYTHONDONTWRITEBYTECODE".into(), "1".into())
}

/// Variables that say where toolchains are when the home is another one.
const TOOLCHAIN_VARIABLES: [&str; 9] = [
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "JAVA_HOME",
    "GOROOT",
    "GOPATH",
    "GOMODCACHE",
    "PYENV_ROOT",
    "VOLTA_HOME",
];

/// The toolchains of the host for a command that sees all of it: nothing is mounted or hidden.
#[must_use]
pub fn unsealed(host: &Host) -> Toolchains {
    let mut found = Toolchains {
        path: host.path.clone(),
        ..Toolchains::default()
    };
    // As in a sealed sandbox.
    found.env.push(no_compiled_files());
    for name in TOOLCHAIN_VARIABLES {
        let usual = match name {
            "CARGO_HOME" => Some(host.home.join(".cargo")),
            "RUSTUP_HOME" => Some(host.home.join(".rustup")),
            _ => None,
        };
        let usual = usual.filter(|place| place.is_dir());
        if let Some(value) = (host.env)(name).or(usual.map(PathBuf::into_os_string)) {
            found.env.push((name.into(), value));
        }
    }
    found
}
