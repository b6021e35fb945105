//! The loopback of the network that this process is in.

use crate::steps;
use crate::sys::{self, Poll, Result, nr};

const AF_INET: usize = 2;
const AF_INET6: usize = 10;
const SOCK_STREAM: usize = 1;
const SOCK_NONBLOCK: usize = 0o4000;
/// How long a connection may take, in nanoseconds: on a loopback it is made at once, or waits in a full
/// queue.
const PATIENCE: u64 = 200_000_000;

fn internet_socket(family: usize, kind: usize) -> Result<i32> {
    const SOCK_CLOEXEC: usize = 0o2000000;
    // SAFETY: touches no memory.
    unsafe { sys::call(nr::SOCKET, [family, kind | SOCK_CLOEXEC, 0]) }.map(|fd| fd as i32)
}

/// Brings it up.
pub fn up() -> Result<()> {
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: u8 = 1;
    const SOCK_DGRAM: usize = 2;
    let socket = internet_socket(AF_INET, SOCK_DGRAM)?;
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
    let socket = internet_socket(AF_INET, SOCK_STREAM)?;
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

/// `struct sockaddr_in6` of ::1: family (native), port (network order), flow, address, scope.
fn address_6(port: u16) -> [u8; 28] {
    let [high, low] = port.to_be_bytes();
    let mut name = [0u8; 28];
    steps::append_bytes(0, &mut name, &10u16.to_ne_bytes());
    steps::append_bytes(2, &mut name, &[high, low]);
    steps::append_bytes(23, &mut name, &[1]);
    name
}

/// A socket whose connection to a port is made or under way. Whoever gets it waits for that: this
/// process must not, for what listens inside may never take a connection.
pub fn connect(port: u16, is_6: bool) -> Result<i32> {
    let family = if is_6 { AF_INET6 } else { AF_INET };
    let socket = internet_socket(family, SOCK_STREAM | SOCK_NONBLOCK)?;
    let (four, six) = (address(port), address_6(port));
    let (name, length) = match is_6 {
        true => (six.as_ptr(), six.len()),
        false => (four.as_ptr(), four.len()),
    };
    let arguments = [socket as usize, name as usize, length];
    // SAFETY: the name has the length that is said.
    match unsafe { sys::call(nr::CONNECT, arguments) } {
        Ok(_) | Err(sys::EINPROGRESS) => Ok(socket),
        Err(error) => {
            sys::close(socket);
            Err(error)
        }
    }
}

/// Whether a connection to a port can be made. It is closed at once.
pub fn reach(port: u16) -> Result<()> {
    const POLLOUT: i16 = 4;
    let socket = internet_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK)?;
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
