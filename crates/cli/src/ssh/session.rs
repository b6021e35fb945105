//! What a client may ask over SSH: commands and shells inside, and connections to what listens inside.
//! All else is refused: no agent or display of the client's, no forward from inside to the client, no
//! variable but `LANG` and `TERM`.

use super::{
    program::{self, Control, ERRORS, Program},
    spool::{Put, Room, Take, spool},
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig,
    server::{Auth, ChannelOpenHandle, Handler, Msg, Session},
};
use sandbox::Size;
use server::standing::{Held, Nudge, Run};
use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    net::IpAddr,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::AbortHandle};

/// Commands and connections of one client at a time, at most.
const MOST_CHANNELS: usize = 64;
/// What waits for all of them on the disk, in bytes, at most.
const MOST_WAITING: u64 = 8 << 30;
/// Signals and sizes that wait to be passed on.
const CONTROLS: usize = 16;
/// The longest value of a variable, in bytes.
const LONGEST_VALUE: usize = 256;
/// Where systems have the program that serves files.
const SFTP: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Of the protocol, or of the streams.
    #[error(transparent)]
    Protocol(#[from] russh::Error),
}

/// One client. Dropped, all that it runs is ended.
pub(super) struct Client {
    held: Arc<Held>,
    /// Where what waits is kept.
    place: PathBuf,
    room: Room,
    open: Arc<Mutex<HashMap<ChannelId, Open>>>,
}

/// A channel of the client's.
enum Open {
    /// In which nothing runs yet.
    Fresh(Box<Fresh>),
    /// In which something runs.
    Busy(Busy),
}

struct Fresh {
    to: ChannelWriteHalf<Msg>,
    env: Vec<(OsString, OsString)>,
    terminal: Option<Size>,
}

