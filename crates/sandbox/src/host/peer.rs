//! Whose a connection is that was made on the host's loopback.

use std::net::SocketAddr;

/// Says which connections to a channel may be served, where the loopback is the host's own, which
/// every user of the machine can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    port: u16,
    user: u32,
}

impl Guard {
    /// Admits the connections of processes of this process's own user.
    pub(super) fn this_user(port: u16) -> Self {
        Self {
            port,
            user: rustix::process::geteuid().as_raw(),
        }
    }

    /// Whether the connection from `peer`, which has been accepted and is still open, was made by that
    /// user. Reads the kernel's list of connections; what is not in it (any more) is not admitted.
    pub fn admits(&self, peer: SocketAddr) -> bool {
        // A connection of version 4 may be made with a socket of version 6, and is in its list then.
        ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
            .into_iter()
            .filter_map(|list| std::fs::read_to_string(list).ok())
            .any(|list| owner(&list, peer.port(), self.port) == Some(self.user))
    }
}

/// The user whose socket is connected from `from` to `to`, both ports of the loopback. While it is
/// open, no other socket of the machine has both.
fn owner(list: &str, from: u16, to: u16) -> Option<u32> {
    /// A connection that is open, or that its user has closed towards the other side only.
    const OPEN: [&str; 3] = ["01", "04", "05"];
    list.lines().skip(1).find_map(|line| {
        // number, local address, remote address, state, queues, timer, retransmits, user, …
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let user = fields.nth(3)?;
        let right = is_loopback(local, from) && is_loopback(remote, to) && OPEN.contains(&state);
        right.then(|| user.parse().ok()).flatten()
    })
}

/// Whether `text` is 127.0.0.1, of version 4 or as one of version 6, with this port. The kernel writes
/// each group of four bytes as one number of the machine, which is little-endian.
fn is_loopback(text: &str, port: u16) -> bool {
    const ADDRESSES: [&str; 2] = ["0100007F", "0000000000000000FFFF00000100007F"];
    text.split_once(':').is_some_and(|(address, found)| {
        ADDRESSES.contains(&address) && u16::from_str_radix(found, 16) == Ok(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn only_the_right_users_open_connection_is_admitted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ours = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        let guard = Guard::this_user(port);
        assert!(guard.admits(peer));
        let user = guard.user + 1;
        assert!(!Guard { user, ..guard }.admits(peer), "another user's");
        let port = port ^ 1;
        assert!(!Guard { port, ..guard }.admits(peer), "another channel's");
        let closed = ours.local_addr().unwrap();
        assert_eq!(closed, peer);
    }

    #[test]
    fn the_kernels_list_is_read_in_both_versions() {
        let line = |local: &str, remote: &str, state: &str, user: u32| {
            format!(
                "head\n   7: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {user}        0 5 1\n"
            )
        };
        let (from, to) = ("0100007F:1F90", "0100007F:0050");
        assert_eq!(owner(&line(from, to, "01", 1000), 8080, 80), Some(1000));
        assert_eq!(owner(&line(from, to, "06", 1000), 8080, 80), None, "closed");
        assert_eq!(
            owner(&line(to, from, "01", 1000), 8080, 80),
            None,
            "the other end"
        );
        let six = |port: &str| format!("0000000000000000FFFF00000100007F:{port}");
        let list = line(&six("1F90"), &six("0050"), "01", 7);
        assert_eq!(owner(&list, 8080, 80), Some(7));
        assert_eq!(owner(&line("0200007F:1F90", to, "01", 7), 8080, 80), None);
        assert_eq!(owner("", 1, 2), None);
    }
}
