//! Calls of the kernel that a sandbox refuses: a kind that seals names them.

use skep_sandbox::{Backend, Call, Trouble};

use crate::subject::{PATIENCE, Subject};

fn names(calls: &[Call]) -> Vec<String> {
    calls.iter().map(ToString::to_string).collect()
}

/// Python that makes a call of the C library, and fails if that does.
fn python(call: &str) -> String {
    format!(
        "/usr/bin/python3 -c 'import ctypes, sys; sys.exit(-ctypes.CDLL(None, use_errno=True).{call})'"
    )
}

pub(crate) async fn a_refused_call_is_named_with_what_to_do(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let mount = python("mount(b\"none\", b\"/tmp\", b\"tmpfs\", 0, 0)");
    let trace = python("ptrace(16, 1, 0, 0)");
    let raw = "/usr/bin/python3 -c 'import socket; socket.socket(2, 3, 1)'";
    for (script, name, remedy) in [
        ("unshare --user true", "unshare(CLONE_NEWUSER)", "--nested"),
        ("chroot / true", "chroot", "--nested"),
        (&mount, "mount", "--nested"),
        (&trace, "ptrace", "debugger"),
        (raw, "socket(AF_INET, SOCK_RAW)", "TCP"),
    ] {
        if !backend.kind().is_sealed() {
            // Nobody is asked there; what would be tried is the host's.
            continue;
        }
        let output = subject.sh(&format!("{script} || exit 3")).await;
        let said = output.stderr.text();
        assert_eq!(output.exit.code, Some(3), "{script}: {said}");
        assert_eq!(names(&output.refused), [name], "{script}: {said}");
        assert_eq!(output.exit.refused, output.refused.last().copied());
        let why = output.exit.why().unwrap();
        assert!(why.contains(name) && why.contains(remedy), "{why}");
        let last = subject.sandbox.diagnose().await.last;
        assert_eq!(last.trouble, Some(Trouble::RefusedCall));
        let told = last.remedy.unwrap();
        assert!(told.contains(remedy), "{last:?}");
        // It is true in every kind, and whoever runs it.
        let is_bounded = told.contains("kind `namespace`") && told.contains("ordinary user");
        assert!(remedy != "--nested" || is_bounded, "{told}");
        assert_eq!(last.refused, output.refused);
    }
    assert_eq!(subject.sh("exit 3").await.exit.refused, None);
    let diagnosis = subject.sandbox.diagnose().await;
    assert_eq!(diagnosis.calls_named, backend.kind().is_sealed());
    let last = diagnosis.last;
    assert!(last.trouble.is_none() && last.refused.is_empty());
}

pub(crate) async fn a_command_that_goes_on_without_a_refused_call_has_no_trouble(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    let sealed = backend.kind().is_sealed();
    let output = subject.sh("unshare --user true 2>&1; exit 0").await;
    let last = subject.sandbox.diagnose().await.last;
    assert!(output.exit.success() && output.exit.refused.is_none());
    assert_eq!(last.trouble, None);
    let expected: &[&str] = if sealed {
        &["unshare(CLONE_NEWUSER)"]
    } else {
        &[]
    };
    assert_eq!(names(&last.refused), expected);
    // What explains a failure better is said instead.
    let output = subject
        .sh("unshare --user true 2>&1; no-such-program")
        .await;
    assert_eq!((output.exit.code, output.exit.refused), (Some(127), None));
    let last = subject.sandbox.diagnose().await.last;
    assert_eq!(last.trouble, Some(Trouble::ProgramNotFound));
    let output = subject
        .sh("unshare --user true 2>/dev/null; echo 'x: No space left on device'; exit 1")
        .await;
    assert_eq!((output.exit.code, output.exit.refused), (Some(1), None));
    assert_eq!(names(&output.refused), expected);
    let last = subject.sandbox.diagnose().await.last;
    assert_eq!(last.trouble, Some(Trouble::DiskFull));
    assert_eq!(last.exit, Some(output.exit), "both say the same");
    // One that somebody ends did not fail for it.
    let mut process = subject
        .up(subject.script("unshare --user true 2>/dev/null; echo up; exec sleep 1000"))
        .await;
    process.kill();
    let exit = process.wait().await.unwrap();
    assert_eq!((exit.signal, exit.refused), (Some(9), None));
    assert_eq!(names(process.refused()), expected);
}

pub(crate) async fn what_is_refused_to_commands_at_once_is_not_mixed_up(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    if !backend.kind().is_sealed() {
        assert!(subject.sh("true").await.refused.is_empty());
        return;
    }
    // Both have begun before either goes on; the calls are made by processes whose parents have ended.
    subject.says("mkfifo one two").await;
    let script = |own: &str, other: &str, call: &str| {
        let orphan = format!("x=$( (sleep 0.01; exec {call} true 2>&1) & )");
        format!("echo > {own} & read x < {other}; for i in 1 2 3 4 5; do {orphan}; done; exit 1")
    };
    let unshares = script("one", "two", "unshare --user");
    let changes = script("two", "one", "chroot /");
    let (one, two) = tokio::join!(subject.sh(&unshares), subject.sh(&changes));
    assert_eq!(names(&one.refused), ["unshare(CLONE_NEWUSER)"]);
    assert_eq!(names(&two.refused), ["chroot"]);

    // What was told of one that has ended counts for no other.
    let script = |call: &str, own: &str, then: &str| {
        format!("{call} true 2>/dev/null; echo up; read x < {own}; {then} 2>/dev/null; exit 1")
    };
    let unshares = script("unshare --user", "one", "true");
    let changes = script("chroot /", "two", "unshare --user true");
    let mut one = subject.up(subject.script(&unshares)).await;
    let mut two = subject.up(subject.script(&changes)).await;
    subject.says("echo > one").await;
    assert_eq!(one.wait().await.unwrap().code, Some(1));
    assert_eq!(names(one.refused()), ["unshare(CLONE_NEWUSER)"]);
    subject.says("echo > two").await;
    assert_eq!(two.wait().await.unwrap().code, Some(1));
    let both = ["chroot", "unshare(CLONE_NEWUSER)"];
    assert_eq!(names(two.refused()), both);
}

pub(crate) async fn a_loop_of_refused_calls_keeps_nobody_else_waiting(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    if !backend.kind().is_sealed() {
        return;
    }
    // Processes that make such calls and children that do so too, without an end.
    let program = "import ctypes, os\n\
         c = ctypes.CDLL(None)\n\
         for _ in range(3): os.fork()\n\
         c.unshare(0x10000000)\n\
         print('up', flush=True)\n\
         while True:\n    \
             child = os.fork()\n    \
             if child == 0:\n        \
                 for call in range(100): c.chroot(b'/'); c.umount2(b'/', call)\n        \
                 os._exit(0)\n    \
             os.waitpid(child, 0)\n";
    let command = subject.script("exec /usr/bin/python3 -c \"$0\"");
    let mut command = command;
    command.argv.push(program.into());
    let mut process = subject.up(command).await;
    for count in 0..10 {
        let other = tokio::time::timeout(PATIENCE, subject.sh("unshare --user true; exit 4"));
        let other = other.await.expect("another command is kept waiting");
        assert_eq!(names(&other.refused), ["unshare(CLONE_NEWUSER)"], "{count}");
    }
    process.kill();
    let exit = process.wait().await.unwrap();
    assert_eq!(exit.signal, Some(9));
    let refused = names(process.refused());
    assert_eq!(refused, ["unshare(CLONE_NEWUSER)", "chroot", "umount2"]);
}
