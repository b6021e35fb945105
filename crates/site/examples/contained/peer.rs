//! What containers are compared with: the engine's own program, with the same image and the same wall
//! around it, and without a workspace.

use std::process::{Command, Stdio};

use crate::Failed;

/// The image that the engine was given for sandboxes.
const IMAGE: &str = "localhost/skep-nothing:latest";
/// What it is shown of the host, so that it has a program to run.
const SHOWN: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];
/// As the kind `container` asks for it.
const WALL: [&str; 8] = [
    "--network=none",
    "--ipc=none",
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--log-driver=none",
    "--ulimit=nofile=16384:16384",
    "--ulimit=nproc=4096:4096",
];

/// A whole container: made, started, its command run, removed.
pub(crate) fn run(memory: u64) -> Result<(), Failed> {
    podman(&["run", "--rm"], memory, &["/usr/bin/true"]).map(drop)
}

/// A container that has been started and goes on. Its id.
pub(crate) fn start(memory: u64) -> Result<String, Failed> {
    let said = podman(
        &["run", "--rm", "--detach"],
        memory,
        &["/usr/bin/sleep", "60"],
    )?;
    Ok(said.trim().to_owned())
}

/// A command in one that goes on.
pub(crate) fn exec(id: &str) -> Result<(), Failed> {
    let mut command = Command::new("podman");
    command.args(["exec", id, "/usr/bin/true"]);
    said(command).map(drop)
}

/// Removes it.
pub(crate) fn remove(id: &str) -> Result<(), Failed> {
    let mut command = Command::new("podman");
    command.args(["rm", "--force", "--time=0", id]);
    said(command).map(drop)
}

fn podman(first: &[&str], memory: u64, run: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("podman");
    command.args(first).args(WALL);
    command.arg(format!("--memory={memory}"));
    for path in SHOWN {
        command.arg("-v").arg(format!("{path}:{path}:ro"));
    }
    command.arg(IMAGE).args(run);
    said(command)
}

/// Runs it to its end; what it printed.
fn said(mut command: Command) -> Result<String, Failed> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(format!("podman: {}: {words}", output.status).into())
        }
    }
}
