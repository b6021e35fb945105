//! A command inside at the person's own terminal or streams.

use crate::{
    exit::Exit,
    report::Error,
    signals::{Signals, listen},
};
use sandbox::{Size, Terminal};
use server::standing::{Ends, Nudge, Running, Said, Tail};
use std::{
    io::{self, IsTerminal as _, Read as _},
    pin::pin,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    signal::unix::SignalKind,
    sync::mpsc,
};

const CHUNK: usize = 32 << 10;
/// So many of them wait to be passed on.
const CHUNKS: usize = 4;
/// How long a command may take to end that is asked to, and the program to show what it printed then.
const GRACE: Duration = Duration::from_secs(2);
/// How long one may take that is killed after that.
const KILLED_WITHIN: Duration = Duration::from_secs(8);

/// How it ended.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// Of the command; nothing if it was not heard.
    pub(crate) exit: Option<sandbox::Exit>,
    /// How the program was told to end meanwhile, if it was.
    pub(crate) told: Option<Exit>,
    /// Why what it printed could not be written, where somebody would have read it.
    pub(crate) lost: Option<io::Error>,
    /// What it printed last; nothing of what was on a terminal.
    pub(crate) said: Said,
}

impl Relayed {
    /// How the program ends: as the command did, unless it was told to end.
    ///
    /// # Errors
    /// When what the command printed could not be written.
    pub(crate) fn code(self) -> Result<Exit, Error> {
        match (self.told, self.lost, self.exit) {
            (Some(told), _, _) => Ok(told),
            (None, Some(error), _) => Err(Error::Output(error)),
            (None, None, Some(exit)) => Ok(Exit::of_command(exit)),
            (None, None, None) => Ok(Exit::Failed),
        }
    }
}

/// The size of the person's terminal, if what is typed and what is shown is at one.
pub(crate) fn terminal() -> Option<Size> {
    let (input, output) = (io::stdin(), io::stdout());
    (input.is_terminal() && output.is_terminal()).then(|| size(&input))
}

/// The size of a terminal; the usual one of what is none, or does not know.
fn size(of: &impl std::os::fd::AsFd) -> Size {
    match Size::of(of) {
        Ok(size) if size.rows > 0 && size.columns > 0 => size,
        _ => Size::USUAL,
    }
}

/// The terminal is the person's again when this is dropped.
struct Raw(Option<rustix::termios::Termios>);

impl Raw {
    /// Passes every key on as it is, `Ctrl-C` too.
    fn enter() -> Result<Self, Error> {
        use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(Self(None));
        }
        let refused = |error: rustix::io::Errno| Error::System {
            doing: "preparing the terminal",
            source: error.into(),
        };
        let was = tcgetattr(&input).map_err(refused)?;
        let mut raw = was.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Drain, &raw).map_err(refused)?;
        Ok(Self(Some(was)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        if let Some(was) = &self.0
            && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Drain, was)
        {
            // A terminal that is gone needs nothing.
            tracing::debug!(%error, "the terminal could not be put back");
        }
    }
}

/// Ends a command: asks it to, and kills it where it does not. What it prints meanwhile must be read.
/// Says how it ended, unless that is not heard in time.
pub(crate) async fn end(running: &mut Running) -> Option<sandbox::Exit> {
    for (nudge, within) in [(Nudge::Terminate, GRACE), (Nudge::Kill, KILLED_WITHIN)] {
        running.nudge(nudge).await;
        if let Ok(ended) = tokio::time::timeout(within, running.wait()).await {
            return ended.ok();
        }
    }
    None
}

/// Passes on what is typed and what is printed until the command has ended. `Ctrl-C` goes to the
/// command; told to end otherwise, the program ends it.
///
/// # Errors
/// When the terminal cannot be used, or the sandbox ended.
pub(crate) async fn relay(running: &mut Running, signals: &mut Signals) -> Result<Relayed, Error> {
    match running.take_ends() {
        Some(Ends::Terminal(terminal)) => {
            let raw = Raw::enter()?;
            let shown = show(&terminal);
            let typed = type_in(&terminal);
            let ended = drive(running, signals, shown, typed, Some(&terminal)).await;
            drop(raw);
            ended
        }
        Some(Ends::Pipes {
            stdin,
            stdout,
            stderr,
        }) => {
            let mut said = Said::default();
            let shown = async {
                let both = tokio::join!(
                    copy(stdout, To::Output, &mut said.stdout),
                    copy(stderr, To::Errors, &mut said.stderr)
                );
                both.0.and(both.1)
            };
            let ended = drive(running, signals, shown, feed(stdin), None).await?;
            Ok(Relayed { said, ..ended })
        }
        None => Err(Error::Internal("a command has no streams".into())),
    }
}

