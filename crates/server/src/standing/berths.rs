//! All sandboxes of a data directory, as whoever looks finds and leaves them.

use super::{
    berth::{Record, entries, id_of, is_held, lock, place, remove},
    error::Error,
    kept::{Kept, Phase, Standing, discard, empty_trash, now, settle, strike},
};
use domain::SandboxId;
use std::{fs::File, path::Path};

/// How many sandboxes there are, and which of them go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that a process holds.
    pub running: Vec<SandboxId>,
    /// Those that are stopped.
    pub stopped: Vec<SandboxId>,
    /// Those that are stopped and past their time: whoever looks takes them away.
    pub past: Vec<SandboxId>,
}

/// Counts them, and changes nothing.
///
/// # Errors
/// When they cannot be looked at.
pub fn tally(data: &Path) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let now = now();
    for path in entries(&place(data))? {
        // One that cannot be read is another's to tell: it hides no other.
        let Ok(Some(kept)) = Kept::read(&path) else {
            continue;
        };
        if kept.phase == Phase::Made || kept.origin.is_none() {
            continue;
        }
        let of = match is_held(&path) {
            true => &mut tally.running,
            false if kept.record.ends <= now => &mut tally.past,
            false => &mut tally.stopped,
        };
        of.push(kept.record.id);
    }
    Ok(tally)
}

/// Looks after what processes left that have ended: what was not whole goes, and so does what is past its
/// time.
///
/// # Errors
/// When they cannot be looked at.
pub fn sweep(data: &Path) -> Result<(), Error> {
    found(data).map(drop)
}

/// A sandbox of which something cannot be read. It hides no other, and its files stay until somebody takes
/// them away.
#[derive(Debug)]
pub struct Damaged {
    /// Its id.
    pub id: SandboxId,
    /// What is wrong.
    pub why: Error,
}

/// What is written down of a sandbox that is whole, how it stands, and its directory.
pub(super) type Whole = (Record, Standing, File);

/// The sandboxes that are whole, the oldest first, and those that cannot be looked at, by one reading: none
/// is among both, and none among neither. What is past its time goes, and so does what never was whole and
/// has no holder any more.
pub(super) fn found(data: &Path) -> Result<(Vec<Whole>, Vec<Damaged>), Error> {
    let (mut whole, mut damaged) = (Vec::new(), Vec::new());
    for path in entries(&place(data))? {
        match look(data, &path) {
            Ok(Some((kept, is_held))) => {
                if let Ok(directory) = File::open(&path) {
                    let standing = kept.standing(is_held);
                    whole.push((kept.record, standing, directory));
                }
            }
            Ok(None) => {}
            Err(why) => {
                tracing::debug!(%why, path = %path.display(), "a sandbox is damaged");
                damaged.extend(id_of(&path).map(|id| Damaged { id, why }));
            }
        }
    }
    whole.sort_by_key(|(record, ..)| (record.created, record.id));
    damaged.sort_by_key(|it| it.id);
    Ok((whole, damaged))
}

/// What is in a sandbox's directory, and whether a process holds it; nothing where it is not whole, which
/// goes if nobody has anything to do with it.
fn look(data: &Path, path: &Path) -> Result<Option<(Kept, bool)>, Error> {
    match lock(path, true)? {
        Some(_alone) => {
            let kept = settle(data, path)?;
            if kept.is_none() {
                remove(path);
            }
            Ok(kept.map(|kept| (kept, false)))
        }
        None => {
            // One that has no record is about to be ready, as is one that was just made.
            let kept = Kept::read(path)?.filter(|kept| kept.phase != Phase::Made);
            Ok(kept.map(|kept| (kept, is_held(path))))
        }
    }
}

/// The directory of a sandbox; nothing where there is none.
pub(super) fn open(data: &Path, id: SandboxId) -> Result<Option<File>, Error> {
    let path = place(data).join(id.to_string());
    match File::open(&path) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File {
            doing: "opening",
            path,
            source,
        }),
    }
}

/// Takes a sandbox away that no process has anything to do with, and waits until its files are deleted.
/// False where some process has.
///
/// # Errors
/// When something of it cannot be removed.
pub(super) fn take_away(data: &Path, id: SandboxId) -> Result<bool, Error> {
    let path = place(data).join(id.to_string());
    let Some(_alone) = lock(&path, true)? else {
        return Ok(!path.exists());
    };
    strike(&path)?;
    discard(data, id)?;
    remove(&path);
    empty_trash(data)?;
    Ok(true)
}
