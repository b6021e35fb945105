//! A home with toolchains and with what nobody else may see, made for a test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use skep_sandbox::toolchains::{
    Input, MAX_MOUNTS, MAX_PATH_ENTRIES, ToolMount, Toolchains, discover,
};

pub(crate) const CANARY: &str = "canary-5f1c9e";

/// Where people's homes keep what nobody else may see.
pub(crate) const PRIVATE: [&str; 44] = [
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".cargo/config.toml",
    ".npmrc",
    ".pypirc",
    ".netrc",
    ".ssh/id_ed25519",
    ".config/gh/hosts.yml",
    ".config/pip/pip.conf",
    ".config/mise/config.toml",
    ".aws/credentials",
    ".docker/config.json",
    ".kube/config",
    ".gnupg/secring.gpg",
    ".bash_history",
    ".zsh_history",
    ".git-credentials",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".gem/credentials",
    ".bundle/config",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".npm/_logs/debug.log",
    ".local/share/uv/credentials/credentials.toml",
    ".local/share/keyrings/login.keyring",
    ".local/state/x/token",
    ".deno/credentials.json",
    ".bunfig.toml",
    ".nuget/NuGet/NuGet.Config",
    ".yarnrc.yml",
    ".condarc",
    ".pip/pip.conf",
    ".cache/secret",
    ".rustup/secret",
    ".pyenv/secret",
    ".nvm/.npmrc",
    ".volta/secret",
    ".asdf/secret",
    ".sdkman/etc/secret",
    "Documents/taxes",
    "go/src/private/key",
    "project/.env",
];

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) home: PathBuf,
    pub(crate) env: Vec<(String, OsString)>,
    pub(crate) extra_roots: Vec<PathBuf>,
}

impl Host {
    pub(crate) fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap().join("home/ada");
        let host = Host {
            dir,
            home,
            env: Vec::new(),
            extra_roots: Vec::new(),
        };
        for place in PRIVATE {
            host.file(place, CANARY);
        }
        host
    }

    pub(crate) fn path(&self, rest: &str) -> PathBuf {
        self.home.join(rest)
    }

    pub(crate) fn file(&self, rest: &str, contents: &str) -> PathBuf {
        let path = self.path(rest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    pub(crate) fn exe(&self, rest: &str) -> PathBuf {
        self.script(rest, "\u{7f}ELF")
    }

    pub(crate) fn script(&self, rest: &str, contents: &str) -> PathBuf {
        let path = self.file(rest, contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn dir(&self, rest: &str) -> PathBuf {
        let path = self.path(rest);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn link(&self, rest: &str, target: impl AsRef<Path>) -> PathBuf {
        let path = self.path(rest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        path
    }

    /// Puts credentials at the places in an installation where tools keep them.
    pub(crate) fn plant(&self, root: &str) {
        for place in [
            "etc/npmrc",
            ".npmrc",
            "pip.conf",
            ".condarc",
            ".env",
            "credentials.json",
        ] {
            self.file(&format!("{root}/{place}"), CANARY);
        }
        self.file(
            &format!("{root}/conf/settings.xml"),
            &format!("<settings><!-- <password>none</password> --><password>{CANARY}</password></settings>"),
        );
    }

    pub(crate) fn with<T>(&self, path: &[&str], ask: impl FnOnce(&Input<'_>) -> T) -> T {
        let env = |name: &str| {
            self.env
                .iter()
                .find(|it| it.0 == name)
                .map(|it| it.1.clone())
        };
        let entries = path.iter().map(|it| {
            if it.starts_with('/') {
                PathBuf::from(it)
            } else {
                self.path(it)
            }
        });
        ask(&Input {
            path: std::env::join_paths(entries.chain(["/usr/bin".into(), "/bin".into()])).unwrap(),
            home: self.home.clone(),
            env: &env,
            extra_roots: self.extra_roots.clone(),
        })
    }

    /// Discovers, and checks what must hold on every host.
    pub(crate) fn discover(&self, path: &[&str]) -> Toolchains {
        let found = self.with(path, discover);
        assert_no_canary(&found.mounts);
        assert!(found.mounts.len() <= MAX_MOUNTS);
        let entries: Vec<PathBuf> = std::env::split_paths(&found.path).collect();
        assert!(entries.len() <= MAX_PATH_ENTRIES);
        for entry in &entries {
            assert!(
                inside(&found.mounts, entry),
                "{} is on the PATH but not inside",
                entry.display()
            );
        }
        for wanted in ["/usr/local/bin", "/usr/bin", "/bin"] {
            assert!(entries.iter().any(|it| it == Path::new(wanted)), "{wanted}");
        }
        let mut below = found.mounts.iter().map(|it| &it.inside);
        assert!(
            below.all(|it| !self.home.starts_with(it)),
            "a home is mounted"
        );
        found
    }

    pub(crate) fn on_path(&self, found: &Toolchains, rest: &str) -> bool {
        std::env::split_paths(&found.path).any(|it| it == self.path(rest))
    }
}

pub(crate) fn inside(mounts: &[ToolMount], path: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/lib"]
        .iter()
        .any(|it| path.starts_with(it))
        || mounts.iter().any(|it| {
            path.starts_with(&it.inside) && !it.masked.iter().any(|mask| path.starts_with(mask))
        })
}

pub(crate) fn sees(found: &Toolchains, path: &Path) -> bool {
    inside(&found.mounts, path)
}

pub(crate) fn var<'t>(found: &'t Toolchains, name: &str) -> Option<&'t OsStr> {
    found
        .env
        .iter()
        .find(|it| it.0 == name)
        .map(|it| it.1.as_os_str())
}

/// Walks everything that is mounted, as it is seen inside.
pub(crate) fn assert_no_canary(mounts: &[ToolMount]) {
    for mount in mounts {
        let mut queue = vec![mount.host.clone()];
        while let Some(path) = queue.pop() {
            let seen = mount.inside.join(path.strip_prefix(&mount.host).unwrap());
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_symlink() || mount.masked.iter().any(|it| seen.starts_with(it)) {
                continue;
            }
            if kind.is_dir() {
                queue.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            } else if !path.starts_with("/etc") && !path.starts_with("/opt") {
                let bytes = fs::read(&path).unwrap();
                assert!(
                    !bytes
                        .windows(CANARY.len())
                        .any(|it| it == CANARY.as_bytes()),
                    "{} is seen inside as {}",
                    path.display(),
                    seen.display()
                );
            }
        }
    }
}
