//! Who is asked about refused calls: one alone can be, by the kernel's rules.

use skep_sandbox::Trouble;

use crate::room::{Room, this_program};

/// A filter that allows everything, as one installs it who wants to be asked about calls: prints the error.
const ASKS: &str = r#"
import ctypes, platform, struct
c = ctypes.CDLL(None, use_errno=True)
seccomp = {"x86_64": 317, "aarch64": 277}[platform.machine()]
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
c.prctl(38, 1, 0, 0, 0)
asked = c.syscall(seccomp, 1, 8, program)
print(0 if asked >= 0 else ctypes.get_errno(), 0 if c.syscall(seccomp, 1, 0, program) == 0 else ctypes.get_errno())
"#;

#[tokio::test]
async fn a_program_that_wants_to_be_asked_itself_is_told_that_somebody_is() {
    let room = Room::new().await;
    let command = room.command(["/usr/bin/python3", "-c", ASKS]);
    let said = room.run(command).await.stdout.text();
    // A filter that asks nobody is installed in any sandbox.
    let expected = match crate::nested::is_asked_for() {
        true => "0 0\n".to_owned(),
        false => format!("{} 0\n", libc::EBUSY),
    };
    assert_eq!(said, expected);
}

#[tokio::test]
async fn where_namespaces_may_be_made_calls_are_refused_and_not_named() {
    let room = Room::new().await;
    let trace = "import ctypes, sys; sys.exit(-ctypes.CDLL(None).ptrace(0, 0, 0, 0))";
    let output = room
        .run(room.command(["/usr/bin/python3", "-c", trace]))
        .await;
    assert_eq!(output.exit.code, Some(1), "{}", output.stderr.text());
    assert_eq!(output.refused.is_empty(), crate::nested::is_asked_for());
    let diagnosis = room.sandbox.diagnose().await;
    let named = !crate::nested::is_asked_for();
    assert_eq!(diagnosis.calls_named, named);
    assert_eq!(diagnosis.trouble(), named.then_some(Trouble::RefusedCall));
}

#[tokio::test]
async fn after_so_many_refused_calls_that_nobody_is_asked_any_more_that_is_said() {
    if crate::nested::is_asked_for() {
        return;
    }
    let room = Room::new().await;
    let calls = "import ctypes, sys
c = ctypes.CDLL(None, use_errno=True)
for _ in range(int(sys.argv[1])): c.ptrace(0, 0, 0, 0)
print(ctypes.get_errno())";
    let made = async |count: &str| {
        let command = room.command(["/usr/bin/python3", "-c", calls, count]);
        let output = room.run(command).await;
        let named = room.sandbox.diagnose().await.calls_named;
        (output.stdout.text(), output.refused.len(), named)
    };
    assert_eq!(made("60000").await, (format!("{}\n", libc::EPERM), 1, true));
    assert_eq!(
        made("5537").await,
        (format!("{}\n", libc::ENOSYS), 1, false)
    );
    assert_eq!(made("1").await, (format!("{}\n", libc::ENOSYS), 0, false));
}

#[test]
fn where_somebody_outside_is_asked_already_calls_are_refused_and_not_named() {
    if crate::nested::is_asked_for() {
        return;
    }
    // In a process of its own: what waits for the next sandbox of this one has no such filter.
    let mut asked = this_program("refusals::a_process_of_which_somebody_is_asked");
    assert!(asked.status().unwrap().success());
}

#[tokio::test]
#[ignore = "the process of another test"]
async fn a_process_of_which_somebody_is_asked() {
    // Of this thread, and of those that it starts: a filter that asks, about nothing.
    let instruction = libc::sock_filter {
        code: 6,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: (&raw const instruction).cast_mut(),
    };
    // SAFETY: both calls read what lives until they return.
    let listener = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    assert!(listener >= 0, "{}", std::io::Error::last_os_error());
    let room = Room::of(&skep_sandbox::Namespace::new(), |_| {}).await;
    let output = room.sh("unshare --user true || exit 3").await;
    assert_eq!(output.exit.code, Some(3));
    assert!(
        output.stderr.text().contains("not permitted"),
        "{:?}",
        output.stderr
    );
    assert!(output.refused.is_empty() && output.exit.refused.is_none());
    assert!(!room.sandbox.diagnose().await.calls_named);
}
