//! A sandbox around temporary directories, and how tests use it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_sandbox::{Backend, Command, Kind, Output, Sandbox, Spec, Workspace, exec_captured};
use tempfile::TempDir;

/// No command of the tests takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Counts the processes inside: process 1, a minder, and the shell that counts.
pub(crate) const COUNT: &str = "set -- /proc/[0-9]*; echo $#";
pub(crate) const OUTPUT: usize = 1 << 16;

/// A sandbox and the directories of the host around it.
pub(crate) struct Room {
    pub(crate) directory: TempDir,
    pub(crate) sandbox: Box<dyn Sandbox>,
}

/// Two directories of the host: the workspace and the home.
pub(crate) fn directories() -> TempDir {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("workspace")).unwrap();
    std::fs::create_dir(directory.path().join("home")).unwrap();
    directory
}

pub(crate) fn spec(directory: &Path) -> Spec {
    let mut spec = Spec::new(Workspace::Directory(directory.join("workspace")));
    spec.home = Some(directory.join("home"));
    spec
}

impl Room {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Spec)) -> Self {
        Self::of(&*crate::contained::kind(), change).await
    }

    pub(crate) async fn of(backend: &dyn Backend, change: impl FnOnce(&mut Spec)) -> Self {
        let directory = directories();
        let mut spec = spec(directory.path());
        spec.extras.nested = crate::nested::is_asked_for() && backend.kind() == Kind::Namespace;
        change(&mut spec);
        let sandbox = backend
            .create(spec)
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        Self { directory, sandbox }
    }

    pub(crate) fn command<const N: usize>(&self, argv: [&str; N]) -> Command {
        Command::new(argv, self.sandbox.workspace())
            .with_env(self.sandbox.base_env())
            .with_timeout(PATIENCE)
    }

    pub(crate) async fn run(&self, command: Command) -> Output {
        exec_captured(self.sandbox.as_ref(), command, OUTPUT)
            .await
            .unwrap()
    }

    /// Runs a script of the shell.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        self.run(self.command(["/bin/sh", "-c", script])).await
    }

    /// What a script prints; it must succeed.
    pub(crate) async fn says(&self, script: &str) -> String {
        let output = self.sh(script).await;
        assert!(
            output.exit.success(),
            "{script}: {}: {}",
            output.exit,
            output.stderr.text()
        );
        output.stdout.text().trim_end().to_owned()
    }

    pub(crate) fn host_workspace(&self) -> PathBuf {
        self.directory.path().join("workspace")
    }
}

/// Whether a script succeeds outside.
pub(crate) fn succeeds_outside(script: &str) -> bool {
    std::process::Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
        .status
        .success()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs one ignored test of this program in a process of its own, outside.
pub(crate) fn this_program(test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        test,
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
}
