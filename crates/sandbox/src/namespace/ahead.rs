//! The helper of the next sandbox, made while the one before it is set up and in use.
//!
//! Where one sandbox comes after another, half of what it takes until the next is ready hangs on nothing
//! that is known of it: the helper's start, and the namespaces of users, network, names and messages. A
//! process that makes a second sandbox has one helper wait for the third, and so on. What waits is
//! outside of every control group of sandboxes, has no copy of the host's mounts, and has seen nothing
//! of any sandbox; it ends with this process, or when nobody wanted it for a while.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::start::{self, OUT_OF_MEMORY_SCORE};
use super::{packet, wire};
use crate::Error;

/// How long one waits.
const WANTED_WITHIN: Duration = Duration::from_secs(10);

static SHELF: Mutex<Shelf> = Mutex::new(Shelf {
    waiting: None,
    kept: false,
    started: false,
    over: false,
});
/// Something of the shelf has changed.
static CHANGED: Condvar = Condvar::new();

struct Shelf {
    waiting: Option<Waiting>,
    /// Whether a thread sees to it.
    kept: bool,
    /// Whether this process has made a sandbox.
    started: bool,
    /// Whether that thread shall end.
    over: bool,
}

fn shelf() -> MutexGuard<'static, Shelf> {
    SHELF.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A helper that waits for a plan.
pub(super) struct Waiting {
    pub(super) socket: OwnedFd,
    pub(super) helper: Child,
}

impl Waiting {
    pub(super) fn make() -> Result<Self, Error> {
        let (socket, theirs) = start::socket_pair()?;
        let words = [wire::AHEAD, OUT_OF_MEMORY_SCORE];
        packet::send(&socket, &words, &[], SendFlags::empty())
            .map_err(Error::io("start the sandbox"))?;
        let helper = start::spawn(theirs)?;
        Ok(Self { socket, helper })
    }

    /// One that makes all namespaces with the clone.
    pub(super) fn without_namespaces() -> Result<Self, Error> {
        let (socket, theirs) = start::socket_pair()?;
        let helper = start::spawn(theirs)?;
        Ok(Self { socket, helper })
    }

    /// One that says anything before it has a plan has failed, or was killed.
    fn is_there(&self) -> bool {
        matches!(
            start::wait_readable(self.socket.as_fd(), Instant::now()),
            Ok(false)
        )
    }

    fn end(self) {
        let Self { socket, mut helper } = self;
        drop(socket);
        if let Err(error) = start::end(&mut helper) {
            tracing::debug!(%error, "a helper that nobody wants does not end");
        }
    }
}

/// The helper that waits, if one does.
pub(super) fn take() -> Option<Waiting> {
    let waiting = shelf().waiting.take()?;
    CHANGED.notify_all();
    if waiting.is_there() {
        return Some(waiting);
    }
    waiting.end();
    None
}

/// Ends what waits, and waits until it has ended: a process that is about to end would leave that to the
/// machine's first. Blocks.
pub(super) fn end() {
    let mut shelf = shelf();
    if !shelf.kept {
        return;
    }
    shelf.over = true;
    CHANGED.notify_all();
    let _ended = CHANGED.wait_timeout_while(shelf, WANTED_WITHIN, |shelf| shelf.kept);
}

/// Has the next one made, unless this was the first sandbox of this process: most make only one.
pub(super) fn make_another() {
    let mut shelf = shelf();
    if !std::mem::replace(&mut shelf.started, true) || shelf.kept {
        return;
    }
    let keeper = std::thread::Builder::new()
        .name("skep-ahead".to_owned())
        .spawn(keep);
    // Without a thread nothing is made ahead, and each is made when it is needed.
    shelf.kept = keeper.is_ok();
}

/// Makes one whenever the last was taken, and ends with one that nobody wants.
fn keep() {
    loop {
        let made = Waiting::make();
        let mut shelf = shelf();
        match made {
            Ok(made) => shelf.waiting = Some(made),
            // Whoever needs the next one makes it, and is told why it cannot be made.
            Err(error) => {
                tracing::debug!(%error, "no helper is made ahead");
                return leave(shelf);
            }
        }
        let waited = CHANGED.wait_timeout_while(shelf, WANTED_WITHIN, |shelf| {
            shelf.waiting.is_some() && !shelf.over
        });
        let (mut shelf, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let unwanted = shelf.waiting.take();
        if unwanted.is_some() || shelf.over {
            drop(shelf);
            unwanted.into_iter().for_each(Waiting::end);
            return leave(self::shelf());
        }
    }
}

/// Nobody sees to the shelf any more, until the next sandbox.
fn leave(mut shelf: MutexGuard<'_, Shelf>) {
    shelf.kept = false;
    shelf.over = false;
    CHANGED.notify_all();
}
