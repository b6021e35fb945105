//! A sandbox of the kind that is tried, and how promises use it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_sandbox::{Backend, Command, Output, Process, Sandbox, Spec, Workspace, exec_captured};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// No promise takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox and the directory of the host that holds its files.
pub(crate) struct Subject {
    pub(crate) directory: TempDir,
    pub(crate) sandbox: Box<dyn Sandbox>,
}

pub(crate) fn directories() -> (TempDir, Spec) {
    let directory = TempDir::new().unwrap();
    for name in ["workspace", "home"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let mut spec = Spec::new(Workspace::Directory(directory.path().join("workspace")));
    spec.home = Some(directory.path().join("home"));
    (directory, spec)
}

impl Subject {
    pub(crate) async fn new(backend: &dyn Backend) -> Self {
        Self::with(backend, |_, _| {}).await
    }

    pub(crate) async fn with(backend: &dyn Backend, change: impl FnOnce(&mut Spec, &Path)) -> Self {
        let (directory, mut spec) = directories();
        change(&mut spec, directory.path());
        let sandbox = backend.create(spec).await.unwrap();
        Self { directory, sandbox }
    }

    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A script of the shell.
    pub(crate) fn script(&self, script: &str) -> Command {
        Command::new(["/bin/sh", "-c", script], self.sandbox.workspace())
            .with_env(self.sandbox.base_env())
            .with_timeout(PATIENCE)
    }

    pub(crate) async fn run(&self, command: Command) -> Output {
        exec_captured(self.sandbox.as_ref(), command, 1 << 16)
            .await
            .unwrap()
    }

    pub(crate) async fn sh(&self, script: &str) -> Output {
        self.run(self.script(script)).await
    }

    pub(crate) async fn says(&self, script: &str) -> String {
        let output = self.sh(script).await;
        let errors = output.stderr.text();
        assert!(output.exit.success(), "{script}: {}: {errors}", output.exit);
        output.stdout.text().trim_end().to_owned()
    }

    /// Reads a file of the workspace once it is on the disk and nowhere else.
    pub(crate) async fn read_from_the_disk(&self, name: &str) {
        let read = format!(
            "import os\nf = os.open('{name}', os.O_RDWR)\nos.fsync(f)\nos.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)\nwhile os.read(f, 1 << 20): pass"
        );
        let command = Command::new(["/usr/bin/python3", "-c", &read], self.sandbox.workspace());
        let output = self.run(command).await;
        assert!(output.exit.success(), "{}", output.stderr.text());
    }

    /// Starts a script and waits until it has said "up".
    pub(crate) async fn up(&self, command: Command) -> Process {
        let mut process = self.sandbox.exec(command).await.unwrap();
        let mut up = [0; 3];
        let output = process.stdout.as_mut().unwrap();
        output.read_exact(&mut up).await.unwrap();
        assert_eq!(&up, b"up\n");
        process
    }
}

/// Waits until the output ends: that is when the last process that holds it has.
pub(crate) async fn all_have_ended(process: &mut Process) {
    let mut output = process.stdout.take().unwrap();
    ends(&mut output).await;
}

pub(crate) async fn ends(output: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, output.read_to_end(&mut rest))
        .await
        .expect("what holds the output goes on")
        .unwrap();
}
