//! How a held place is, for programs.

use super::{
    moments::Moment,
    place::{Changed, Place},
    serve::refused,
    talk::Answer,
};
use crate::Error;
use domain::failure::chain;

/// How a place is, as an object for programs.
#[derive(serde::Serialize)]
struct Shown {
    #[serde(flatten)]
    diagnosis: sandbox::Diagnosis,
    stats: sandbox::Stats,
    /// Which bound on the disk was passed: nothing is started in it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    full: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<File>>,
    /// The changed files of each further repository.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Further>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// Where it is asked for: null where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshots: Option<Option<Vec<Moment>>>,
}

/// A further repository, and what was changed in it.
#[derive(serde::Serialize)]
struct Further {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<File>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

/// The most changed files that are named, and the bytes of their names: an answer has a bound.
const MOST_FILES: usize = 1_000;
const MOST_BYTES: usize = 256 << 10;

/// The first of the changed files of one of so many repositories, or why they cannot be read: what runs
/// inside may be writing, or have written more than a change may hold.
fn files(
    changed: Option<Result<Changed, Error>>,
    of: usize,
) -> (Option<Vec<File>>, Option<String>) {
    match changed {
        Some(Ok(changed)) => (Some(first(&changed.files, of)), None),
        Some(Err(error)) => (None, Some(chain(&error))),
        None => (None, None),
    }
}

fn first(files: &[git::FileChange], of: usize) -> Vec<File> {
    let lines = |file: &git::FileChange, count| (!file.binary).then_some(count);
    let mut room = MOST_BYTES / of;
    let files = files.iter().take(MOST_FILES / of).map(|file| File {
        path: file.path.to_string(),
        added: lines(file, file.additions),
        removed: lines(file, file.deletions),
    });
    files
        .take_while(|file| {
            let left = room.checked_sub(file.path.len());
            room = left.unwrap_or(0);
            left.is_some()
        })
        .collect()
}

/// A changed file.
#[derive(serde::Serialize)]
struct File {
    path: String,
    added: Option<u64>,
    removed: Option<u64>,
}

pub(super) async fn state(place: &Place, changes: bool) -> Answer {
    let (diagnosis, stats) = match place.diagnose().await {
        Ok(both) => both,
        Err(error) => return refused(&error),
    };
    let mut shown = Shown {
        diagnosis,
        stats,
        full: place.full().map(|full| full.to_string()),
        files: None,
        also: Vec::new(),
        unreadable: None,
        snapshots: None,
    };
    if changes {
        match place.disk_bytes().await {
            Ok(bytes) => shown.stats.disk_bytes = Some(bytes),
            Err(error) => tracing::debug!(%error, "what it takes on disk is not known now"),
        }
        match place.changed().await {
            Ok(changed) => {
                let of = changed.len().max(1);
                let mut changed = changed.into_iter();
                (shown.files, shown.unreadable) = files(changed.next(), of);
                let also = place.also.iter().zip(changed).map(|(one, changed)| {
                    let (files, unreadable) = files(Some(changed), of);
                    Further {
                        name: one.name.clone(),
                        files,
                        unreadable,
                    }
                });
                shown.also = also.collect();
            }
            Err(error) => shown.unreadable = Some(chain(&error)),
        }
        match place.measured().await {
            Ok(snapshots) => shown.snapshots = Some(snapshots),
            Err(error) => tracing::warn!(%error, "the snapshots could not be measured"),
        }
    }
    serde_json::to_value(&shown).map_or_else(
        |error| Answer::Refused {
            message: error.to_string(),
            reason: None,
            code: None,
            unable: None,
        },
        Answer::State,
    )
}
