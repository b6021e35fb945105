//! What may never be seen inside, whoever asks for it.
//!
//! Two questions: may this path be a mount ([`Gate::refusal`]), and which names in a mounted
//! directory can hold a credential ([`is_credential`], [`CREDENTIAL_PLACES`]).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Visible in every sandbox.
const VISIBLE: [&str; 7] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];

/// Directories that hold many unrelated things: parts of them can be mounted, they cannot.
const BROAD: [&str; 14] = [
    "/",
    "/home",
    "/root",
    "/opt",
    "/srv",
    "/mnt",
    "/media",
    "/var",
    "/var/lib",
    "/var/cache",
    "/tmp",
    "/var/tmp",
    "/etc",
    "/Users",
];

/// Nothing below these is ever mounted: sockets, devices, the state of services.
const NEVER_BELOW: [&str; 9] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/var/log",
    "/var/spool",
    "/boot",
    "/lost+found",
];

/// The parts of `/etc` that a tool below `/usr` reads through a link.
const ETC_PREFIXES: [&str; 2] = ["/etc/java", "/etc/maven"];

/// Directories that hold credentials or private data wherever they are.
const PRIVATE_DIRECTORIES: [&str; 19] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".password-store",
    "keyrings",
    ".mozilla",
    ".thunderbird",
    ".claude",
    ".codex",
    ".gemini",
    ".bundle",
    ".terraform.d",
    ".subversion",
    ".gcloud",
    ".pki",
    ".git",
];

/// Directories of a home that mix tools with private data: parts can be mounted, they cannot.
const MIXED: [&str; 19] = [
    ".local",
    ".local/share",
    ".local/state",
    ".cache",
    ".cargo",
    ".m2",
    ".gradle",
    ".npm",
    ".nuget",
    ".gem",
    ".deno",
    ".bun",
    ".local/share/uv",
    ".local/share/mise",
    ".local/share/pipx",
    ".var",
    "Library",
    "snap",
    "Documents",
];

/// Directories of a home below which nothing is mounted.
const HOME_NEVER_BELOW: [&str; 3] = [".config", ".local/state", ".local/share/uv/credentials"];

/// File names that hold credentials, or may.
pub(super) const CREDENTIALS: [&str; 44] = [
    ".npmrc",
    "npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    "pip.conf",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".env",
    ".envrc",
    ".condarc",
    "condarc",
    "credentials",
    "credentials.toml",
    "credentials.json",
    "credentials.tfrc.json",
    ".credentials",
    ".credentials.json",
    "auth.json",
    "auth.toml",
    ".dockercfg",
    ".pgpass",
    ".my.cnf",
    ".vault-token",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    ".htpasswd",
    "NuGet.Config",
    "nuget.config",
    "gradle.properties",
    "settings-security.xml",
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".node_repl_history",
    ".psql_history",
    ".sqlite_history",
    "bunfig.toml",
    ".bunfig.toml",
    ".boto",
    ".s3cfg",
];

/// Programs that were installed in a private directory.
const HOME_EXCEPTIONS: [&str; 1] = [".claude/local/node_modules"];

/// Places below a mounted root, other than directly in it, where tools keep credentials.
pub(super) const CREDENTIAL_PLACES: [&str; 8] = [
    "etc/npmrc",
    "etc/pip.conf",
    "etc/gitconfig",
    "etc/conda/.condarc",
    "etc/conda/condarc",
    "conf/management/jmxremote.password",
    "management/jmxremote.password",
    "lib/management/jmxremote.password",
];

/// Credentials below `/usr` that every sandbox would see.
pub(super) const SYSTEM_CREDENTIALS: [&str; 6] = [
    "/usr/etc/npmrc",
    "/usr/local/etc/npmrc",
    "/usr/local/etc/gitconfig",
    "/usr/local/etc/pip.conf",
    "/usr/local/pip.conf",
    "/usr/local/.npmrc",
];

/// Whether a file or directory of this name holds credentials, or may.
pub fn is_credential(name: &OsStr) -> bool {
    CREDENTIALS.iter().any(|it| name == OsStr::new(it))
        || PRIVATE_DIRECTORIES
            .iter()
            .any(|it| *it != ".git" && name == OsStr::new(it))
        || name.as_bytes().starts_with(b".env.")
        || name.as_bytes().starts_with(b"credentials.")
}

/// Whether a path is seen in every sandbox without a mount.
pub(super) fn is_visible(path: &Path) -> bool {
    VISIBLE.iter().any(|root| path.starts_with(root))
}

