//! Commands: what they get, what comes back, how they end.

use std::time::{Duration, Instant};

use skep_sandbox::{Command, Error, Stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::room::Room;

#[tokio::test]
async fn both_outputs_and_the_code_come_back() {
    let room = Room::new().await;
    let output = room.sh("echo to out; echo to err >&2; exit 7").await;
    assert_eq!(output.stdout.text(), "to out\n");
    assert_eq!(output.stderr.text(), "to err\n");
    assert_eq!(output.exit.code, Some(7));
    assert!(!output.exit.success());
}

#[tokio::test]
async fn a_signal_that_ends_a_command_is_named() {
    let room = Room::new().await;
    let output = room.sh("kill -SEGV $$").await;
    assert_eq!((output.exit.code, output.exit.signal), (None, Some(11)));
}

#[tokio::test]
async fn a_command_reads_the_bytes_it_is_given_and_then_the_end() {
    let room = Room::new().await;
    let bytes: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
    let command = room
        .command(["/usr/bin/sha256sum"])
        .with_stdin(Stdin::Bytes(bytes.clone()));
    let inside = room.run(command).await.stdout.text();
    std::fs::write(room.host_workspace().join("bytes"), bytes).unwrap();
    assert_eq!(inside, room.says("sha256sum < bytes; ").await + "\n");
    let nothing = room.run(room.command(["/bin/cat"])).await;
    assert!(nothing.exit.success());
    assert_eq!(nothing.stdout.total_bytes(), 0);
}

#[tokio::test]
async fn a_conversation_over_pipes_works() {
    let room = Room::new().await;
    let command = room.command(["/bin/cat"]).with_stdin(Stdin::Pipe);
    let mut process = room.sandbox.exec(command).await.unwrap();
    let (mut input, mut output) = (
        process.stdin.take().unwrap(),
        process.stdout.take().unwrap(),
    );
    for word in ["one", "two"] {
        input.write_all(word.as_bytes()).await.unwrap();
        let mut answer = [0; 3];
        output.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, word.as_bytes());
    }
    drop(input);
    assert!(process.wait().await.unwrap().success());
    assert!(
        process.wait().await.unwrap().success(),
        "the exit can be asked for again"
    );
}

#[tokio::test]
async fn a_program_that_is_missing_is_no_exit_code() {
    let room = Room::new().await;
    let missing = |argv| {
        room.sandbox
            .exec(Command::new(argv, room.sandbox.workspace()))
    };
    assert!(matches!(
        missing(["no-such-program"]).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        missing(["/no/such/program"]).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        missing(["/etc/passwd"]).await,
        Err(Error::CannotStart { .. })
    ));
    let elsewhere = Command::new(["/bin/true"], "/no/such/directory");
    let refused = room.sandbox.exec(elsewhere).await;
    assert!(matches!(refused, Err(Error::WorkingDirectory { .. })));
    let empty = Command::new([""; 0], "/");
    assert!(matches!(
        room.sandbox.exec(empty).await,
        Err(Error::InvalidCommand { .. })
    ));
    assert_eq!(room.sh("exit 127").await.exit.code, Some(127));
}

#[tokio::test]
async fn nothing_of_the_owners_environment_or_descriptors_is_inside() {
    let room = Room::new().await;
    let command = Command::new(["/usr/bin/env"], "/").with_env([("ONLY", "this")]);
    assert_eq!(room.run(command).await.stdout.text(), "ONLY=this\n");
    assert_eq!(
        room.says("ls /proc/self/fd | tr '\\n' ' '").await,
        "0 1 2 3",
        "3 is the list itself"
    );
}

#[tokio::test]
async fn large_commands_pass() {
    let room = Room::new().await;
    let word = "x".repeat(100_000);
    let mut words = vec!["/bin/echo".to_owned()];
    words.extend((0..10).map(|_| word.clone()));
    let output = room.run(Command::new(words, "/")).await;
    assert_eq!(output.stdout.total_bytes(), 10 * 100_001);
}

#[tokio::test]
async fn endless_output_is_kept_in_bounded_memory() {
    let room = Room::new().await;
    let command = room.command(["/bin/sh", "-c", "head -c 300000000 /dev/zero; echo end"]);
    let output = skep_sandbox::exec_captured(room.sandbox.as_ref(), command, 1000)
        .await
        .unwrap();
    assert!(output.exit.success());
    assert_eq!(output.stdout.total_bytes(), 300_000_004);
    assert_eq!(output.stdout.head.len() + output.stdout.tail.len(), 1000);
    assert!(output.stdout.tail.ends_with(b"end\n"));
}

