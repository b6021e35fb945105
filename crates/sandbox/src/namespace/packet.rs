//! Whole messages with descriptors over the socket to the inside.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::wire::WORDS;

/// Descriptors per message, at most; process 1 has room for as many.
const MOST: usize = 8;
const WORD: usize = size_of::<u32>();

/// A message from the inside.
pub(crate) struct Packet {
    pub(crate) words: [u32; WORDS],
    /// The inside sends one at most.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// Sends one message, whole or not at all.
pub(crate) fn send(
    socket: impl AsFd,
    words: &[u32],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut message = [0u8; WORDS * WORD];
    for (to, from) in message.chunks_exact_mut(WORD).zip(words) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(&message)],
        &mut control,
        flags | SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The next message, or `None` when the inside is gone. One of another length is none of ours.
pub(crate) fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<Packet>> {
    let mut message = [0u8; WORDS * WORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut message)],
        &mut control,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptor = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptor = rights.last();
        }
    }
    if received.bytes != message.len() || received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut words = [0; WORDS];
    for (to, from) in words.iter_mut().zip(message.chunks_exact(WORD)) {
        *to = from.try_into().map_or(0, u32::from_le_bytes);
    }
    Ok(Some(Packet { words, descriptor }))
}
