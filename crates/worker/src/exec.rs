//! The sandbox of a site, lent to an agent.

use agents::exec::{Captured, Error, Exec, Exit, Output, Request, Running};
use async_trait::async_trait;
use sandbox::{Command, Process, Sandbox, Stdin};
use std::time::Instant;
use tokio::{io::AsyncReadExt, task::JoinHandle};

/// How much of a running command's output is passed on at once.
const CHUNK: usize = 64 * 1024;

/// Runs an agent's commands in a sandbox.
pub(crate) struct SandboxExec<'a>(pub(crate) &'a dyn Sandbox);

fn command(request: &Request, stdin: Stdin) -> Command {
    Command::new(request.argv.iter().cloned(), request.cwd.clone())
        .with_env(request.env.iter().cloned())
        .with_stdin(stdin)
        .with_timeout(request.timeout)
}

fn program(request: &Request) -> String {
    request
        .argv
        .first()
        .map(|word| word.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn failed(program: String) -> impl Fn(sandbox::Error) -> Error {
    move |source| {
        let program = program.clone();
        match source {
            sandbox::Error::Struck { .. } | sandbox::Error::TooManyProcesses => Error::Limit {
                program,
                source: source.into(),
            },
            sandbox::Error::Gone | sandbox::Error::Silent { .. } => Error::Gone {
                program,
                source: source.into(),
            },
            _ => Error::Start {
                program,
                source: source.into(),
            },
        }
    }
}

fn exit(exit: sandbox::Exit) -> Exit {
    Exit {
        code: exit.code,
        signal: exit.signal,
        timed_out: exit.timed_out,
        limit: exit.limit.map(|limit| limit.to_string()),
        refused: exit.refused.map(|call| call.to_string()),
    }
}

fn captured(captured: sandbox::Captured) -> Captured {
    Captured {
        head: captured.head,
        tail: captured.tail,
        omitted: captured.omitted,
    }
}

#[async_trait]
impl Exec for SandboxExec<'_> {
    async fn exec(&self, mut request: Request) -> Result<Output, Error> {
        let start = Instant::now();
        let stdin = match std::mem::take(&mut request.stdin) {
            empty if empty.is_empty() => Stdin::Null,
            bytes => Stdin::Bytes(bytes),
        };
        let output = sandbox::exec_captured(self.0, command(&request, stdin), request.max_output)
            .await
            .map_err(failed(program(&request)))?;
        Ok(Output {
            exit: exit(output.exit),
            stdout: captured(output.stdout),
            stderr: captured(output.stderr),
            duration: start.elapsed(),
        })
    }

    async fn spawn(&self, mut request: Request) -> Result<Box<dyn Running>, Error> {
        let bytes = std::mem::take(&mut request.stdin);
        let stdin = if bytes.is_empty() {
            Stdin::Null
        } else {
            Stdin::Bytes(bytes)
        };
        let program = program(&request);
        let mut process = self
            .0
            .exec(command(&request, stdin))
            .await
            .map_err(failed(program.clone()))?;
        let errors = process.stderr.take().map(|stderr| {
            let keep = request.max_output;
            AbortOnDrop(tokio::spawn(async move { tail(stderr, keep).await }))
        });
        Ok(Box::new(SandboxRunning {
            process,
            errors,
            program,
            start: Instant::now(),
        }))
    }
}

/// A command that runs in a sandbox.
struct SandboxRunning {
    process: Process,
    /// Reads the error output; it ends with it, and at the latest with the command.
    errors: Option<AbortOnDrop>,
    program: String,
    start: Instant,
}

struct AbortOnDrop(JoinHandle<Captured>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Running for SandboxRunning {
    async fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(stdout) = self.process.stdout.as_mut() else {
            return Ok(None);
        };
        let mut chunk = vec![0; CHUNK];
        let count = stdout
            .read(&mut chunk)
            .await
            .map_err(|source| Error::Gone {
                program: self.program.clone(),
                source: source.into(),
            })?;
        chunk.truncate(count);
        Ok((count > 0).then_some(chunk))
    }

    async fn wait(&mut self) -> Result<Output, Error> {
        let ended = self
            .process
            .wait()
            .await
            .map_err(failed(self.program.clone()))?;
        let stderr = match self.errors.as_mut() {
            Some(errors) => (&mut errors.0).await.unwrap_or_default(),
            None => Captured::default(),
        };
        self.errors = None;
        Ok(Output {
            exit: exit(ended),
            stdout: Captured::default(),
            stderr,
            duration: self.start.elapsed(),
        })
    }
}

/// The last bytes of a stream, in bounded memory.
async fn tail(mut stream: impl tokio::io::AsyncRead + Unpin, keep: usize) -> Captured {
    let mut kept = Captured::default();
    let mut chunk = vec![0; CHUNK];
    // Ends with the stream; an error of a pipe is its end too.
    while let Ok(count) = stream.read(&mut chunk).await {
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        kept.tail.extend_from_slice(bytes);
        let surplus = kept.tail.len().saturating_sub(keep.max(1));
        kept.tail.drain(..surplus);
        kept.omitted += surplus as u64;
    }
    kept
}
