//! The loopback of the network that this process is in.

use crate::steps;
use crate::sys::{self, Poll, Result, nr};

const SOCK_STREAM: usize = 1;
/// How long a connection may take, in nanoseconds: on a loopback it is made at once, or waits in a full
/// queue.
const PATIENCE: u64 = 200_000_000;

fn internet_socket(kind: usize) -> Result<i32> {
    const AF_INET: usize = 2;
    const SOCK_CLOEXEC: usize = 0o2000000;
    // SAFETY: touches no memory.
    unsafe { sys::call(nr::SOCKET, [AF_INET, kind | SOCK_CLOEXEC, 0]) }.map(|fd| fd as i32)
}

/// Brings it up.
pub fn up() -> Result<()> {
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: u8 = 1;
    const SOCK_DGRAM: usize = 2;
    let socket = internet_socket(SOCK_DGRAM)?;
    // `struct ifreq`: sixteen bytes of name, then the flags.
    let mut request = [0u8; 40];
    steps::append_bytes(0, &mut request, b"lo");
    steps::append_bytes(16, &mut request, &[IFF_UP]);
    let arguments = [socket as usize, SIOCSIFFLAGS, request.as_ptr() as usize];
    // SAFETY: the request has the size of `struct ifreq`.
    let up = unsafe { sys::call(nr::IOCTL, arguments) };
    sys::close(socket);
    up.map(drop)
}

/// A listener on 127.0.0.1; returns it with its port.
pub fn listen(port: u16) -> Result<(i32, u16)> {
    const BACKLOG: usize = 1024;
    let socket = internet_socket(SOCK_STREAM)?;
    let mut name = address(port);
    let mut length = name.len() as u32;
    // SAFETY: the name has the length that is said, and the kernel writes no more than that.
    unsafe {
        sys::call(
            nr::BIND,
            [socket as usize, name.as_ptr() as usize, name.len()],
        )?;
        sys::call(nr::LISTEN, [socket as usize, BACKLOG])?;
        let arguments = [
            socket as usize,
            name.as_mut_ptr() as usize,
            &raw mut length as usize,
        ];
        sys::call(nr::GETSOCKNAME, arguments)?;
    }
    match name {
        [_, _, high, low, ..] => Ok((socket, u16::from_be_bytes([high, low]))),
    }
}

/// `struct sockaddr_in` of 127.0.0.1: family (native), port and address (network order), padding.
fn address(port: u16) -> [u8; 16] {
    let [high, low] = port.to_be_bytes();
    let mut name = [0u8; 16];
    steps::append_bytes(0, &mut name, &2u16.to_ne_bytes());
    steps::append_bytes(2, &mut name, &[high, low, 127, 0, 0, 1]);
    name
}

/// Whether a connection to a port can be made. It is closed at once.
pub fn reach(port: u16) -> Result<()> {
    const SOCK_NONBLOCK: usize = 0o4000;
    const POLLOUT: i16 = 4;
    let socket = internet_socket(SOCK_STREAM | SOCK_NONBLOCK)?;
    let name = address(port);
    let arguments = [socket as usize, name.as_ptr() as usize, name.len()];
    // SAFETY: the name has the length that is said.
    let connect = || unsafe { sys::call(nr::CONNECT, arguments) }.map(drop);
    let mut made = connect();
    if made == Err(sys::EINPROGRESS) {
        let mut ready = [Poll {
            fd: socket,
            events: POLLOUT,
            happened: 0,
        }];
        let _woken = sys::poll(&mut ready, Some(PATIENCE));
        // Asked again, it says what became of the first.
        made = connect();
    }
    sys::close(socket);
    made
}
