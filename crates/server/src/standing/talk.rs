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
use sandbox::Exit;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};
use tokio::{io::Interest, net::UnixStream};

/// The longest message, in bytes.
pub(super) const LONGEST: usize = 1 << 20;
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
    /// Keep the files as they are, under this name or a number.
    Snapshot {
        /// The name.
        name: Option<String>,
    },
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
    /// End. The connection closes when all is gone.
    Destroy,
}

/// What the holder answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// To [`Ask::State`] and [`Ask::Inspect`]: an object for programs.
    State(serde_json::Value),
    /// To [`Ask::Snapshot`] and [`Ask::Undo`].
    Moments(Moments),
    /// The files of the fork are there.
    Forked(Origin),
    /// The command runs; its terminal, or its output, error output and perhaps input, are beside this.
    Started,
    /// It has ended.
    Exited(Exit),
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

/// One side of a conversation.
#[derive(Debug)]
pub(super) struct Talk {
    stream: UnixStream,
    heard: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Talk {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            heard: Vec::new(),
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
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let rest = self.heard.split_off(end.saturating_add(1));
                let line = std::mem::replace(&mut self.heard, rest);
                let said = serde_json::from_slice(&line).map_err(Error::Unreadable)?;
                return Ok(Some((said, std::mem::take(&mut self.descriptors))));
            }
            if self.heard.len() > LONGEST {
                return Err(Error::TooLong);
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
                heard.extend_from_slice(bytes.get(..received.bytes).unwrap_or_default());
                Ok(received.bytes > 0)
            })
            .await
    }

    /// Waits until the other side has hung up.
    pub(super) async fn until_hung_up(&mut self) {
        while matches!(self.hear::<serde_json::Value>().await, Ok(Some(_))) {}
    }
}
