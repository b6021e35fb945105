//! A terminal: a command that talks to a person.

use skep_sandbox::{Command, Error, Host, Process, Size, Terminal};

use crate::room::{PATIENCE, Room};

const SIZE: Size = Size {
    rows: 33,
    columns: 101,
};

/// A sealed room, and one that is not.
async fn rooms() -> [Room; 2] {
    [Room::new().await, Room::of(&Host, |_| {}).await]
}

async fn start(room: &Room, script: &str) -> (Process, Terminal) {
    let command = room.command(["/bin/bash", "--norc", "-c", script]);
    let mut process = room
        .sandbox
        .exec(command.with_terminal(SIZE))
        .await
        .unwrap();
    assert!(process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none());
    let terminal = process.terminal.take().unwrap();
    (process, terminal)
}

/// Reads until the text has come.
async fn until(terminal: &Terminal, text: &str) -> String {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = tokio::time::timeout(PATIENCE, terminal.read(&mut chunk));
        let count = read.await.expect(text).unwrap();
        assert_ne!(
            count,
            0,
            "it ended after {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Reads to the end.
async fn rest(terminal: &Terminal) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = tokio::time::timeout(PATIENCE, terminal.read(&mut chunk));
        match read.await.expect("an end").unwrap() {
            0 => return seen,
            count => seen.extend_from_slice(&chunk[..count]),
        }
    }
}

#[tokio::test]
async fn a_command_can_have_a_terminal_of_its_own() {
    for room in rooms().await {
        let script = "tty; ls -l $(tty) >/dev/null && test -t 0 -a -t 1 -a -t 2 && echo for all three; \
                      (echo through the controlling one) > /dev/tty; exit 3";
        let (mut process, terminal) = start(&room, script).await;
        let text = String::from_utf8(rest(&terminal).await).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("/dev/pts/"), "{text}");
        assert_eq!(lines[1..], ["for all three", "through the controlling one"]);
        assert_eq!(process.wait().await.unwrap().code, Some(3));
    }
}

#[tokio::test]
async fn a_terminal_is_as_large_as_was_asked_and_can_be_resized() {
    for room in rooms().await {
        let script =
            "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do read -r -t 1; done";
        let (mut process, terminal) = start(&room, script).await;
        assert!(until(&terminal, "ready").await.starts_with("33 101\r\n"));
        let size = Size {
            rows: 20,
            columns: 60,
        };
        terminal.resize(size).unwrap();
        until(&terminal, "20 60\r\n").await;
        assert!(process.wait().await.unwrap().success());
        assert_eq!(Size::of(&terminal).unwrap(), size);
    }
}

#[tokio::test]
async fn a_key_ends_what_runs_in_the_foreground() {
    for room in rooms().await {
        let (mut process, terminal) = start(&room, "echo ready; exec sleep 1000").await;
        until(&terminal, "ready").await;
        terminal.write_all(b"\x03").await.unwrap();
        assert_eq!(process.wait().await.unwrap().signal, Some(2));
    }
}

#[tokio::test]
async fn a_conversation_over_a_terminal_works() {
    for room in rooms().await {
        let (mut process, terminal) = start(
            &room,
            "read -r line; echo \"it says $line\"; read -r line || echo the end",
        )
        .await;
        terminal.write_all(b"yes\n").await.unwrap();
        until(&terminal, "it says yes").await;
        terminal.write_all(b"\x04").await.unwrap();
        until(&terminal, "the end").await;
        assert!(process.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn all_output_of_a_terminal_arrives_and_then_its_end() {
    for room in rooms().await {
        let (mut process, terminal) =
            start(&room, "head -c 1048576 /dev/zero | tr '\\0' x; printf end").await;
        let all = rest(&terminal).await;
        assert_eq!(all.len(), 1_048_576 + 3);
        assert!(all.ends_with(b"xend"));
        assert!(process.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_command_with_a_terminal_ends_with_all_that_it_started() {
    for room in rooms().await {
        let script = "trap '' HUP TERM; (setsid sleep 1000 &); sleep 1000 & echo ready; wait";
        let (mut process, terminal) = start(&room, script).await;
        until(&terminal, "ready").await;
        process.kill();
        assert_eq!(process.wait().await.unwrap().signal, Some(9));
        // Whoever went on would hold it open.
        assert!(rest(&terminal).await.is_empty());
        assert_eq!(room.sandbox.diagnose().await.commands, 0);
    }
}

#[tokio::test]
async fn a_terminal_that_is_dropped_hangs_up() {
    for room in rooms().await {
        let (mut process, terminal) = start(&room, "echo ready; sleep 1000").await;
        until(&terminal, "ready").await;
        drop(terminal);
        assert_eq!(process.wait().await.unwrap().signal, Some(1));
    }
}

#[tokio::test]
async fn nothing_can_be_typed_into_a_terminal_from_inside() {
    let script = "import fcntl, termios\n\
                  try:\n  fcntl.ioctl(0, termios.TIOCSTI, b'x'); print('typed')\n\
                  except OSError as error: print('refused', error.errno)";
    let [sealed, host] = rooms().await;
    let outside = match crate::escapes::is_typing_forbidden_outside() {
        true => "refused 5",
        false => "typed",
    };
    for (room, said) in [(host, outside), (sealed, "refused 1")] {
        let command = room
            .command(["/usr/bin/python3", "-c", script])
            .with_terminal(SIZE);
        // What is typed outside is shown before.
        let seen = room.run(command).await.stdout.text();
        assert!(seen.ends_with(&format!("{said}\r\n")), "{seen}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_on_a_terminal_is_named() {
    for room in rooms().await {
        let missing = Command::new(["/no/such/program"], room.sandbox.workspace());
        let refused = room.sandbox.exec(missing.with_terminal(SIZE)).await;
        assert!(
            matches!(refused, Err(Error::NotFound { .. })),
            "{refused:?}"
        );
    }
}
