//! What a holder and its clients say to each other: one line of JSON for a message, with descriptors
//! beside it.

use super::{
    error::{Error, Unable},
    moments::{Moments, Origin},
    running::Run,
};
use domain::{Reason, SandboxId};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use sandbox::{Carry, Exit};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};
use tokio::{io::Interest, net::UnixStream};

/// The longest message, in bytes. The longest one says how a place is, with the changed files and the
/// last lines of what runs beside it, each byte of which can take six.
pub(super) const LONGEST: usize = 4 << 20;
/// Descriptors with a message, at most: three streams.
const MOST: usize = 3;
const CHUNK: usize = 16 << 10;

/// What a client asks; one question for each connection.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// How it is.
    State,
    /// How it is, and what was changed in it.
    Inspect,
    /// Run a command. After [`Answer::Started`] the client may send a [`Nudge`] at any time; when it
    /// hangs up, the command is killed.
    Exec(Run),
    /// Carry files in or out. It goes on as [`Ask::Exec`] does; its streams are those of an archive.
    Carry(Carry),
    /// Keep the files as they are, under this name or a number.
    Snapshot {
        /// The name.
        name: Option<String>,
    },
    /// As [`Ask::Snapshot`] under a number, for forks that are about to be made. After the answer the
    /// client says [`Stays`] and hears [`Answer::Kept`]; when it hangs up without, the snapshot goes.
    Lend,
    /// Take the files back to a snapshot, or to where the place began.
    Undo {
        /// The snapshot.
        to: Option<String>,
    },
    /// Make the files of a fork. They are kept for the client as long as it does not hang up.
    Fork {
        /// The fork.
        id: SandboxId,
        /// The snapshot.
        at: String,
    },
    /// Connect to what listens on a port inside. The connection is kept for the client as long as it
    /// does not hang up.
    Connect {
        /// The port.
        port: u16,
    },
    /// Say when it ends, by hanging up.
    Watch,
    /// End. The connection closes when all is gone.
    Destroy,
    /// End what runs, and keep the files. The connection closes when that is done; what failed of it is
    /// said before.
    Stop,
}

/// What was lent is to stay.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stays;

/// What the holder answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// To [`Ask::State`] and [`Ask::Inspect`]: an object for programs.
    State(serde_json::Value),
    /// To [`Ask::Snapshot`], [`Ask::Lend`] and [`Ask::Undo`].
    Moments(Moments),
    /// To [`Stays`]: that is written down.
    Kept,
    /// The files of the fork are there.
    Forked(Origin),
    /// The command runs; its terminal, or its output, error output and perhaps input, are beside this.
    Started,
    /// The connection is beside this.
    Connected,
    /// To [`Ask::Watch`].
    Watched,
    /// It has ended.
    Exited(Exit),
    /// It was ended with the sandbox.
    Ended(Exit),
    /// It will end.
    Ending,
    /// It will not, or cannot.
    Refused {
        /// Why, with every cause.
        message: String,
        /// The reason, where it is one of the domain.
        reason: Option<Reason>,
        /// What a shell would end with, where the command itself cannot be started.
        code: Option<u8>,
        /// What is in the way, where snapshots cannot be used.
        #[serde(default)]
        unable: Option<Unable>,
    },
}

impl Answer {
    /// What the holder refused, as an error.
    pub(super) fn into_error(self, gone: impl FnOnce() -> Error) -> Error {
        match self {
            Self::Refused {
                message,
                code: Some(code),
                ..
            } => Error::Program { message, code },
            Self::Refused {
                message,
                unable: Some(why),
                ..
            } => Error::Unable { why, message },
            Self::Refused {
                message, reason, ..
            } => Error::Refused { message, reason },
            _ => gone(),
        }
    }
}

/// What has come and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: Vec<u8>,
    /// So many of them hold no end of a line.
    looked_at: usize,
}

