//! What a kind says of itself, and a sandbox of how it is.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use skep_sandbox::{Backend, Command, Enforcement, Trouble};

use crate::subject::{PATIENCE, Subject};

pub(crate) async fn a_probe_says_what_is_there_and_leaves_nothing(backend: &dyn Backend) {
    let place = tempfile::tempdir().unwrap();
    let findings = backend.probe(place.path()).await;
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(finding.ok || finding.optional, "{finding:?}");
        assert!(finding.ok || finding.remedy.is_some(), "{finding:?}");
        assert!(!finding.detail.is_empty(), "{finding:?}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

pub(crate) async fn a_diagnosis_says_what_it_is_and_what_failed_last(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let diagnosis = subject.sandbox.diagnose().await;
    assert_eq!(diagnosis.kind, backend.kind());
    assert_eq!(diagnosis.sealed, backend.kind().is_sealed());
    assert!(diagnosis.alive && diagnosis.commands == 0);
    assert!(diagnosis.trouble().is_none() && diagnosis.last.exit.is_none());

    let command = Command::new(["no-such-program"], "/");
    assert!(subject.sandbox.exec(command).await.is_err());
    let diagnosis = subject.sandbox.diagnose().await;
    assert_eq!(diagnosis.trouble(), Some(Trouble::ProgramNotFound));

    let many =
        "for i in $(seq 100); do echo $i; done; echo 'cp: No space left on device' >&2; exit 1";
    assert_eq!(subject.sh(many).await.exit.code, Some(1));
    let last = subject.sandbox.diagnose().await.last;
    assert_eq!(last.trouble, Some(Trouble::DiskFull));
    assert_eq!((last.output.len(), last.output[48].as_str()), (50, "100"));
    assert_eq!(last.exit.unwrap().code, Some(1));

    assert!(subject.sh("true").await.exit.success());
    let diagnosis = subject.sandbox.diagnose().await;
    assert_eq!(diagnosis.trouble(), None, "what is mended is none");
}

pub(crate) async fn a_sandbox_whose_first_process_was_killed_says_how_it_ended_and_what_to_do(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    assert_eq!(subject.sh("exit 3").await.exit.code, Some(3));
    let before = subject.sandbox.diagnose().await;
    assert!(before.ended.is_none(), "{before:?}");
    let first = i32::try_from(before.first_process.unwrap()).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let after = subject.sandbox.diagnose().await;
        if !after.alive {
            break after;
        }
        assert!(Instant::now() < deadline, "{after:?}");
    };
    let end = after.ended.unwrap();
    let exit = end.exit.unwrap();
    assert_eq!(exit.to_string(), "ended by signal 9");
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(end.trouble, Trouble::Ended);
    assert_eq!(after.trouble(), Some(Trouble::Ended));
    assert!(
        end.remedy.contains("`skep sandbox start`"),
        "{}",
        end.remedy
    );
    // The command before it is still the last one, and nothing is in use.
    assert_eq!(after.last.exit.unwrap().code, Some(3));
    assert_eq!((after.processes, after.memory_bytes), (None, None));
    let used = subject.sandbox.stats().await;
    assert_eq!((used.processes, used.memory_bytes), (None, None));
}

pub(crate) async fn figures_are_of_what_ran_or_not_there(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let before = subject.sandbox.stats().await;
    let diagnosis = subject.sandbox.diagnose().await;
    assert_eq!(before.processes, Some(1), "its first process");
    assert!(
        diagnosis.processes.is_none_or(|count| count == 1),
        "{diagnosis:?}"
    );
    // Some processor time, of a process that has ended, and as much moved to and from the disk.
    let spent = subject
        .says("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; head -c 8000000 /dev/zero > file; times | head -1")
        .await;
    subject.read_from_the_disk("file").await;
    let hold = "import sys\nblock = bytearray(b'x') * (40 << 20)\nprint('up', flush=True)\nsys.stdin.read()";
    let command =
        Command::new(["/usr/bin/python3", "-c", hold], "/").with_stdin(skep_sandbox::Stdin::Pipe);
    let held = subject.up(command).await;
    let after = subject.sandbox.stats().await;
    assert!(
        after.cpu_millis > before.cpu_millis,
        "{before:?} {after:?} {spent}"
    );
    let bytes = after.memory_bytes.unwrap();
    assert!((40 << 20..1 << 30).contains(&bytes), "{bytes}");
    let python_and_its_minder = before.processes.map(|count| count + 2);
    assert!(after.processes >= python_and_its_minder, "{after:?}");
    let counts = [Enforcement::CgroupV1, Enforcement::CgroupV2];
    match counts.contains(&diagnosis.limits_in_force) {
        true => assert!(after.peak_memory_bytes.unwrap() >= 40 << 20, "{after:?}"),
        false => assert_eq!(after.peak_memory_bytes, None),
    }
    assert_eq!(after.disk_bytes, None, "who owns the workspace knows that");
    if looks_into_others() {
        let (read, written) = (before.read_bytes.unwrap(), before.written_bytes.unwrap());
        let moved = if is_on_a_disk(&subject) { 8_000_000 } else { 0 };
        assert!(
            after.read_bytes.unwrap() >= read + moved,
            "{before:?} {after:?}"
        );
        assert!(
            after.written_bytes.unwrap() >= written + moved,
            "{before:?} {after:?}"
        );
    }
    drop(held);
}

/// Whether this process may see what others read and write: by its capability, as root has it.
fn looks_into_others() -> bool {
    const PTRACE: u32 = 19;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(held.unwrap().trim(), 16).unwrap() >> PTRACE & 1 == 1
}

/// Whether its files are on a disk, and not in memory, from which nothing is moved.
fn is_on_a_disk(subject: &Subject) -> bool {
    const IN_MEMORY: i64 = 0x0102_1994;
    let system = rustix::fs::statfs(subject.directory.path()).unwrap();
    system.f_type != IN_MEMORY
}
