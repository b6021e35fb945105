//! What an SSH client has sent and nobody has taken yet.
//!
//! The library asks the client for more whether or not what came was taken, and delivers it in the one
//! task that also sends: who delivers must never wait, or a command that prints while it reads would
//! wait for itself. So what waits is kept: a little in memory, the rest in files without names, one after the
//! other. What was read of them is given back to the disk: at once where the file system makes holes, else
//! with each file that was read to its end. It is the person's own data.

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// How much waits in memory, in bytes.
const MEMORY: usize = 1 << 20;
/// How much of a file is read at once, and given back at once.
const CHUNK: usize = 256 << 10;
/// How long a file becomes before another one is begun: where no holes can be made, so much stays on the
/// disk that was read already. All that one client has kept, 8 GiB, takes few descriptors then.
const SEGMENT: u64 = 64 << 20;

/// What the files of one client may still take of the disk, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<AtomicU64>);

impl Room {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Whether so much was there, and is taken now.
    fn take(&self, bytes: u64) -> bool {
        let less = |free: u64| free.checked_sub(bytes);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The end into which what came is put.
#[derive(Debug)]
pub(super) struct Put(Arc<Spool>);

/// The end from which it is taken.
#[derive(Debug)]
pub(super) struct Take(Arc<Spool>);

#[derive(Debug)]
struct Spool {
    /// Where files are made.
    place: PathBuf,
    room: Room,
    waits: Mutex<Waits>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waits {
    memory: VecDeque<Bytes>,
    bytes: usize,
    /// What comes after all that is in memory, in order.
    files: VecDeque<Spilled>,
    /// The file system makes no holes.
    is_solid: bool,
    /// Nothing more comes.
    ended: bool,
    /// Nobody takes any more.
    unwanted: bool,
}

/// A file of what waits.
#[derive(Debug)]
struct Spilled {
    file: File,
    written: u64,
    read: u64,
    /// So much of the beginning takes no room any more.
    given_back: u64,
    room: Room,
}

impl Spilled {
    /// Gives back what was read, in whole chunks, which are whole blocks; false where the file system
    /// cannot.
    fn give_back(&mut self) -> bool {
        let end = self.read.saturating_sub(self.read % CHUNK as u64);
        let length = end.saturating_sub(self.given_back);
        if length == 0 {
            return true;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, hole, self.given_back, length) {
            Ok(()) => {
                self.given_back = end;
                self.room.give_back(length);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "what was read stays on the disk for now");
                false
            }
        }
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        self.room
            .give_back(self.written.saturating_sub(self.given_back));
    }
}

/// A spool whose files, if it needs some, are made in this directory, and take of this room.
pub(super) fn spool(place: PathBuf, room: Room) -> (Put, Take) {
    let spool = Arc::new(Spool {
        place,
        room,
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
        if waits.files.is_empty() && waits.bytes < MEMORY {
            waits.bytes = waits.bytes.saturating_add(bytes.len());
            waits.memory.push_back(Bytes::copy_from_slice(bytes));
        } else {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if !self.0.room.take(length) {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            let spilled = match waits.files.back_mut().filter(|it| it.written < SEGMENT) {
                Some(spilled) => spilled,
                None => {
                    let file = tempfile::tempfile_in(&self.0.place);
                    let file = file.inspect_err(|_| self.0.room.give_back(length))?;
                    waits.files.push_back_mut(Spilled {
                        file,
                        written: 0,
                        read: 0,
                        given_back: 0,
                        room: self.0.room.clone(),
                    })
                }
            };
            if let Err(error) = spilled.file.write_all_at(bytes, spilled.written) {
                self.0.room.give_back(length);
                return Err(error);
            }
            // From here on it is given back with the file.
            spilled.written = spilled.written.saturating_add(length);
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
        let is_solid = waits.is_solid;
        if let Some(bytes) = waits.memory.pop_front() {
            waits.bytes = waits.bytes.saturating_sub(bytes.len());
            return Ok(Some(bytes));
        }
        let Some(spilled) = waits.files.front_mut() else {
            return Ok(None);
        };
        let left = spilled.written.saturating_sub(spilled.read);
        let mut bytes = vec![0; usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK))];
        spilled.file.read_exact_at(&mut bytes, spilled.read)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        spilled.read = spilled.read.saturating_add(length);
        if spilled.read >= spilled.written {
            waits.files.pop_front();
        } else if !is_solid && !spilled.give_back() {
            waits.is_solid = true;
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
        self.ended && self.memory.is_empty() && self.files.is_empty()
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
        let (put, mut take) = spool(place.path().into(), Room::new(8 << 20));
        let large = numbers(0..1_000_000);
        for piece in large.chunks(30_000) {
            put.put(piece).unwrap();
        }
        {
            let waits = take.0.waits();
            assert!(!waits.files.is_empty() && waits.bytes < MEMORY + 30_000);
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        assert!(taken(&mut take, large.len()).await == large);
        // Taken to its end, the file is gone, and memory serves again.
        put.put(b"small").unwrap();
        assert!(take.0.waits().files.is_empty());
        drop(put);
        assert_eq!(taken(&mut take, 5).await, b"small");
        assert_eq!(take.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_what_comes_and_of_the_end() {
        let (put, mut take) = spool(std::env::temp_dir(), Room::new(0));
        let (heard, ()) = tokio::join!(take.next(), async { put.put(b"late").unwrap() });
        assert_eq!(heard.unwrap().as_deref(), Some(b"late".as_slice()));
        let (heard, ()) = tokio::join!(take.next(), async { drop(put) });
        assert_eq!(heard.unwrap(), None);
    }

    #[tokio::test]
    async fn a_steady_upload_takes_no_more_room_than_what_waits_of_it() {
        use std::os::unix::fs::MetadataExt as _;
        const MOST: u64 = 9 * CHUNK as u64;
        let place = tempfile::tempdir().unwrap();
        let (put, mut take) = spool(place.path().into(), Room::new(MOST));
        let piece = vec![7; CHUNK];
        // It is ahead by what memory keeps and a part of the file, and stays so.
        for _ in 0..8 {
            put.put(&piece).unwrap();
        }
        for _ in 0..100 {
            put.put(&piece).unwrap();
            assert!(take.next().await.unwrap().unwrap() == piece);
            let waits = take.0.waits();
            let file = waits.files.front().unwrap();
            assert!(file.written - file.given_back <= MOST);
            assert!(file.file.metadata().unwrap().blocks() * 512 <= MOST + CHUNK as u64);
        }
        let ahead = taken(&mut take, 8 * CHUNK).await;
        assert!(ahead.len() == 8 * CHUNK && ahead.iter().all(|byte| *byte == 7));
        assert!(take.0.waits().files.is_empty());
        assert_eq!(take.0.room.0.load(Ordering::Relaxed), MOST);
    }

    #[tokio::test]
    async fn where_no_holes_can_be_made_an_upload_takes_no_more_room_than_what_waits_and_one_file()
    {
        use std::os::unix::fs::MetadataExt as _;
        // What waits is less than a file, so that one is read while the next is written.
        const MOST: u64 = SEGMENT + 9 * CHUNK as u64;
        let place = tempfile::tempdir().unwrap();
        let (put, mut take) = spool(place.path().into(), Room::new(MOST));
        take.0.waits().is_solid = true;
        let piece = vec![7; CHUNK];
        for _ in 0..8 {
            put.put(&piece).unwrap();
        }
        for _ in 0..2 * SEGMENT / CHUNK as u64 + 20 {
            put.put(&piece).unwrap();
            assert!(take.next().await.unwrap().unwrap() == piece);
            let waits = take.0.waits();
            assert!(waits.files.len() <= 2);
            let blocks = waits.files.iter();
            let blocks = blocks.map(|it| it.file.metadata().unwrap().blocks() * 512);
            assert!(blocks.sum::<u64>() <= MOST + CHUNK as u64);
        }
        drop(put);
        while take.next().await.unwrap().is_some() {}
        assert_eq!(take.0.room.0.load(Ordering::Relaxed), MOST);
    }

    #[tokio::test]
    async fn all_that_waits_for_one_client_is_bounded_together() {
        let place = tempfile::tempdir().unwrap();
        let room = Room::new(1 << 20);
        let (one, taken) = spool(place.path().into(), room.clone());
        let (other, mut take) = spool(place.path().into(), room);
        for put in [&one, &other] {
            put.put(&vec![1; MEMORY]).unwrap();
        }
        one.put(&vec![2; 1 << 20]).unwrap();
        let refused = other.put(b"3").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        // What nobody takes any more makes room, and what was there is not harmed.
        drop(taken);
        other.put(b"3").unwrap();
        assert!(take.next().await.unwrap().unwrap().len() == MEMORY);
        assert_eq!(take.next().await.unwrap().as_deref(), Some(&b"3"[..]));
    }

    #[test]
    fn what_nobody_takes_any_more_is_not_kept() {
        let (put, take) = spool(std::env::temp_dir(), Room::new(0));
        drop(take);
        put.put(&vec![0; MEMORY * 2]).unwrap();
        let waits = put.0.waits();
        assert!(waits.memory.is_empty() && waits.files.is_empty());
    }
}
