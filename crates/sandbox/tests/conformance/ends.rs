//! How commands and sandboxes end, and that nothing goes on.

use std::time::Duration;

use skep_sandbox::{Backend, Error, Limit, Trouble};
use tokio::io::AsyncReadExt as _;

use crate::subject::{PATIENCE, Subject, all_have_ended, ends};

/// Processes that leave the group and the session of their command, and hold its output.
const LEAVE: &str = "trap '' HUP; setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ;";

pub(crate) async fn a_timeout_ends_the_whole_tree(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = format!("trap '' TERM; {LEAVE} echo up; while :; do sleep 1000; done");
    let mut command = subject.script(&script);
    command.timeout = Some(Duration::from_millis(200));
    command.grace = Duration::from_millis(200);
    let mut process = subject.sandbox.exec(command).await.unwrap();
    all_have_ended(&mut process).await;
    let exit = process.wait().await.unwrap();
    assert!(exit.timed_out && !exit.success());
    assert_eq!(exit.signal, Some(9));
    let diagnosis = subject.sandbox.diagnose().await;
    assert_eq!(diagnosis.trouble(), Some(Trouble::OutOfTime));
}

pub(crate) async fn a_command_may_end_politely_when_its_time_is_over(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let polite = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done";
    let mut command = subject.script(polite);
    command.timeout = Some(Duration::from_millis(300));
    command.grace = PATIENCE;
    let output = subject.run(command).await;
    assert_eq!(output.stdout.text(), "bye\n");
    assert_eq!(output.exit.code, Some(3));
    assert!(output.exit.timed_out && !output.exit.success());
}

pub(crate) async fn a_command_can_be_asked_to_end_and_can_be_killed(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";
    let mut process = subject.up(subject.script(script)).await;
    process.terminate();
    let exit = process.wait().await.unwrap();
    assert_eq!((exit.code, exit.timed_out), (Some(4), false));
    let script = format!("trap '' TERM; {LEAVE} echo up; while :; do sleep 1000; done");
    let mut process = subject.up(subject.script(&script)).await;
    process.kill();
    all_have_ended(&mut process).await;
    let exit = process.wait().await.unwrap();
    assert_eq!((exit.signal, exit.limit), (Some(9), None));
}

pub(crate) async fn a_command_can_be_interrupted_and_can_answer_that(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = "trap 'echo heard; exit 6' INT; echo up; while :; do sleep 0.05; done";
    let mut process = subject.up(subject.script(script)).await;
    process.interrupt();
    let mut output = process.stdout.take().unwrap();
    let mut said = String::new();
    let read = output.read_to_string(&mut said);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert_eq!(said, "heard\n");
    let exit = process.wait().await.unwrap();
    assert_eq!(
        (exit.code, exit.signal, exit.timed_out),
        (Some(6), None, false)
    );
    // Who says nothing of it is ended by it, with what it started.
    let mut process = subject
        .up(subject.script("sleep 1000 & echo up; exec sleep 1000"))
        .await;
    process.interrupt();
    all_have_ended(&mut process).await;
    assert_eq!(process.wait().await.unwrap().signal, Some(2));
}

pub(crate) async fn what_a_command_leaves_behind_is_ended_before_its_exit_is_told(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    let mut process = subject
        .up(subject.script(&format!("{LEAVE} echo up; exit 5")))
        .await;
    let exit = process.wait().await.unwrap();
    assert_eq!(exit.code, Some(5));
    all_have_ended(&mut process).await;
}

pub(crate) async fn what_is_asked_to_stay_stays_until_the_sandbox_ends(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    // It answers through a pipe of the workspace as long as it lives.
    subject.says("mkfifo ask answer").await;
    let server = "(setsid sh -c 'while read x < ask; do echo $x > answer; done' &) ; echo up";
    let mut command = subject.script(server);
    command.keep_background = true;
    let mut process = subject.up(command).await;
    assert!(process.wait().await.unwrap().success());
    assert_eq!(subject.says("echo on > ask; cat answer").await, "on");
    subject.sandbox.destroy().await.unwrap();
    all_have_ended(&mut process).await;
}

pub(crate) async fn a_dropped_process_takes_its_tree_along(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = format!("{LEAVE} echo up; sleep 1000");
    let mut process = subject.up(subject.script(&script)).await;
    let mut output = process.stdout.take().unwrap();
    drop(process);
    ends(&mut output).await;
    assert_eq!(subject.says("echo on").await, "on");
}

pub(crate) async fn a_dropped_sandbox_ends_everything(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = format!("{LEAVE} echo up; sleep 1000");
    let mut process = subject.up(subject.script(&script)).await;
    drop(subject);
    all_have_ended(&mut process).await;
    assert!(matches!(process.wait().await, Err(Error::Gone)));
}

pub(crate) async fn a_destroyed_sandbox_ends_everything_and_says_so(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = format!("trap '' TERM; {LEAVE} echo up; sleep 1000");
    let mut process = subject.up(subject.script(&script)).await;
    subject.sandbox.destroy().await.unwrap();
    all_have_ended(&mut process).await;
    assert!(matches!(process.wait().await, Err(Error::Gone)));
}

pub(crate) async fn a_limit_of_the_owner_ends_everything_and_is_named(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let script = format!("{LEAVE} echo up; sleep 1000");
    let mut process = subject.up(subject.script(&script)).await;
    let strike = subject.sandbox.strike();
    strike.strike(Limit::Disk);
    let exit = process.wait().await.unwrap();
    assert_eq!((exit.signal, exit.limit), (Some(9), Some(Limit::Disk)));
    all_have_ended(&mut process).await;
    let later = subject.sandbox.exec(subject.script("true")).await;
    let disk = matches!(later, Err(Error::Struck { limit: Limit::Disk }));
    assert!(disk, "{later:?}");
}

pub(crate) async fn a_time_that_no_clock_reaches_ends_nothing(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let command = subject.script("exit 3").with_timeout(Duration::MAX);
    let exit = subject.run(command).await.exit;
    assert_eq!((exit.code, exit.timed_out), (Some(3), false));
}