/// Waits for the end. Woken by it, by signals, by the size of the terminal, and by the streams.
async fn drive(
    running: &mut Running,
    signals: &mut Signals,
    shown: impl Future<Output = io::Result<()>>,
    typed: impl Future<Output = ()>,
    terminal: Option<&Terminal>,
) -> Result<Relayed, Error> {
    let mut resized = listen(SignalKind::window_change())?;
    let mut quit = listen(SignalKind::quit())?;
    let (mut shown, mut typed) = (pin!(shown), pin!(typed));
    let (mut all_shown, mut all_typed) = (false, false);
    let mut lost = None;
    let exit = loop {
        let told = tokio::select! {
            exit = running.wait() => break exit?,
            told = signals.next() => told,
            _ = quit.recv() => Exit::Terminated,
            _ = resized.recv(), if terminal.is_some() => {
                if let Some(Err(error)) = terminal.map(|it| it.resize(size(&io::stdin()))) {
                    tracing::debug!(%error, "the terminal inside has ended");
                }
                continue;
            }
            written = &mut shown, if !all_shown => {
                all_shown = true;
                lost = written.err();
                continue;
            }
            () = &mut typed, if !all_typed => {
                all_typed = true;
                continue;
            }
        };
        if told == Exit::Cancelled {
            running.nudge(Nudge::Interrupt).await;
            continue;
        }
        let rest = async {
            match all_shown {
                true => lost,
                false => shown.await.err(),
            }
        };
        return Ok(told_to_end(running, told, rest).await);
    };
    // All that held the streams inside has ended, so that they end when all is passed on.
    let told = match all_shown {
        true => None,
        false => tokio::select! {
            written = shown => {
                lost = written.err();
                None
            }
            told = signals.next() => Some(told),
        },
    };
    Ok(Relayed {
        exit: Some(exit),
        told,
        lost,
        said: Said::default(),
    })
}

/// Ends the command, and passes on what it prints meanwhile; what nobody takes is not waited for.
async fn told_to_end(
    running: &mut Running,
    told: Exit,
    shown: impl Future<Output = Option<io::Error>>,
) -> Relayed {
    let (mut ending, mut shown) = (pin!(end(running)), pin!(shown));
    let mut lost = None;
    let exit = loop {
        tokio::select! {
            exit = &mut ending => break exit,
            error = &mut shown, if lost.is_none() => lost = Some(error),
        }
    };
    if lost.is_none() && exit.is_some() {
        lost = tokio::time::timeout(GRACE, shown).await.ok();
    }
    Relayed {
        exit,
        told: Some(told),
        lost: lost.flatten(),
        said: Said::default(),
    }
}

/// Where what is printed goes.
#[derive(Debug, Clone, Copy)]
enum To {
    Output,
    Errors,
}

/// Writes all of it, on a thread that may block. Gives the buffer back.
async fn put(to: To, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let written = tokio::task::spawn_blocking(move || {
        let write = |out: &mut dyn io::Write| out.write_all(&bytes).and_then(|()| out.flush());
        match to {
            To::Output => write(&mut io::stdout().lock())?,
            To::Errors => write(&mut io::stderr().lock())?,
        }
        Ok(bytes)
    });
    written.await.map_err(io::Error::other)?
}

/// That nobody reads what is printed is for the command to know; that it cannot be written is for the
/// person.
fn unless_closed(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

/// Passes on what is printed. Where it cannot be written, or nobody reads it any more, the command finds
/// its output closed too.
async fn copy(mut from: pipe::Receiver, to: To, last: &mut Tail) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK);
    loop {
        bytes.clear();
        match from.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Ok(()),
        }
        last.push(&bytes);
        match put(to, bytes).await {
            Ok(written) => bytes = written,
            Err(error) => return unless_closed(error),
        }
    }
}

async fn show(terminal: &Terminal) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        match terminal.read(&mut bytes).await {
            Ok(count @ 1..) => bytes.truncate(count),
            Ok(0) | Err(_) => return Ok(()),
        }
        match put(To::Output, bytes).await {
            Ok(written) => bytes = written,
            Err(error) => return unless_closed(error),
        }
        bytes.resize(CHUNK, 0);
    }
}

/// What is typed, or comes through a pipe, until its end. The thread that reads is waited for by
/// nobody: a read cannot be ended, and the end of the program ends it.
fn input() -> mpsc::Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel(CHUNKS);
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        loop {
            let bytes = match io::stdin().lock().read(&mut chunk) {
                Ok(count) => chunk.get(..count).unwrap_or_default().to_vec(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if bytes.is_empty() || to.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    from
}

/// Passes the input on, and then its end.
pub(crate) async fn feed(to: Option<pipe::Sender>) {
    let Some(mut to) = to else { return };
    let mut input = input();
    while let Some(bytes) = input.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn type_in(terminal: &Terminal) {
    /// What ends the input at a terminal.
    const END: &[u8] = b"\x04";
    let mut input = input();
    while let Some(bytes) = input.recv().await {
        if terminal.write_all(&bytes).await.is_err() {
            return;
        }
    }
    if let Err(error) = terminal.write_all(END).await {
        tracing::debug!(%error, "the terminal inside has ended");
    }
}

/// What a command inside gets of the person's environment: how their terminal is.
pub(crate) fn env(
    context: &crate::context::Context,
) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    const NAMES: [&str; 3] = ["TERM", "COLORTERM", "NO_COLOR"];
    let set = NAMES
        .iter()
        .filter_map(|name| Some((name, context.env.get(name)?)));
    set.map(|(name, value)| (name.into(), value)).collect()
}
