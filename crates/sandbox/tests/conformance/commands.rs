//! What commands get, and what comes back.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt as _;

use skep_sandbox::{Backend, Command, Stdin, exec_captured};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::subject::Subject;

pub(crate) async fn output_and_exit_come_back(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let output = subject.sh("echo to out; echo to err >&2; exit 7").await;
    assert_eq!(output.stdout.text(), "to out\n");
    assert_eq!(output.stderr.text(), "to err\n");
    assert_eq!((output.exit.code, output.exit.signal), (Some(7), None));
    assert!(!output.exit.success() && output.exit.limit.is_none());
    assert!(subject.sh("true").await.exit.success());
}

pub(crate) async fn a_signal_that_ends_a_command_is_named(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let exit = subject.sh("kill -SEGV $$").await.exit;
    assert_eq!((exit.code, exit.signal), (None, Some(11)));
    // Whatever the owner ignores, and no test program dies of a broken pipe.
    let exit = subject.sh("kill -PIPE $$").await.exit;
    assert_eq!(exit.signal, Some(13));
}

pub(crate) async fn input_is_nothing_or_bytes_or_a_conversation(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    assert_eq!(subject.says("wc -c").await, "0");
    let bytes = vec![b'x'; 300_000];
    let counted = subject
        .run(subject.script("wc -c").with_stdin(Stdin::Bytes(bytes)))
        .await;
    assert_eq!(counted.stdout.text().trim(), "300000");
    let command = subject.script("exec cat").with_stdin(Stdin::Pipe);
    let mut process = subject.sandbox.exec(command).await.unwrap();
    let mut input = process.stdin.take().unwrap();
    let output = process.stdout.as_mut().unwrap();
    for word in ["one", "two"] {
        input.write_all(word.as_bytes()).await.unwrap();
        let mut answer = [0; 3];
        output.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, word.as_bytes());
    }
    drop(input);
    assert!(process.wait().await.unwrap().success());
    let again = process.wait().await.unwrap();
    assert!(again.success(), "the exit can be asked for again");
}

pub(crate) async fn only_the_given_environment_is_there(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    assert!(std::env::vars_os().count() > 1, "the owner has more");
    let command = Command::new(["/usr/bin/env"], "/").with_env([("ONLY", "this")]);
    assert_eq!(subject.run(command).await.stdout.text(), "ONLY=this\n");
    let says = subject.says("echo $HOME $LANG").await;
    let home = subject.sandbox.home().display().to_string();
    assert_eq!(says, format!("{home} C.UTF-8"));
    // No descriptor but the three streams, and the one that lists.
    assert_eq!(subject.says("ls /proc/self/fd | wc -l").await, "4");
}

pub(crate) async fn the_working_directory_is_the_one_that_was_asked_for(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let place = subject.sandbox.workspace().display().to_string();
    assert_eq!(subject.says("pwd").await, place);
    subject.says("mkdir -p a/b").await;
    let inner = subject.sandbox.workspace().join("a/b");
    let pwd = subject.run(Command::new(["/bin/pwd"], &inner)).await;
    assert_eq!(pwd.stdout.text().trim_end(), inner.display().to_string());
}

pub(crate) async fn files_are_the_same_on_both_sides(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    fs::write(subject.outside("workspace/in"), "from outside").unwrap();
    let says = subject.says("cat in; echo inside > out; echo x > ~/kept");
    assert_eq!(says.await, "from outside");
    let read = |name| fs::read_to_string(subject.outside(name)).unwrap();
    assert_eq!(read("workspace/out"), "inside\n");
    assert_eq!(read("home/kept"), "x\n");
    // Whoever made them, they are the owner's outside and the sandbox's user's inside.
    let owner = |name| fs::metadata(subject.outside(name)).unwrap().uid();
    let caller = fs::metadata("/proc/self").unwrap().uid();
    for name in ["workspace/in", "workspace/out", "home/kept"] {
        assert_eq!(owner(name), caller, "{name}");
    }
    let users = subject.says("id -u; stat -c %u in out ~/kept . ~").await;
    let mut users = users.lines();
    let user = users.next().unwrap();
    assert_eq!(users.collect::<Vec<_>>(), [user; 5]);
}

pub(crate) async fn endless_output_is_kept_in_bounded_memory(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let command = subject.script("head -c 100000000 /dev/zero; echo end");
    let output = exec_captured(subject.sandbox.as_ref(), command, 1000);
    let output = output.await.unwrap();
    assert!(output.exit.success());
    assert_eq!(output.stdout.total_bytes(), 100_000_004);
    assert_eq!(output.stdout.head.len() + output.stdout.tail.len(), 1000);
    assert!(output.stdout.tail.ends_with(b"end\n"));
}

pub(crate) async fn many_commands_run_at_once(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let mut running = Vec::new();
    for number in 0..30 {
        let command = subject.script(&format!("read line; exit {number}"));
        let command = command.with_stdin(Stdin::Pipe);
        running.push(subject.sandbox.exec(command).await.unwrap());
    }
    assert_eq!(subject.sandbox.diagnose().await.commands, 30);
    for (number, process) in (0..).zip(&mut running) {
        drop(process.stdin.take());
        assert_eq!(process.wait().await.unwrap().code, Some(number));
    }
}

pub(crate) async fn the_channel_accepts_what_is_connected_inside(backend: &dyn Backend) {
    let subject = Subject::with(backend, |spec, _| spec.channel_port = Some(0)).await;
    let channel = subject.sandbox.take_channel().unwrap();
    let again = subject.sandbox.take_channel();
    assert!(again.is_none(), "it is handed out once");
    let port = channel.port;
    let outside = std::thread::spawn(move || {
        let (stream, peer) = channel.listener.accept().unwrap();
        assert!(channel.guard.is_none_or(|guard| guard.admits(peer)));
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(format!("you said {line}").as_bytes())
    });
    let script = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; cat <&3'");
    assert_eq!(subject.says(&script).await, "you said hello");
    outside.join().unwrap().unwrap();
    let without = Subject::new(backend).await;
    assert!(without.sandbox.take_channel().is_none());
}
