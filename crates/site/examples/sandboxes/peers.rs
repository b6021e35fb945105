//! What sandboxes are compared with. A peer that is not installed is said to be missing, and its
//! figures are left out.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::figures::Failed;

/// What is run in each sandbox, here without one: its start, its output and its end.
pub(crate) fn bare_command() -> Result<(), Failed> {
    let output = Command::new("/usr/bin/true")
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("true: {}", output.status).into()),
    }
}

/// A program that does the same.
pub(crate) struct Peer {
    name: &'static str,
    arguments: Vec<String>,
}

impl Peer {
    /// Bubblewrap with all of its namespaces and the same places as ours, without a workspace: the
    /// directory is written in place.
    pub(crate) fn bwrap(directory: &Path) -> Option<Peer> {
        let name = "bwrap";
        if Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("bubblewrap is not installed (apt-get install bubblewrap): no figure of it");
            return None;
        }
        let mut arguments: Vec<String> = [
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
            "--ro-bind",
            "/usr",
            "/usr",
            "--symlink",
            "usr/bin",
            "/bin",
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib64",
            "/lib64",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
            "--dir",
            "/home/agent",
        ]
        .map(str::to_owned)
        .into();
        let place = directory.display().to_string();
        arguments.extend(["--bind".to_owned(), place, "/workspace".to_owned()]);
        arguments.extend(["--chdir", "/workspace", "/usr/bin/true"].map(str::to_owned));
        Some(Peer { name, arguments })
    }

    /// Starts it and waits for its end.
    pub(crate) fn run(&self) -> Result<(), Failed> {
        let status = Command::new(self.name)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{}: {status}", self.name).into()),
        }
    }
}
