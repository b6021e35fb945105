//! A command that an SSH client runs inside, from its start to its end.

use super::spool::Take;
use bytes::{Bytes, BytesMut};
use russh::{ChannelWriteHalf, Sig, server::Handle, server::Msg};
use sandbox::{Size, Terminal};
use server::standing::{self, Ends, Held, Nudge, Run, Running};
use std::{pin::pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    sync::mpsc,
};

/// How much is passed on at once, in bytes.
pub(super) const CHUNK: usize = 32 << 10;
/// How SSH numbers the error output.
pub(super) const ERRORS: u32 = 1;
/// What a client is told of a command that could not be started, or whose end is not known.
const UNKNOWN: u8 = 255;
/// What ends the input at a terminal.
const END_OF_INPUT: &[u8] = b"\x04";

/// What a client does to a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Control {
    Nudge(Nudge),
    Resize(Size),
}

/// What runs, and what it is connected to.
pub(super) struct Program {
    pub(super) held: Arc<Held>,
    pub(super) run: Run,
    pub(super) input: Take,
    pub(super) controls: mpsc::Receiver<Control>,
    pub(super) to: ChannelWriteHalf<Msg>,
    pub(super) handle: Handle,
}

impl Program {
    /// Runs it, and tells the client how it ended. Dropped, this kills it. A client that is gone is told
    /// nothing.
    pub(super) async fn run(self) {
        let Self {
            held,
            run,
            input,
            mut controls,
            to,
            handle,
        } = self;
        let ended = match held.exec(run).await {
            Ok(mut running) => match running.take_ends() {
                Some(Ends::Terminal(terminal)) => {
                    at_terminal(&mut running, &terminal, input, &mut controls, &to).await
                }
                Some(Ends::Pipes {
                    stdin,
                    stdout,
                    stderr,
                }) => {
                    let shown = async {
                        tokio::join!(
                            pass_on(stdout, &to, None),
                            pass_on(stderr, &to, Some(ERRORS))
                        );
                    };
                    let fed = feed(stdin, input);
                    drive(&mut running, &mut controls, shown, fed, None).await
                }
                None => Err(sandbox::Error::Gone.into()),
            },
            Err(error) => Err(error),
        };
        let sent = tell(&ended, &to, &handle).await;
        if sent.is_none() {
            tracing::debug!("the client is gone");
        }
    }
}

/// Waits for the end of the command and of all that it prints. Woken by these, and by the client.
async fn drive(
    running: &mut Running,
    controls: &mut mpsc::Receiver<Control>,
    shown: impl Future<Output = ()>,
    fed: impl Future<Output = ()>,
    terminal: Option<&Terminal>,
) -> Result<sandbox::Exit, server::Error> {
    let (mut shown, mut fed) = (pin!(shown), pin!(fed));
    let (mut all_shown, mut all_fed, mut exit) = (false, false, None);
    loop {
        if let (true, Some(exit)) = (all_shown, exit) {
            return Ok(exit);
        }
        tokio::select! {
            ended = running.wait(), if exit.is_none() => exit = Some(ended?),
            () = &mut shown, if !all_shown => all_shown = true,
            () = &mut fed, if !all_fed => all_fed = true,
            Some(control) = controls.recv() => match (control, terminal) {
                (Control::Nudge(nudge), _) if exit.is_none() => running.nudge(nudge).await,
                (Control::Resize(size), Some(terminal)) => {
                    if let Err(error) = terminal.resize(size) {
                        tracing::debug!(%error, "the terminal inside has ended");
                    }
                }
                _ => {}
            },
        }
    }
}

async fn at_terminal(
    running: &mut Running,
    terminal: &Terminal,
    mut input: Take,
    controls: &mut mpsc::Receiver<Control>,
    to: &ChannelWriteHalf<Msg>,
) -> Result<sandbox::Exit, server::Error> {
    let shown = async {
        let mut bytes = vec![0; CHUNK];
        while let Ok(count @ 1..) = terminal.read(&mut bytes).await {
            let part = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
            if to.data_bytes(part).await.is_err() {
                return;
            }
        }
    };
    let typed = async {
        while let Ok(Some(bytes)) = input.next().await {
            if terminal.write_all(&bytes).await.is_err() {
                return;
            }
        }
        if let Err(error) = terminal.write_all(END_OF_INPUT).await {
            tracing::debug!(%error, "the terminal inside has ended");
        }
    };
    drive(running, controls, shown, typed, Some(terminal)).await
}

/// Passes the input on, and then its end.
async fn feed(to: Option<pipe::Sender>, mut input: Take) {
    let Some(mut to) = to else { return };
    loop {
        match input.next().await {
            Ok(Some(bytes)) => {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "what a client sent is lost");
                return;
            }
        }
    }
}

/// Passes on what is printed, as fast as the client takes it. Where it takes no more, the command finds
/// its output closed.
pub(super) async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    to: &ChannelWriteHalf<Msg>,
    ext: Option<u32>,
) {
    let mut bytes = BytesMut::new();
    loop {
        bytes.reserve(CHUNK);
        match from.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let part = bytes.split().freeze();
        let sent = match ext {
            None => to.data_bytes(part).await,
            Some(ext) => to.extended_data_bytes(ext, part).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Says how it ended, and closes the channel; nothing where the client is gone.
async fn tell(
    ended: &Result<sandbox::Exit, server::Error>,
    to: &ChannelWriteHalf<Msg>,
    handle: &Handle,
) -> Option<()> {
    let (status, why) = match ended {
        Ok(exit) => (exit.code, exit.why()),
        Err(error) => {
            let code = match error {
                server::Error::Standing(standing::Error::Program { code, .. }) => *code,
                _ => UNKNOWN,
            };
            (Some(code.into()), Some(domain::failure::chain(error)))
        }
    };
    if let Some(why) = why {
        let line = format!("skep: {}\r\n", crate::view::text::line(&why));
        to.extended_data_bytes(ERRORS, line).await.ok()?;
    }
    to.eof().await.ok()?;
    match (status, ended) {
        (None, Ok(exit)) => {
            let signal = signal(exit.signal.unwrap_or(0));
            let told =
                handle.exit_signal_request(to.id(), signal, false, String::new(), String::new());
            told.await.ok()?;
        }
        (status, _) => {
            let status = status.and_then(|it| u32::try_from(it).ok());
            to.exit_status(status.unwrap_or(UNKNOWN.into()))
                .await
                .ok()?;
        }
    }
    to.close().await.ok()
}

/// The names of SSH for the signals of this system (RFC 4254, 6.10).
const SIGNALS: [(i32, Sig); 12] = [
    (1, Sig::HUP),
    (2, Sig::INT),
    (3, Sig::QUIT),
    (4, Sig::ILL),
    (6, Sig::ABRT),
    (8, Sig::FPE),
    (9, Sig::KILL),
    (10, Sig::USR1),
    (11, Sig::SEGV),
    (13, Sig::PIPE),
    (14, Sig::ALRM),
    (15, Sig::TERM),
];

fn signal(number: i32) -> Sig {
    let mut known = SIGNALS.into_iter();
    let found = known.find(|(its, _)| *its == number);
    // Others have names of whoever sends them.
    found.map_or_else(|| Sig::Custom(format!("{number}@skep")), |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_a_name() {
        assert!(matches!(signal(15), Sig::TERM));
        assert!(matches!(signal(31), Sig::Custom(name) if name == "31@skep"));
    }
}
