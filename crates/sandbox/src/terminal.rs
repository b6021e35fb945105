//! The owner's end of a command's terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Error;

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Size {
    /// What terminals are where nobody says.
    pub const USUAL: Self = Self {
        rows: 24,
        columns: 80,
    };

    /// Tells it to the kernel; who runs in the foreground gets SIGWINCH.
    ///
    /// # Errors
    /// If `terminal` is none, or has ended.
    pub fn apply(self, terminal: impl AsFd) -> io::Result<()> {
        let size = Winsize {
            ws_row: self.rows,
            ws_col: self.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(terminal, size)?)
    }

    /// The size of a terminal.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(terminal: impl AsFd) -> io::Result<Self> {
        let size = rustix::termios::tcgetwinsize(terminal)?;
        Ok(Self {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }
}

/// The owner's end of a command's terminal. What is read is what the command prints, as bytes of a
/// hostile program; what is written is what a person types, `Ctrl-C` included.
#[derive(Debug)]
pub struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// Takes an end that a sandbox has handed out. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the system refuses to watch it.
    pub fn new(fd: OwnedFd) -> Result<Self, Error> {
        let failed = || Error::io("prepare the terminal of a command");
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| failed()(error.into()))?;
        // SAFETY: the descriptor is owned, never replaced, and lives as long as its registration.
        let fd =
            unsafe { AsyncFd::register(fd) }.map_err(|error| failed()(error.into_parts().1))?;
        Ok(Self { fd })
    }

    /// Reads what the command prints; 0 when nobody inside has the terminal open any more. May be
    /// cancelled: nothing is lost.
    ///
    /// # Errors
    /// As the system says.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fd.async_io(Interest::READABLE, |fd| {
            Ok(rustix::io::read(fd, &mut *buffer)?)
        });
        match read.await {
            // How the kernel says that the other end is closed.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    /// Types all of `bytes`.
    ///
    /// # Errors
    /// When nobody inside has the terminal open any more.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self
                .fd
                .async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?));
            let count = written.await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Makes it larger or smaller; who runs in the foreground inside gets SIGWINCH.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        size.apply(self)
    }

    /// The descriptor, for another process.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into_inner()
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}
