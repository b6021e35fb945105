//! A terminal, where a person talks to a command.

use skep_sandbox::{Backend, Process, Size, Terminal};

use crate::subject::{PATIENCE, Subject};

const SIZE: Size = Size {
    rows: 33,
    columns: 101,
};

async fn start(subject: &Subject, script: &str) -> (Process, Terminal) {
    let command = subject.script(script).with_terminal(SIZE);
    let mut process = subject.sandbox.exec(command).await.unwrap();
    assert!(process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none());
    let terminal = process.terminal.take().unwrap();
    (process, terminal)
}

/// Reads until the text has come.
async fn until(terminal: &Terminal, text: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 4096];
    while !seen.contains(text) {
        let read = tokio::time::timeout(PATIENCE, terminal.read(&mut chunk));
        let count = read.await.expect(text).unwrap();
        assert_ne!(count, 0, "it ended after {seen}");
        seen += &String::from_utf8_lossy(&chunk[..count]);
    }
    seen
}

pub(crate) async fn a_command_talks_to_a_person_on_a_terminal_of_its_own(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = "test -t 0 -a -t 1 -a -t 2 && echo all three; read -r line; \
                  echo \"it says $line\" > /dev/tty; exit 3";
    let (mut process, terminal) = start(&subject, script).await;
    until(&terminal, "all three").await;
    terminal.write_all(b"yes\n").await.unwrap();
    until(&terminal, "it says yes").await;
    assert_eq!(process.wait().await.unwrap().code, Some(3));
}

pub(crate) async fn a_key_ends_what_runs_in_the_foreground(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let (mut process, terminal) = start(&subject, "echo ready; exec sleep 1000").await;
    until(&terminal, "ready").await;
    terminal.write_all(b"\x03").await.unwrap();
    assert_eq!(process.wait().await.unwrap().signal, Some(2));
}

pub(crate) async fn a_terminal_has_the_size_that_is_asked_for_and_hangs_up_when_it_is_dropped(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    let (mut process, terminal) = start(&subject, "echo ready; sleep 1000").await;
    until(&terminal, "ready").await;
    assert_eq!(Size::of(&terminal).unwrap(), SIZE);
    let size = Size {
        rows: 20,
        columns: 60,
    };
    terminal.resize(size).unwrap();
    assert_eq!(Size::of(&terminal).unwrap(), size);
    drop(terminal);
    assert_eq!(process.wait().await.unwrap().signal, Some(1));
}
