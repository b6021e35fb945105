//! What is refused, with which error.

use skep_sandbox::{Backend, Command, Error, Workspace};

use crate::subject::{Subject, directories};

pub(crate) async fn a_program_that_is_missing_is_no_exit_code(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    for program in ["no-such-program", "/no/such/program"] {
        let command = Command::new([program], subject.sandbox.workspace());
        let refused = subject.sandbox.exec(command).await;
        assert!(matches!(refused, Err(Error::NotFound { .. })), "{program}");
    }
    std::fs::write(subject.outside("workspace/plain"), "text").unwrap();
    let plain = subject.sandbox.workspace().join("plain");
    let refused = subject.sandbox.exec(Command::new([plain], "/")).await;
    assert!(matches!(refused, Err(Error::CannotStart { .. })));
    assert_eq!(subject.sh("exit 127").await.exit.code, Some(127));
}

pub(crate) async fn a_directory_that_cannot_be_entered_is_named(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let command = Command::new(["/bin/true"], "/no/such/directory");
    let refused = subject.sandbox.exec(command).await;
    assert!(matches!(refused, Err(Error::WorkingDirectory { .. })));
}

pub(crate) async fn a_command_that_makes_no_sense_is_refused(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let huge = "x".repeat(9 << 20);
    for words in [vec![], vec!["/bin/echo", "a\0b"], vec!["/bin/echo", &huge]] {
        let refused = subject.sandbox.exec(Command::new(words, "/")).await;
        assert!(matches!(refused, Err(Error::InvalidCommand { .. })));
    }
    // Short as they are, a name and the places to look for it multiply.
    let command = Command::new(["x".repeat(100_000)], "/");
    let command = command.with_env([("PATH", ":".repeat(100_000))]);
    let refused = subject.sandbox.exec(command).await;
    assert!(matches!(refused, Err(Error::InvalidCommand { .. })));
    assert_eq!(subject.says("echo on").await, "on");
}

pub(crate) async fn a_workspace_that_is_missing_is_refused(backend: &dyn Backend) {
    let (directory, mut spec) = directories();
    spec.workspace = Workspace::Directory(directory.path().join("missing"));
    let refused = backend.create(spec).await.err();
    let typed = matches!(refused, Some(Error::Setup { .. } | Error::Spec { .. }));
    assert!(typed, "{refused:?}");
}