/// What may be mounted for one user.
pub(super) struct Gate {
    homes: Vec<PathBuf>,
}

impl Gate {
    /// A gate for the user with this home.
    pub(super) fn new(home: &Path) -> Gate {
        let mut homes = vec![home.to_owned()];
        if let Ok(real) = home.canonicalize()
            && real != home
        {
            homes.push(real);
        }
        Gate { homes }
    }

    /// Whether a path is in the user's home, or in any other home.
    pub(super) fn in_a_home(&self, path: &Path) -> bool {
        self.homes.iter().any(|home| path.starts_with(home))
            || ((path.starts_with("/home") || path.starts_with("/root"))
                && !path.starts_with("/home/linuxbrew"))
    }

    /// Why a path may not be mounted; nothing when it may.
    pub(super) fn refusal(&self, path: &Path) -> Option<&'static str> {
        let plain = path.is_absolute()
            && path
                .components()
                .all(|it| matches!(it, Component::RootDir | Component::Normal(_)));
        if !plain {
            return Some("it is not an absolute path");
        }
        if BROAD.iter().any(|it| path == Path::new(it)) {
            return Some("it holds more than a toolchain");
        }
        if NEVER_BELOW.iter().any(|it| path.starts_with(it)) {
            return Some("it belongs to the system");
        }
        if path.starts_with("/etc") && !ETC_PREFIXES.iter().any(|it| has_prefix(path, it)) {
            return Some("it belongs to the system");
        }
        if path.parent() == Some(Path::new("/home")) {
            return Some("it is a home");
        }
        if self
            .below_home(path)
            .is_some_and(|rest| HOME_EXCEPTIONS.iter().any(|it| rest.starts_with(it)))
        {
            return None;
        }
        if path
            .components()
            .any(|it| matches!(it, Component::Normal(name) if is_private_part(name)))
        {
            return Some("it can hold credentials");
        }
        for home in self
            .homes
            .iter()
            .map(PathBuf::as_path)
            .chain([Path::new("/root")])
        {
            if home.starts_with(path) {
                return Some("it is or contains a home");
            }
        }
        match self.below_home(path) {
            Some(rest) if MIXED.iter().any(|it| rest == Path::new(it)) => {
                Some("it mixes tools with private data")
            }
            Some(rest) if HOME_NEVER_BELOW.iter().any(|it| rest.starts_with(it)) => {
                Some("it can hold credentials")
            }
            _ => None,
        }
    }

    /// The part of a path below the home it is in.
    fn below_home<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        if let Some(rest) = self.homes.iter().find_map(|it| path.strip_prefix(it).ok()) {
            return Some(rest);
        }
        if let Ok(rest) = path.strip_prefix("/root") {
            return Some(rest);
        }
        let mut parts = path.strip_prefix("/home").ok()?.components();
        parts.next()?;
        Some(parts.as_path())
    }
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.as_os_str().as_bytes().starts_with(prefix.as_bytes())
}

fn is_private_part(name: &OsStr) -> bool {
    is_credential(name) || name == OsStr::new(".git")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str) -> bool {
        Gate::new(Path::new("/home/ada"))
            .refusal(Path::new(path))
            .is_some()
    }

    #[test]
    fn a_home_its_parents_and_its_private_parts_are_refused() {
        for path in [
            "/",
            "/home",
            "/home/ada",
            "/home/bob",
            "/root",
            "/opt",
            "/etc",
            "/etc/ssh",
            "/run/user/1000",
            "/var/run/docker.sock",
            "/home/ada/.ssh",
            "/home/ada/.ssh/keys",
            "/home/ada/.config/x",
            "/home/bob/.config/x",
            "/home/ada/.cargo",
            "/home/ada/.cargo/credentials.toml",
            "/home/ada/.local/share",
            "/home/ada/.local/share/uv",
            "/home/ada/.local/share/uv/credentials",
            "/home/ada/../bob",
            "relative",
            "/etc/maven/settings-security.xml",
            "/root/.config/gcloud",
        ] {
            assert!(refused(path), "{path}");
        }
    }

    #[test]
    fn a_toolchain_below_a_home_or_opt_passes() {
        for path in [
            "/home/ada/.cargo/bin",
            "/home/ada/.rustup/toolchains",
            "/opt/node",
            "/etc/java-17-openjdk",
            "/etc/maven/m2.conf",
            "/home/linuxbrew/.linuxbrew",
            "/root/.pyenv/versions",
            "/nix/store",
            "/home/ada/.local/share/uv/python",
        ] {
            assert!(!refused(path), "{path}");
        }
    }
}