// docs/bad-input.md: An agent that ignores `SIGTERM`
#[tokio::test]
async fn a_timeout_ends_the_whole_tree() {
    let room = Room::new().await;
    let mut command = room.command([
        "/bin/sh",
        "-c",
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1000; done' & while :; do sleep 1000; done",
    ]);
    command.timeout = Some(Duration::from_millis(300));
    command.grace = Duration::from_millis(300);
    let begin = Instant::now();
    let output = room.run(command).await;
    assert!(output.exit.timed_out, "{:?}", output.exit);
    assert_eq!(output.exit.signal, Some(9));
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(others(&room).await, 0);
}

#[tokio::test]
async fn a_command_may_end_politely_when_its_time_is_over() {
    let room = Room::new().await;
    let mut command = room.command([
        "/bin/sh",
        "-c",
        "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done",
    ]);
    command.timeout = Some(Duration::from_millis(300));
    command.grace = Duration::from_secs(30);
    let output = room.run(command).await;
    assert_eq!(output.stdout.text(), "bye\n");
    assert_eq!(output.exit.code, Some(3));
    assert!(output.exit.timed_out && !output.exit.success());
}

/// Its first thread has ended and another goes on: the kernel shows the process as a zombie.
const HEADLESS: &str = "import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(0)";

#[tokio::test]
async fn what_goes_on_without_its_first_thread_is_killed_too() {
    let room = Room::new().await;
    let script = format!(
        "setsid /usr/bin/python3 -c '{HEADLESS}' >/dev/null 2>&1 & until grep -q '^State:.Z' /proc/$!/status; do :; done"
    );
    room.says(&script).await;
    assert_eq!(named(&room, "python").await, 0);
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_killed_before_its_exit_is_told() {
    let room = Room::new().await;
    let output = room
        .sh("setsid sleep 1000 & (sleep 1000 &) ; echo done")
        .await;
    assert!(output.exit.success());
    assert_eq!(output.stdout.text(), "done\n");
    assert_eq!(others(&room).await, 0);
}

#[tokio::test]
async fn what_is_asked_to_stay_stays_until_the_sandbox_ends() {
    let room = Room::new().await;
    let mut command = room.command(["/bin/sh", "-c", "sleep 1000 & echo started"]);
    command.keep_background = true;
    assert_eq!(room.run(command).await.stdout.text(), "started\n");
    assert_eq!(others(&room).await, 1);
}

#[tokio::test]
async fn a_dropped_process_takes_its_tree_along() {
    let room = Room::new().await;
    let command = room.command(["/bin/sh", "-c", "setsid sleep 1000 & echo up; sleep 1000"]);
    let mut process = room.sandbox.exec(command).await.unwrap();
    let mut line = [0; 3];
    process
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .await
        .unwrap();
    // The end of the output is the event that the last of them has died.
    let mut output = process.stdout.take().unwrap();
    drop(process);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), output.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_killed_minder_does_not_free_its_command() {
    let room = Room::new().await;
    let output = room.sh("sleep 1000 & kill -9 $PPID; sleep 1000").await;
    assert_eq!(output.exit.signal, Some(9));
    assert_eq!(others(&room).await, 0);
}

#[tokio::test]
async fn many_commands_run_at_once() {
    let room = Room::new().await;
    let commands = (0..40).map(|number| {
        let command = room.command(["/bin/sh", "-c", &format!("exit {number}")]);
        let sandbox = room.sandbox.as_ref();
        async move {
            sandbox
                .exec(command)
                .await
                .unwrap()
                .wait()
                .await
                .unwrap()
                .code
        }
    });
    for (number, code) in futures(commands).await.into_iter().enumerate() {
        assert_eq!(code, Some(i32::try_from(number).unwrap()));
    }
}

/// Awaits all at once.
async fn futures<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut pinned {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        match pinned.iter().all(|(_, result)| result.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    pinned
        .into_iter()
        .map(|(_, result)| result.unwrap())
        .collect()
}

/// How many of the commands' own processes are inside. A minder may be a moment later in its end
/// than in its word about it, so it does not count.
async fn others(room: &Room) -> usize {
    named(room, "sleep").await
}

/// How many processes with this name are inside.
async fn named(room: &Room, name: &str) -> usize {
    let count = format!("cat /proc/[0-9]*/comm | grep -c {name} || true");
    room.says(&count).await.parse().unwrap()
}