impl Heard {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next thing that was said, where all of it has come.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let fresh = self.bytes.get(self.looked_at..).unwrap_or_default();
        let end = fresh.iter().position(|byte| *byte == b'\n');
        let end = end.map(|at| at.saturating_add(self.looked_at));
        self.looked_at = end.unwrap_or(self.bytes.len());
        if self.looked_at > LONGEST {
            return Err(Error::TooLong);
        }
        let Some(end) = end else {
            return Ok(None);
        };
        self.looked_at = 0;
        let rest = self.bytes.split_off(end.saturating_add(1));
        let line = std::mem::replace(&mut self.bytes, rest);
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(Error::Unreadable)
    }
}

/// One side of a conversation.
#[derive(Debug)]
pub(super) struct Talk {
    stream: UnixStream,
    heard: Heard,
    descriptors: Vec<OwnedFd>,
}

impl Talk {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            heard: Heard::default(),
            descriptors: Vec::new(),
        }
    }

    /// Connects to the holder that listens in a directory.
    pub(super) async fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self::new(UnixStream::connect(socket).await?))
    }

    /// Whether the other side is of this user: nobody else may ask anything.
    pub(super) fn is_of_this_user(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
    }

    /// The process on the other side.
    pub(super) fn peer(&self) -> Option<u32> {
        let pid = self.stream.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok()
    }

    /// Says one thing.
    pub(super) async fn say(
        &self,
        what: &impl Serialize,
        descriptors: &[OwnedFd],
    ) -> Result<(), Error> {
        let mut line = serde_json::to_vec(what).map_err(Error::Unreadable)?;
        line.push(b'\n');
        if line.len() > LONGEST {
            return Err(Error::TooLong);
        }
        self.send(&line, descriptors)
            .await
            .map_err(Error::Conversation)
    }

    async fn send(&self, line: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(|it| it.as_fd()).collect();
        // The descriptors go with the first bytes.
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let parts = [IoSlice::new(line)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(sendmsg(&self.stream, &parts, &mut control, flags)?)
        });
        let mut rest = line.get(sent.await?..).unwrap_or_default();
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hears one thing, with the descriptors that came until its end; nothing when the other side has
    /// hung up. May be cancelled: nothing is lost.
    pub(super) async fn hear<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, Error> {
        loop {
            if let Some(said) = self.heard.next()? {
                return Ok(Some((said, std::mem::take(&mut self.descriptors))));
            }
            if !self.receive().await.map_err(Error::Conversation)? {
                return Ok(None);
            }
        }
    }

    /// Takes what has come; false at the end.
    async fn receive(&mut self) -> io::Result<bool> {
        let Self {
            stream,
            heard,
            descriptors,
        } = self;
        stream
            .async_io(Interest::READABLE, || {
                let mut bytes = [0u8; CHUNK];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let received = recvmsg(
                    &*stream,
                    &mut [IoSliceMut::new(&mut bytes)],
                    &mut control,
                    RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
                )?;
                for part in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = part {
                        let room = MOST.saturating_sub(descriptors.len());
                        descriptors.extend(rights.take(room));
                    }
                }
                heard.take(bytes.get(..received.bytes).unwrap_or_default());
                Ok(received.bytes > 0)
            })
            .await
    }

    /// Waits until the other side has hung up.
    pub(super) async fn until_hung_up(&mut self) {
        while matches!(self.hear::<serde_json::Value>().await, Ok(Some(_))) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_refused_however_it_comes_and_one_that_just_fits_is_not() {
        for (length, fits) in [(LONGEST + 1, true), (LONGEST + 2, false)] {
            let text = [vec![b' '; length - 2], b"1\n".to_vec()].concat();
            for piece in [length, CHUNK] {
                let mut heard = Heard::default();
                let mut said = Ok(None);
                for piece in text.chunks(piece) {
                    heard.take(piece);
                    said = heard.next::<u8>();
                    if said.is_err() {
                        break;
                    }
                }
                assert_eq!(matches!(said, Ok(Some(1))), fits, "{length} by {piece}");
            }
        }
    }
}
