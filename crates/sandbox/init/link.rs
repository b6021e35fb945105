//! The socket to the owner: whole messages, with descriptors beside them.

use crate::sys::{self, Errno, Result, nr};
use crate::wire::{FAILED, WORDS};

/// Descriptors per message, at most.
pub const MOST: usize = 8;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;

#[repr(C)]
struct Buffer {
    base: *mut u8,
    length: usize,
}

#[repr(C)]
struct Header {
    name: usize,
    name_length: u32,
    buffers: *mut Buffer,
    buffer_count: usize,
    control: *mut Control,
    control_length: usize,
    flags: i32,
}

/// One control message with room for [`MOST`] descriptors.
#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; MOST],
}

const CONTROL_HEADER: usize = 16;

/// A message and the descriptors that came with it, in order.
pub struct Message {
    pub words: [u32; WORDS],
    pub descriptors: [i32; MOST],
    pub count: usize,
}

impl Message {
    pub fn descriptor(&self, index: usize) -> Option<i32> {
        self.descriptors.get(..self.count)?.get(index).copied()
    }

    /// Closes everything that came with the message.
    pub fn close(&self) {
        self.descriptors
            .iter()
            .take(self.count)
            .for_each(|fd| sys::close(*fd));
    }
}

/// A socket that is connected to the one at `path`.
pub fn connect(path: &str) -> Result<i32> {
    const AF_UNIX: u16 = 1;
    const SOCK_SEQPACKET_CLOEXEC: usize = 5 | 0o2000000;
    // `struct sockaddr_un`: family, then the path with a zero byte.
    let mut name = [0u8; 110];
    let family = AF_UNIX.to_ne_bytes();
    let bytes = family.into_iter().chain(path.bytes());
    for (to, from) in name.iter_mut().zip(bytes) {
        *to = from;
    }
    let arguments = [AF_UNIX as usize, SOCK_SEQPACKET_CLOEXEC, 0];
    // SAFETY: touches no memory.
    let socket = unsafe { sys::call(nr::SOCKET, arguments) }? as i32;
    let arguments = [
        socket as usize,
        name.as_ptr() as usize,
        family.len() + path.len() + 1,
    ];
    // SAFETY: the name is longer than what is said, and zero behind the path.
    match unsafe { sys::call(nr::CONNECT, arguments) } {
        Ok(_) => Ok(socket),
        Err(error) => {
            sys::close(socket);
            Err(error)
        }
    }
}

/// The next message, or `None` when the owner is gone. One of another length is none of the owner's.
pub fn receive(socket: i32) -> Result<Option<Message>> {
    const MSG_TRUNC: i32 = 0x20;
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    let mut words = [0u32; WORDS];
    let mut buffer = Buffer {
        base: words.as_mut_ptr().cast(),
        length: size_of::<[u32; WORDS]>(),
    };
    let mut control = Control {
        length: 0,
        level: 0,
        kind: 0,
        descriptors: [-1; MOST],
    };
    let mut header = Header {
        name: 0,
        name_length: 0,
        buffers: &raw mut buffer,
        buffer_count: 1,
        control: &raw mut control,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    let length = loop {
        let arguments = [socket as usize, &raw mut header as usize, MSG_CMSG_CLOEXEC];
        // SAFETY: every pointer in the header is to a live value of the length that it gives.
        match unsafe { sys::call(nr::RECVMSG, arguments) } {
            Err(sys::EINTR) => {}
            other => break other?,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    if length != size_of::<[u32; WORDS]>() || header.flags & MSG_TRUNC != 0 {
        return Err(sys::EINVAL);
    }
    let rights = header.control_length >= CONTROL_HEADER
        && control.level == SOL_SOCKET
        && control.kind == SCM_RIGHTS;
    let count = if rights {
        control.length.saturating_sub(CONTROL_HEADER) / 4
    } else {
        0
    };
    Ok(Some(Message {
        words: words.map(u32::from_le),
        descriptors: control.descriptors,
        count: count.min(MOST),
    }))
}

/// Sends a message; an owner that is gone is no failure, for the end comes by itself.
pub fn send(socket: i32, words: &[u32], descriptor: Option<i32>) {
    const MSG_NOSIGNAL: usize = 0x4000;
    let mut message = [0u32; WORDS];
    for (to, from) in message.iter_mut().zip(words) {
        *to = from.to_le();
    }
    let mut buffer = Buffer {
        base: message.as_mut_ptr().cast(),
        length: size_of::<[u32; WORDS]>(),
    };
    let mut control = Control {
        length: CONTROL_HEADER + 4,
        level: SOL_SOCKET,
        kind: SCM_RIGHTS,
        descriptors: [descriptor.unwrap_or(-1); MOST],
    };
    let header = Header {
        name: 0,
        name_length: 0,
        buffers: &raw mut buffer,
        buffer_count: 1,
        control: if descriptor.is_some() {
            &raw mut control
        } else {
            core::ptr::null_mut()
        },
        control_length: if descriptor.is_some() {
            CONTROL_HEADER + 8
        } else {
            0
        },
        flags: 0,
    };
    loop {
        let arguments = [socket as usize, &raw const header as usize, MSG_NOSIGNAL];
        // SAFETY: every pointer in the header is to a live value of the length that it gives.
        match unsafe { sys::call(nr::SENDMSG, arguments) } {
            Err(sys::EINTR) => {}
            _ => return,
        }
    }
}

/// Tells the owner what failed, and ends.
pub fn fail(socket: i32, stage: u32, error: Errno, step: u32) -> ! {
    send(socket, &[FAILED, stage, error.0, step], None);
    sys::exit(1)
}
