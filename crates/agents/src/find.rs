//! Finding an agent's program on this machine, and what of the machine it needs.
//!
//! This looks at the user's own installation, never at anything of an agent's workspace.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::profile::Profile;

/// How long a program may take to print its version.
const VERSION_WAIT: Duration = Duration::from_secs(15);

/// Where every sandbox looks anyway.
const SYSTEM: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

/// An installed program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is in `PATH`.
    pub path: PathBuf,
    /// The file itself, links resolved.
    pub file: PathBuf,
    /// The interpreter that it names in its first line, if it is a script whose interpreter
    /// must be found in `PATH` (`#!/usr/bin/env node`), links resolved.
    pub interpreter: Option<PathBuf>,
}

/// Finds the program of a profile in `path`, the value of `PATH`. `None` when it is not there,
/// or when the profile needs none. Relative entries of `PATH` are passed over.
#[must_use]
pub fn find(profile: &Profile, path: &OsStr) -> Option<Found> {
    let program = profile.program.as_ref()?;
    let on_path = look_up(&program.binary, path)?;
    let file = on_path.canonicalize().ok()?;
    let interpreter = interpreter_name(&file)
        .and_then(|name| look_up(&name, path))
        .and_then(|found| found.canonicalize().ok());
    Some(Found {
        path: on_path,
        file,
        interpreter,
    })
}

impl Found {
    /// How the program is called by absolute names, which do not depend on a `PATH`.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        self.interpreter
            .iter()
            .chain([&self.file])
            .map(|path| path.clone().into())
            .collect()
    }

    /// What of this machine a sandbox must show, read-only, for the program to run: the npm
    /// packages around it, or the file itself; and its interpreter's installation. What is
    /// below the system's own directories is not named, since every sandbox shows it.
    #[must_use]
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots = vec![packages_around(&self.file).unwrap_or_else(|| self.file.clone())];
        roots.extend(self.interpreter.as_deref().map(installation_of));
        roots.retain(|root| !SYSTEM.iter().any(|system| root.starts_with(system)));
        roots.sort();
        roots.dedup();
        let all = roots.clone();
        roots.retain(|root| {
            !all.iter()
                .any(|other| other != root && root.starts_with(other))
        });
        roots
    }

    /// Asks the program for its version: the first line that it prints, or `None` if it prints
    /// none in time. It runs on this machine, with only `PATH` and an empty home.
    pub async fn version(&self, profile: &Profile, path: &OsStr) -> Option<String> {
        let program = profile.program.as_ref()?;
        let argv = self.argv();
        let (first, rest) = argv.split_first()?;
        let mut child = tokio::process::Command::new(first)
            .args(rest)
            .args(&program.version)
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/nonexistent")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut text = Vec::new();
        let mut stdout = child.stdout.take()?.take(4096);
        let reading = async {
            stdout.read_to_end(&mut text).await.ok()?;
            child.wait().await.ok()
        };
        tokio::time::timeout(VERSION_WAIT, reading).await.ok()??;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().filter(|c| !c.is_control()).take(100).collect())
    }
}

/// The first executable file of that name in the absolute directories of `path`.
fn look_up(name: &str, path: &OsStr) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|candidate| {
            candidate
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// The program that `#!/usr/bin/env NAME` asks for, in the first line of a file.
fn interpreter_name(file: &Path) -> Option<String> {
    let mut head = Vec::new();
    std::fs::File::open(file)
        .ok()?
        .take(256)
        .read_to_end(&mut head)
        .ok()?;
    let line = head.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line.strip_prefix(b"#!")?).ok()?;
    let mut words = line.split_whitespace();
    if !words.next()?.ends_with("/env") {
        return None;
    }
    words
        .find(|word| !word.starts_with('-') && !word.contains('='))
        .map(str::to_owned)
}

/// The outermost `node_modules` that holds the file: npm puts what a package needs into it, or
/// beside it.
fn packages_around(file: &Path) -> Option<PathBuf> {
    file.ancestors()
        .filter(|dir| dir.file_name() == Some(OsStr::new("node_modules")))
        .last()
        .map(Path::to_path_buf)
}

/// The directory of an installation like `…/v20.1.0/bin/node`: the parent of `bin`.
fn installation_of(binary: &Path) -> PathBuf {
    let bin = binary
        .parent()
        .filter(|dir| dir.file_name() == Some(OsStr::new("bin")));
    bin.and_then(Path::parent).unwrap_or(binary).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_program(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn claude() -> Profile {
        Profile::named("claude-code").unwrap()
    }

    #[tokio::test]
    async fn a_program_that_npm_installed_needs_its_packages_and_node() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let script = root.join("lib/node_modules/@anthropic-ai/claude-code/cli.js");
        write_program(&script, "#!/usr/bin/env -S node --flag\n");
        let node = root.join("nvm/v20/bin/node");
        write_program(&node, "#!/bin/sh\necho; echo \"1.2.3 ($HOME)\"\n");
        std::fs::create_dir(root.join("bin")).unwrap();
        std::os::unix::fs::symlink(&script, root.join("bin/claude")).unwrap();
        // A directory and a file that cannot be run are no program.
        std::fs::create_dir_all(root.join("decoy/claude")).unwrap();
        let path = std::env::join_paths([
            PathBuf::from("relative"),
            root.join("decoy"),
            root.join("bin"),
            root.join("nvm/v20/bin"),
        ])
        .unwrap();
        let found = find(&claude(), &path).unwrap();
        assert_eq!(found.path, root.join("bin/claude"));
        assert_eq!(
            found.argv(),
            [node.clone().into_os_string(), script.into_os_string()]
        );
        assert_eq!(
            found.roots(),
            [root.join("lib/node_modules"), root.join("nvm/v20")]
        );
        let version = found.version(&claude(), &path).await;
        assert_eq!(version.as_deref(), Some("1.2.3 (/nonexistent)"));
    }

    #[test]
    fn a_program_of_its_own_needs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let file = root.join("share/claude/versions/2.1.0");
        write_program(&file, "\x7fELF");
        std::os::unix::fs::symlink(&file, root.join("claude")).unwrap();
        let found = find(&claude(), root.as_os_str()).unwrap();
        assert_eq!(found.argv(), [file.clone().into_os_string()]);
        assert_eq!(found.roots(), [file]);
        assert_eq!(find(&claude(), OsStr::new("/nonexistent")), None);
        assert_eq!(
            find(&Profile::named("builtin").unwrap(), root.as_os_str()),
            None
        );
    }

    #[test]
    fn what_every_sandbox_shows_is_not_named() {
        let found = Found {
            path: "/usr/local/bin/claude".into(),
            file: "/usr/local/lib/node_modules/x/cli.js".into(),
            interpreter: Some("/usr/bin/node".into()),
        };
        assert_eq!(found.roots(), Vec::<PathBuf>::new());
    }
}
