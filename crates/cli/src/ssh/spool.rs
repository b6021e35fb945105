//! What an SSH client has sent and nobody has taken yet.
//!
//! The library asks the client for more whether or not what came was taken, and delivers it in the one
//! task that also sends: who delivers must never wait, or a command that prints while it reads would
//! wait for itself. So what waits is kept: a little in memory, the rest in a file without a name. It is
//! the person's own data.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// How much waits in memory, in bytes.
const MEMORY: usize = 1 << 20;
/// How much waits in the file, in bytes.
const FILE: u64 = 8 << 30;
/// How much of the file is read at once.
const CHUNK: usize = 256 << 10;

/// The end into which what came is put.
#[derive(Debug)]
pub(super) struct Put(Arc<Spool>);

/// The end from which it is taken.
#[derive(Debug)]
pub(super) struct Take(Arc<Spool>);

#[derive(Debug)]
struct Spool {
    /// Where the file is made.
    place: PathBuf,
    waits: Mutex<Waits>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waits {
    memory: VecDeque<Bytes>,
    bytes: usize,
    file: Option<Spilled>,
    /// Nothing more comes.
    ended: bool,
    /// Nobody takes any more.
    unwanted: bool,
}

/// What comes after all that is in memory.
#[derive(Debug)]
struct Spilled {
    file: File,
    written: u64,
    read: u64,
}

/// A spool whose file, if it needs one, is made in this directory.
pub(super) fn spool(place: PathBuf) -> (Put, Take) {
    let spool = Arc::new(Spool {
        place,
        waits: Mutex::default(),
        changed: Notify::new(),
    });
    (Put(Arc::clone(&spool)), Take(spool))
}

impl Spool {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Put {
    /// Keeps what came. Where nobody takes it any more, it is thrown away.
    ///
    /// # Errors
    /// When there is more than can be kept.
    pub(super) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let mut waits = self.0.waits();
        if waits.unwanted || bytes.is_empty() {
            return Ok(());
        }
        if waits.file.is_none() && waits.bytes < MEMORY {
            waits.bytes = waits.bytes.saturating_add(bytes.len());
            waits.memory.push_back(Bytes::copy_from_slice(bytes));
        } else {
            let mut spilled = match waits.file.take() {
                Some(spilled) => spilled,
                None => Spilled {
                    file: tempfile::tempfile_in(&self.0.place)?,
                    written: 0,
                    read: 0,
                },
            };
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let end = spilled.written.saturating_add(length);
            if end > FILE {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            spilled.file.write_all_at(bytes, spilled.written)?;
            spilled.written = end;
            waits.file = Some(spilled);
        }
        drop(waits);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl Drop for Put {
    /// What waits is still taken, and then the end.
    fn drop(&mut self) {
        self.0.waits().ended = true;
        self.0.changed.notify_one();
    }
}

impl Take {
    /// What came next; nothing at the end. May be cancelled: nothing is lost.
    ///
    /// # Errors
    /// When what was kept cannot be read.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Before the look, so that what comes after it is heard of.
            let changed = self.0.changed.notified();
            match self.look()? {
                Some(bytes) => return Ok(Some(bytes)),
                None if self.0.waits().is_over() => return Ok(None),
                None => changed.await,
            }
        }
    }

    fn look(&self) -> io::Result<Option<Bytes>> {
        let mut waits = self.0.waits();
        if let Some(bytes) = waits.memory.pop_front() {
            waits.bytes = waits.bytes.saturating_sub(bytes.len());
            return Ok(Some(bytes));
        }
        let Some(spilled) = &mut waits.file else {
            return Ok(None);
        };
        let left = spilled.written.saturating_sub(spilled.read);
        let mut bytes = vec![0; usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))];
        spilled.file.read_exact_at(&mut bytes, spilled.read)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        spilled.read = spilled.read.saturating_add(length);
        if spilled.read >= spilled.written {
            waits.file = None;
        }
        Ok(Some(bytes.into()))
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let mut waits = self.0.waits();
        *waits = Waits {
            unwanted: true,
            ..Waits::default()
        };
    }
}

impl Waits {
    fn is_over(&self) -> bool {
        self.ended && self.memory.is_empty() && self.file.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many numbers, a few bytes each, in order.
    fn numbers(range: std::ops::Range<u32>) -> Vec<u8> {
        range.flat_map(u32::to_le_bytes).collect()
    }

    async fn taken(take: &mut Take, length: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length {
            all.extend(take.next().await.unwrap().unwrap());
        }
        all
    }

    #[tokio::test]
    async fn what_waits_is_taken_in_order_however_much_it_is_and_then_the_end() {
        let place = tempfile::tempdir().unwrap();
        let (put, mut take) = spool(place.path().into());
        let large = numbers(0..1_000_000);
        for piece in large.chunks(30_000) {
            put.put(piece).unwrap();
        }
        {
            let waits = take.0.waits();
            assert!(waits.file.is_some() && waits.bytes < MEMORY + 30_000);
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        assert!(taken(&mut take, large.len()).await == large);
        // Taken to its end, the file is gone, and memory serves again.
        put.put(b"small").unwrap();
        assert!(take.0.waits().file.is_none());
        drop(put);
        assert_eq!(taken(&mut take, 5).await, b"small");
        assert_eq!(take.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_what_comes_and_of_the_end() {
        let (put, mut take) = spool(std::env::temp_dir());
        let (heard, ()) = tokio::join!(take.next(), async { put.put(b"late").unwrap() });
        assert_eq!(heard.unwrap().as_deref(), Some(b"late".as_slice()));
        let (heard, ()) = tokio::join!(take.next(), async { drop(put) });
        assert_eq!(heard.unwrap(), None);
    }

    #[test]
    fn what_nobody_takes_any_more_is_not_kept() {
        let (put, take) = spool(std::env::temp_dir());
        drop(take);
        put.put(&vec![0; MEMORY * 2]).unwrap();
        let waits = put.0.waits();
        assert!(waits.memory.is_empty() && waits.file.is_none());
    }
}