struct Busy {
    /// Until the client has ended its input.
    put: Option<Put>,
    controls: mpsc::Sender<Control>,
    task: AbortHandle,
    /// A command's channel has an error output; clients hang up where that of a connection gets one.
    is_command: bool,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(super) fn new(held: Held, place: PathBuf) -> Self {
        Self {
            held: Arc::new(held),
            place,
            room: Room::new(MOST_WAITING),
            open: Arc::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<ChannelId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are as many channels as may be. One that this side has closed makes room: its end
    /// is not heard of again.
    fn is_full(&self) -> bool {
        let mut open = self.open();
        open.retain(|_, it| !matches!(it, Open::Busy(busy) if busy.task.is_finished()));
        open.len() >= MOST_CHANNELS
    }

    /// Changes a channel in which nothing runs yet; whether there is one.
    fn fresh(&self, channel: ChannelId, change: impl FnOnce(&mut Fresh)) -> bool {
        match self.open().get_mut(&channel) {
            Some(Open::Fresh(fresh)) => {
                change(fresh);
                true
            }
            _ => false,
        }
    }

    fn control(&self, channel: ChannelId, control: Control) {
        if let Some(Open::Busy(busy)) = self.open().get(&channel)
            && let Err(error) = busy.controls.try_send(control)
        {
            tracing::debug!(%error, "a command has ended, or too much is asked of it");
        }
    }

    /// Runs a command in a channel; a shell where there are no words.
    fn start(
        &self,
        channel: ChannelId,
        argv: Vec<OsString>,
        session: &mut Session,
    ) -> Result<(), Error> {
        let mut open = self.open();
        let fresh = match open.remove(&channel) {
            Some(Open::Fresh(fresh)) => fresh,
            other => {
                // One command for each channel (RFC 4254, 6.5).
                open.extend(other.map(|other| (channel, other)));
                return Ok(session.channel_failure(channel)?);
            }
        };
        session.channel_success(channel)?;
        let (put, input) = spool(self.place.clone(), self.room.clone());
        let (sender, controls) = mpsc::channel(CONTROLS);
        let program = Program {
            held: Arc::clone(&self.held),
            run: Run {
                argv,
                env: fresh.env,
                terminal: fresh.terminal,
                stdin: true,
                timeout: None,
                // As where SSH comes from: what an editor starts beside itself outlives its command.
                keep_background: true,
            },
            input,
            controls,
            to: fresh.to,
            handle: session.handle(),
        };
        let busy = Busy {
            put: Some(put),
            controls: sender,
            task: tokio::spawn(program.run()).abort_handle(),
            is_command: true,
        };
        open.insert(channel, Open::Busy(busy));
        Ok(())
    }
}

/// Serves files, or says that nothing can. It is not asked beforehand whether something can: whoever
/// answers is inside and may never do so, and the session has one task for all of its channels.
fn serve_files() -> String {
    let tries: Vec<String> = SFTP
        .iter()
        .map(|path| format!("test -x {path} && exec {path}"))
        .collect();
    let tries = tries.join("; ");
    format!("{tries}; echo 'skep: there is no sftp-server in the sandbox' >&2; exit 127")
}

impl Handler for Client {
    type Error = Error;

    /// There is no port: whoever says something here runs this program as its user already.
    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // What comes is heard by `data`: dropped, the half that reads keeps nothing.
        let (_, to) = channel.split();
        let fresh = Fresh {
            to,
            env: Vec::new(),
            terminal: None,
        };
        self.open()
            .insert(fresh.to.id(), Open::Fresh(Box::new(fresh)));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let Some(port) = port_of_loopback(host, port) else {
            reply
                .reject(ChannelOpenFailure::AdministrativelyProhibited)
                .await;
            return Ok(());
        };
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let (_, to) = channel.split();
        let id = to.id();
        let (put, input) = spool(self.place.clone(), self.room.clone());
        let (controls, _none) = mpsc::channel(1);
        // The list owns the task, and not the other way round: it ends with the client.
        let (held, all) = (Arc::clone(&self.held), Arc::downgrade(&self.open));
        // It is there before what it notes in it.
        let mut open = self.open();
        let connecting = tokio::spawn(async move {
            match held.connect(port).await {
                Ok(reached) => {
                    reply.accept().await;
                    carry(reached, input, to).await;
                }
                Err(error) => {
                    tracing::debug!(%error, port, "a port inside is not reached");
                    reply.reject(ChannelOpenFailure::ConnectFailed).await;
                    if let Some(all) = all.upgrade() {
                        all.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .remove(&id);
                    }
                }
            }
        });
        let busy = Busy {
            put: Some(put),
            controls,
            task: connecting.abort_handle(),
            is_command: false,
        };
        open.insert(id, Open::Busy(busy));
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let term = Some(term).filter(|term| fits(term)).map(OsString::from);
        let done = self.fresh(channel, |fresh| {
            fresh.terminal = Some(size(columns, rows));
            fresh.env.extend(term.map(|term| ("TERM".into(), term)));
        });
        answer(channel, done, session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let taken = name == "LANG"
            && fits(value)
            && self.fresh(channel, |fresh| {
                fresh.env.retain(|(other, _)| other != name);
                fresh.env.push((name.into(), value.into()));
            });
        answer(channel, taken, session)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.start(channel, Vec::new(), session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let command = OsString::from_vec(command.to_vec());
        self.start(channel, vec!["sh".into(), "-c".into(), command], session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        if name != "sftp" {
            return Ok(session.channel_failure(channel)?);
        }
        let argv = ["sh", "-c", &serve_files()];
        self.start(channel, argv.map(Into::into).into(), session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let size = size(columns, rows);
        if !self.fresh(channel, |fresh| {
            fresh.terminal = fresh.terminal.and(Some(size));
        }) {
            self.control(channel, Control::Resize(size));
        }
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let nudge = match signal {
            Sig::INT => Nudge::Interrupt,
            Sig::TERM | Sig::HUP => Nudge::Terminate,
            Sig::KILL => Nudge::Kill,
            other => {
                tracing::debug!(?other, "no such signal is passed on");
                return Ok(());
            }
        };
        self.control(channel, Control::Nudge(nudge));
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let kept = match self.open().get(&channel) {
            Some(Open::Busy(Busy { put: Some(put), .. })) => put.put(data),
            _ => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "more waits for a command than can be kept");
            let closed = self.open().remove(&channel);
            if let Some(Open::Busy(Busy {
                is_command: true, ..
            })) = closed
            {
                session.extended_data(channel, ERRORS, lost(&error))?;
            }
            session.close(channel)?;
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Error> {
        if let Some(Open::Busy(busy)) = self.open().get_mut(&channel) {
            busy.put = None;
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Error> {
        self.open().remove(&channel);
        Ok(())
    }
}

/// Why a channel is closed into which more came than can be kept.
fn lost(error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::QuotaExceeded => format!(
            "what was sent and not read yet has reached {}",
            crate::view::format::bytes(MOST_WAITING)
        ),
        _ => format!("what was sent cannot be kept until it is read: {error}"),
    };
    format!("skep: {why}\r\n")
}

/// Whether it is done, for a client that wants to know.
fn answer(channel: ChannelId, done: bool, session: &mut Session) -> Result<(), Error> {
    match done {
        true => session.channel_success(channel)?,
        false => session.channel_failure(channel)?,
    }
    Ok(())
}

/// What a variable inside may be.
fn fits(value: &str) -> bool {
    value.len() <= LONGEST_VALUE && value.chars().all(|c| c.is_ascii_graphic())
}

fn size(columns: u32, rows: u32) -> Size {
    let number = |given: u32, usual: u16| match u16::try_from(given) {
        Ok(0) | Err(_) => usual,
        Ok(given) => given,
    };
    Size {
        rows: number(rows, Size::USUAL.rows),
        columns: number(columns, Size::USUAL.columns),
    }
}

/// The port of a target that is the sandbox's own loopback; nothing else is reached.
fn port_of_loopback(host: &str, port: u32) -> Option<u16> {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    let own = address.map_or(host == "localhost", |it| {
        it.is_loopback() || it.is_unspecified()
    });
    u16::try_from(port).ok().filter(|port| own && *port != 0)
}

/// Carries a connection, each direction until its own end.
async fn carry(reached: sandbox::Connection, mut input: Take, to: ChannelWriteHalf<Msg>) {
    let (from, mut into) = tokio::io::split(reached);
    let up = async move {
        while let Some(bytes) = input.next().await? {
            into.write_all(&bytes).await?;
        }
        into.shutdown().await
    };
    let down = async {
        program::pass_on(from, &to, None).await;
        to.eof().await
    };
    let (up, down): (io::Result<()>, _) = tokio::join!(up, down);
    if let Err(error) = up {
        tracing::debug!(%error, "a connection broke");
    }
    if down.is_err() || to.close().await.is_err() {
        tracing::debug!("the client is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sandboxs_own_loopback_is_reached() {
        for own in [
            "localhost",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "[::1]",
            "0.0.0.0",
        ] {
            assert_eq!(port_of_loopback(own, 80), Some(80), "{own}");
        }
        for other in [
            "example.org",
            "10.0.0.1",
            "169.254.169.254",
            "::2",
            "",
            "localhost.",
        ] {
            assert_eq!(port_of_loopback(other, 80), None, "{other}");
        }
        assert_eq!(port_of_loopback("localhost", 0), None);
        assert_eq!(port_of_loopback("localhost", 65_536), None);
    }

    #[test]
    fn a_sandbox_without_a_server_of_files_says_so_at_once() {
        let script = serve_files();
        let known = "test -x /usr/lib/openssh/sftp-server && exec /usr/lib/openssh/sftp-server; ";
        assert!(script.starts_with(known), "{script}");
        let none = script.replace("/usr/lib", "/no/such/place");
        let mut shell = std::process::Command::new("sh");
        let ran = shell.args(["-c", &none]).output().unwrap();
        assert_eq!(ran.status.code(), Some(127));
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(said, "skep: there is no sftp-server in the sandbox\n");
    }

    #[test]
    fn why_a_channel_is_closed_is_said() {
        let full = lost(&io::ErrorKind::QuotaExceeded.into());
        assert!(full.contains("has reached 8"), "{full}");
        let other = lost(&io::Error::other("no space"));
        assert!(other.ends_with("until it is read: no space\r\n"), "{other}");
    }

    #[test]
    fn a_size_that_none_is_is_the_usual_one() {
        assert_eq!(size(0, 70_000), Size::USUAL);
        let usual = size(132, 43);
        assert_eq!((usual.columns, usual.rows), (132, 43));
    }
}
