//! Measures sandboxes of the `namespace` kind: `cargo run --release --example speed`,
//! with `plain` or `overlay` for one kind of workspace only.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};

use skep_sandbox::{Backend, Command, Namespace, Sandbox, Spec, Workspace, exec_captured};

const ROUNDS: usize = 200;
const CROWD: usize = 100;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("skep-speed-{}", std::process::id()));
    for name in ["lower", "plain"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    let only = std::env::args().nth(1);
    let plain = Workspace::Directory(directory.join("plain"));
    for (name, backend) in [
        ("cgroups", Namespace::new()),
        ("no cgroups", Namespace::without_cgroups()),
    ] {
        for kind in ["plain", "overlay"] {
            if only.as_deref().is_some_and(|only| only != kind) {
                continue;
            }
            measure(&format!("{kind}, {name}"), &backend, &|round| match kind {
                "plain" => Ok(plain.clone()),
                _ => overlay(&directory, &format!("{name}-{round}")),
            })
            .await?;
        }
    }
    beside(&plain).await?;
    memory(&plain).await?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// Fresh layers: the overlay's own directory must be empty.
fn overlay(directory: &Path, name: &str) -> std::io::Result<Workspace> {
    let (upper, work) = (
        directory.join(format!("upper-{name}")),
        directory.join(format!("work-{name}")),
    );
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(&work)?;
    Ok(Workspace::Overlay {
        lowers: vec![directory.join("lower")],
        upper,
        work,
        volatile: true,
    })
}

type Fresh<'a> = &'a dyn Fn(usize) -> std::io::Result<Workspace>;
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn spec(workspace: &Workspace) -> Spec {
    let mut spec = Spec::new(workspace.clone());
    spec.channel_port = Some(0);
    spec.limits.memory_bytes = Some(1 << 30);
    spec
}

fn yes(sandbox: &dyn Sandbox) -> Command {
    Command::new(["/usr/bin/true"], sandbox.workspace())
}

async fn measure(name: &str, backend: &Namespace, fresh: Fresh<'_>) -> Outcome {
    let (mut ready, mut cycle) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let workspace = fresh(round)?;
        let begin = Instant::now();
        let sandbox = backend.create(spec(&workspace)).await?;
        ready.push(begin.elapsed());
        exec_captured(sandbox.as_ref(), yes(sandbox.as_ref()), 4096).await?;
        sandbox.destroy().await?;
        cycle.push(begin.elapsed());
    }
    let sandbox = backend.create(spec(&fresh(ROUNDS)?)).await?;
    let mut exec = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        exec_captured(sandbox.as_ref(), yes(sandbox.as_ref()), 4096).await?;
        exec.push(begin.elapsed());
    }
    sandbox.destroy().await?;
    for (what, times) in [("ready", ready), ("up, true, down", cycle), ("exec", exec)] {
        let (median, slow) = median_and_slow(times);
        println!("{name:24} {what:16} median {median:?}, 95 % within {slow:?}");
    }
    Ok(())
}

fn median_and_slow(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = |part: usize| {
        times
            .get(times.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    (at(50), at(95))
}

/// Commands beside so many processes that make one call without an end, and what such a call takes: an
/// allowed one, one that is refused by the filter alone, and one that process 1 is asked about.
async fn beside(workspace: &Workspace) -> Outcome {
    for (what, call) in [
        ("allowed", "getppid()"),
        ("refused", "keyctl(0, 0, 0)"),
        ("told", "chroot(b'/')"),
    ] {
        for loops in [1, 8] {
            let sandbox = Namespace::new().create(spec(workspace)).await?;
            let program = format!(
                "import ctypes, os, time\n\
                 c = ctypes.CDLL(None)\n\
                 c.keyctl = lambda *a: c.syscall({}, *a)\n\
                 begin = time.monotonic()\n\
                 for _ in range(20000): c.{call}\n\
                 print((time.monotonic() - begin) / 20000 * 1e6, flush=True)\n\
                 for _ in range({loops} - 1):\n    \
                     if os.fork() == 0: break\n\
                 while True: c.{call}\n",
                libc::SYS_keyctl
            );
            let command = Command::new(["/usr/bin/python3", "-c", &program], "/");
            let mut process = sandbox.exec(command).await?;
            let mut said = String::new();
            if let Some(output) = process.stdout.take() {
                BufReader::new(output).read_line(&mut said).await?;
            }
            let mut times = Vec::new();
            for _ in 0..ROUNDS {
                let begin = Instant::now();
                exec_captured(sandbox.as_ref(), yes(sandbox.as_ref()), 4096).await?;
                times.push(begin.elapsed());
            }
            let (median, slow) = median_and_slow(times);
            println!(
                "exec beside {loops} loops of {what:8} calls (each {} us): median {median:?}, 95 % within {slow:?}",
                said.trim()
            );
            drop(process);
            sandbox.destroy().await?;
        }
    }
    Ok(())
}

async fn memory(workspace: &Workspace) -> Outcome {
    let backend = Namespace::new();
    let begin = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(backend.create(spec(workspace)).await?);
    }
    println!("{CROWD} up, one after the other: {:?}", begin.elapsed());
    let mut kilobytes = 0;
    for sandbox in &crowd {
        let pid = sandbox.diagnose().await.first_process.unwrap_or(0);
        let rollup =
            std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = pss.and_then(|text| {
            text.trim()
                .trim_end_matches(" kB")
                .trim()
                .parse::<usize>()
                .ok()
        });
        kilobytes += number.unwrap_or(0);
    }
    println!(
        "proportional memory of an idle one: {} kB",
        kilobytes / CROWD
    );
    let begin = Instant::now();
    drop(crowd);
    println!("{CROWD} down: {:?}", begin.elapsed());
    Ok(())
}
