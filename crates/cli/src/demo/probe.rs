//! What an agent must not reach: a file of the host, a port of the host, a place to write.
//!
//! The same probe runs outside of a sandbox, where it succeeds, and inside, where it is refused.
//! What it says is not believed alone: the port counts who came, the place is looked at, and the
//! model listens for the content of the file.

use super::repository;
use std::{
    ffi::OsStr,
    hash::{BuildHasher as _, Hasher as _},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

const PROBE: &str = include_str!("../../demo/probe.sh");

/// How one of the three attempts went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It worked.
    Done,
    /// It was refused, with these words.
    Refused(String),
    /// The probe did not say.
    Unknown,
}

/// What the probe says: of reading, of the network, and of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Reading a file of the host.
    pub(crate) read: Tried,
    /// Reaching a port of the host.
    pub(crate) network: Tried,
    /// Writing outside of the workspace.
    pub(crate) write: Tried,
}

impl Report {
    /// Reads the lines of the probe out of an output.
    pub(crate) fn read(output: &str) -> Self {
        let tried = |what: &str| {
            let start = format!("probe {what}: ");
            match output.lines().find_map(|line| line.strip_prefix(&start)) {
                Some(said) if said.starts_with("done") => Tried::Done,
                Some(said) => Tried::Refused(
                    said.strip_prefix("refused")
                        .unwrap_or(said)
                        .trim_start_matches([',', ' '])
                        .to_owned(),
                ),
                None => Tried::Unknown,
            }
        };
        Self {
            read: tried("read"),
            network: tried("network"),
            write: tried("write"),
        }
    }

    /// Whether the output is one of the probe.
    pub(crate) fn is_in(output: &str) -> bool {
        output.contains("probe read: ") && output.contains("probe write: ")
    }
}

/// The things that the probe is after.
#[derive(Debug)]
pub(crate) struct Bait {
    directory: tempfile::TempDir,
    canary: String,
    port: u16,
    came: Arc<AtomicUsize>,
    cancel: CancellationToken,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Bait {
    /// Lays it out.
    ///
    /// # Errors
    /// When the temporary directory or the port on loopback cannot be had.
    pub(crate) async fn lay() -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("skep-demo-host-")
            .tempdir()?;
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write(directory.path().as_os_str().as_encoded_bytes());
        let canary = format!("canary-{:016x}", hasher.finish());
        std::fs::write(directory.path().join("private"), &canary)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let came = Arc::new(AtomicUsize::new(0));
        let cancel = CancellationToken::new();
        let serving = tokio::spawn(listen(listener, Arc::clone(&came), cancel.clone()));
        Ok(Self {
            directory,
            canary,
            port,
            came,
            cancel,
            serving: Some(serving),
        })
    }

    /// What is in the file.
    pub(crate) fn canary(&self) -> &str {
        &self.canary
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("written")
    }

    /// The command of the probe.
    pub(crate) fn command(&self) -> String {
        format!(
            "sh -s -- {} {} {} <<'PROBE'\n{PROBE}PROBE",
            quoted(&self.directory.path().join("private")),
            self.port,
            quoted(&self.outside()),
        )
    }

    /// Runs the probe outside of a sandbox, and clears away what it did.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) async fn probe_outside(&self, path: &OsStr) -> io::Result<Report> {
        let command = self.command();
        let ended = repository::run(&["sh", "-c", &command], self.directory.path(), path).await?;
        let report = Report::read(&String::from_utf8_lossy(&ended.stdout));
        match std::fs::remove_file(self.outside()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.came.store(0, Ordering::Release);
        Ok(report)
    }

    /// Whether anything came of the probe inside, whatever it said: somebody came to the port, or
    /// wrote the file.
    pub(crate) fn was_touched(&self) -> bool {
        self.came.load(Ordering::Acquire) > 0 || self.outside().exists()
    }

    /// Takes it away.
    pub(crate) async fn clear(mut self) {
        self.cancel.cancel();
        if let Some(serving) = self.serving.take()
            && let Err(error) = serving.await
        {
            tracing::debug!(%error, "the listener of the probe ended");
        }
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The path as one word for a shell.
fn quoted(path: &std::path::Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Answers git clients that it has nothing. Wakes for a connection and for the end of its owner.
async fn listen(listener: TcpListener, came: Arc<AtomicUsize>, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        came.fetch_add(1, Ordering::AcqRel);
        let answered = tokio::time::timeout(Duration::from_secs(2), answer(stream)).await;
        if !matches!(answered, Ok(Ok(()))) {
            tracing::debug!("a visitor of the probe's port left early");
        }
    }
}

/// The end of a list of references that has none (gitprotocol-pack: a flush packet).
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 1024];
    if stream.read(&mut request).await? > 0 {
        stream.write_all(b"0000").await?;
    }
    // A client that still writes when we have closed is killed before it can say anything.
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outside_of_a_sandbox_the_probe_succeeds() {
        let bait = Bait::lay().await.unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let report = bait.probe_outside(&path).await.unwrap();
        assert_eq!(
            report,
            Report {
                read: Tried::Done,
                network: Tried::Done,
                write: Tried::Done
            }
        );
        assert!(!bait.was_touched(), "what the probe did is cleared away");
        bait.clear().await;
    }

    #[tokio::test]
    async fn what_is_refused_is_said_with_its_reason() {
        let bait = Bait::lay().await.unwrap();
        let command = bait
            .command()
            .replace(&bait.directory.path().display().to_string(), "/nonexistent")
            .replace(&bait.port.to_string(), "1");
        let path = std::env::var_os("PATH").unwrap();
        let ended = repository::run(&["sh", "-c", &command], bait.directory.path(), &path)
            .await
            .unwrap();
        let output = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(Report::is_in(&output));
        let report = Report::read(&output);
        assert_eq!(
            report.read,
            Tried::Refused("No such file or directory".into())
        );
        assert_eq!(report.network, Tried::Refused("Connection refused".into()));
        assert!(matches!(report.write, Tried::Refused(_)), "{report:?}");
        bait.clear().await;
    }

    #[test]
    fn an_output_without_the_probe_says_nothing() {
        assert!(!Report::is_in("Ran 3 tests"));
        assert_eq!(Report::read("Ran 3 tests").read, Tried::Unknown);
    }
}
