//! Measures the kind `container` beside `podman run`, in turns: `cargo run --example containers`, with
//! the options of Podman that both shall have (`--root DIR`, `--runroot DIR`, …).
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::ffi::OsString;
use std::time::{Duration, Instant};

use skep_sandbox::container::{Choice, Options};
use skep_sandbox::{Backend, Command, Container, Sandbox, Spec, Workspace, exec_captured};

const ROUNDS: usize = 20;
const EXECS: usize = 200;
/// What the peer shows, so that it has a program to run.
const SHOWN: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let directory = std::env::temp_dir().join(format!("skep-containers-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let backend = Container::new(Options {
        engine: Choice::Podman(arguments.clone()),
        ..Options::default()
    });
    // The engine is started, and its image made.
    backend.create(spec(&directory)).await?.destroy().await?;
    let (mut ready, mut cycle, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let sandbox = backend.create(spec(&directory)).await?;
        ready.push(begin.elapsed());
        exec_captured(sandbox.as_ref(), yes(sandbox.as_ref()), 4096).await?;
        sandbox.destroy().await?;
        cycle.push(begin.elapsed());
        let begin = Instant::now();
        run(&arguments)?;
        peer.push(begin.elapsed());
    }
    let sandbox = backend.create(spec(&directory)).await?;
    let mut exec = Vec::new();
    for _ in 0..EXECS {
        let begin = Instant::now();
        exec_captured(sandbox.as_ref(), yes(sandbox.as_ref()), 4096).await?;
        exec.push(begin.elapsed());
    }
    sandbox.destroy().await?;
    std::fs::remove_dir_all(&directory)?;
    for (what, times) in [
        ("container_ready_p50_ms", ready),
        ("container_cycle_p50_ms", cycle),
        ("container_exec_p50_ms", exec),
        ("podman_run_p50_ms", peer),
    ] {
        println!("{what:24} {:.2}", median(times).as_secs_f64() * 1000.0);
    }
    Ok(())
}

fn spec(directory: &std::path::Path) -> Spec {
    let mut spec = Spec::new(Workspace::Directory(directory.to_owned()));
    spec.channel_port = Some(0);
    spec.limits.memory_bytes = Some(1 << 30);
    spec
}

fn yes(sandbox: &dyn Sandbox) -> Command {
    Command::new(["/usr/bin/true"], sandbox.workspace())
}

/// The same container by the engine's own program, until its command has ended.
fn run(arguments: &[OsString]) -> Result<(), Box<dyn std::error::Error>> {
    let mut command = std::process::Command::new("podman");
    command.args(arguments).args([
        "--cgroup-manager=cgroupfs",
        "--events-backend=file",
        "--runtime=runc",
        "run",
        "--rm",
        "--network=none",
        "--ipc=none",
        "--read-only",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--memory=1g",
        "--ulimit=nofile=16384:16384",
        "--ulimit=nproc=4096:4096",
    ]);
    for path in SHOWN {
        command.arg("-v").arg(format!("{path}:{path}:ro"));
    }
    let status = command
        .args(["localhost/skep-nothing:latest", "/usr/bin/true"])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("podman run: {status}").into()),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
