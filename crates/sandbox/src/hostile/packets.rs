//! A conversation with an inside that says anything at all.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, sendmsg,
};
use tokio::sync::oneshot::error::TryRecvError;

use crate::namespace::link::Link;
use crate::namespace::packet;
use crate::{Call, Command, Exit};

/// Descriptors with a packet, at most: more than are ever taken.
const MOST: usize = 12;

/// What the inside sends: any bytes, and so many descriptors beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// At least one.
    pub bytes: Vec<u8>,
    /// Twelve at most.
    pub descriptors: usize,
}

/// What the owner made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Of each command, in the order of their numbers from 1: whether it was started, as far as that was
    /// said.
    pub started: Vec<Option<bool>>,
    /// Of each command its end: none while it runs, or an exit, or that it is lost.
    pub ended: Vec<Option<Option<Exit>>>,
    /// Of each command that ended, the calls that were refused to it.
    pub refused: Vec<Vec<Call>>,
    /// Of each connection that was asked for, in the order of their numbers after those of the commands:
    /// whether there is one, as far as that was said.
    pub connected: Vec<Option<bool>>,
    /// How many commands are taken to run.
    pub running: usize,
    /// Whether every descriptor that came was closed in the end.
    pub all_closed: bool,
}

/// Has the owner of so many commands, who asked for so many connections, hear what an inside says.
///
/// # Errors
/// When the machine has no sockets, pipes or memory.
pub fn converse(
    commands: usize,
    connections: usize,
    packets: &[Packet],
) -> io::Result<Conversation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = runtime.enter();
    let pair = || {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
    };
    let ((ours, theirs), (reader, writer)) = (pair()?, io::pipe()?);
    let hearing = ours.try_clone()?;
    let link = Link::new(ours, None).map_err(io::Error::other)?;
    let command = Command::new(["true"], "/");
    let mut entered = Vec::new();
    for _ in 0..commands {
        entered.push(link.enter(&command, false).map_err(io::Error::other)?);
    }
    let mut asked = Vec::new();
    for _ in 0..connections {
        asked.push(link.asks().map_err(io::Error::other)?);
    }
    for packet in packets {
        send(&theirs, packet, &writer.try_clone()?.into())?;
        // As where the owner listens: the first that is none ends it.
        match packet::receive(&hearing, RecvFlags::empty()) {
            Ok(Some(packet)) => link.hear(packet),
            Ok(None) | Err(_) => break,
        }
    }
    let running = link.commands();
    let (mut started, mut ended, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for mut one in entered {
        started.push(match one.started.try_recv() {
            Ok(told) => Some(told.is_ok()),
            Err(_) => None,
        });
        let end = match one.exit.try_recv() {
            Ok(end) => Some(end.ok()),
            Err(TryRecvError::Closed) => Some(None),
            Err(TryRecvError::Empty) => None,
        };
        ended.push(end.as_ref().map(|end| end.as_ref().map(|it| it.exit)));
        refused.push(end.flatten().map_or_else(Vec::new, |it| it.refused));
    }
    let connected = asked.into_iter().map(|mut one| {
        let told = one.connected.try_recv().ok();
        told.map(|socket| socket.is_ok())
    });
    let connected = connected.collect();
    drop((link, hearing, theirs, writer));
    Ok(Conversation {
        started,
        ended,
        refused,
        connected,
        running,
        all_closed: is_closed(&reader)?,
    })
}

fn send(socket: &OwnedFd, packet: &Packet, descriptor: &OwnedFd) -> io::Result<()> {
    let descriptors = vec![descriptor.as_fd(); packet.descriptors.min(MOST)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(&packet.bytes)];
    sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Whether nobody holds the other end of a pipe into which nothing was written.
fn is_closed(reader: &io::PipeReader) -> io::Result<bool> {
    rustix::io::ioctl_fionbio(reader, true)?;
    match rustix::io::read(reader, &mut [0u8; 1]) {
        Ok(count) => Ok(count == 0),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
