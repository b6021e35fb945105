//! What the files of an attempt take on disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::record::Record;
use crate::store::Store;
use crate::usage::{self, Taken};

/// How long it is believed what frozen layers take. Nobody writes them; but folding gives files a second
/// name for the while, and each name counts for a part of its file.
const BELIEVED: Duration = Duration::from_secs(60);

/// Measures what the files of an attempt take on disk.
#[derive(Debug, Clone)]
pub struct Meter {
    store: Store,
    dir: PathBuf,
    frozen: Option<Frozen>,
}

/// What the layers took that nobody writes any more.
#[derive(Debug, Clone)]
struct Frozen {
    /// The record without the layers that are written.
    of: Record,
    taken: Taken,
    when: Instant,
}

impl Meter {
    pub(crate) fn new(store: &Store, dir: &Path) -> Meter {
        Meter {
            store: store.clone(),
            dir: dir.to_owned(),
            frozen: None,
        }
    }

    /// What they take: the layers that make the change, the home and the temporary directory;
    /// never the base, nor what was frozen before the first turn. A plain copy counts whole. A directory
    /// that only its owner in the sandbox could open, and a file that has no name any more, are not
    /// counted. What was frozen since is measured once a minute, and when other layers are frozen.
    ///
    /// # Errors
    /// [`Error::Io`], also when the workspace is gone.
    pub fn taken(&mut self) -> Result<Taken, Error> {
        // Asked each time: layers come and go.
        let mut record = Record::read(&self.dir)?;
        let mut taken = Taken::default();
        for part in ["home", "tmp"] {
            taken = taken.and(usage::taken(&self.dir.join(part))?);
        }
        for stack in record.stacks_mut() {
            taken = taken.and(self.layer(&stack.upper)?);
            stack.upper.clear();
        }
        Ok(taken.and(self.frozen(record)?))
    }

    fn frozen(&mut self, of: Record) -> Result<Taken, Error> {
        if let Some(known) = &self.frozen
            && known.of == of
            && known.when.elapsed() < BELIEVED
        {
            return Ok(known.taken);
        }
        let when = Instant::now();
        let mut taken = Taken::default();
        for stack in of.stacks() {
            let layers = stack.layers().skip(stack.setup.len());
            for layer in layers.filter(|layer| !layer.is_empty()) {
                let more = self.layer(layer)?;
                // What was folded has a second name, which nobody asked for.
                taken = taken.and(match stack.is_fold(layer) {
                    true => Taken { files: 0, ..more },
                    false => more,
                });
            }
        }
        self.frozen = Some(Frozen { of, taken, when });
        Ok(taken)
    }

    fn layer(&self, layer: &str) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        for place in [self.dir.join(layer), self.store.layers().join(layer)] {
            match usage::taken(&place) {
                Ok(more) => taken = taken.and(more),
                // It is in the other place, or was dropped meanwhile.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}
