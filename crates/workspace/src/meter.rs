//! What the files of an attempt take on disk.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::record::Record;
use crate::store::{Layering, Store};
use crate::usage::{self, Taken};

/// Measures what the files of an attempt take on disk.
#[derive(Debug, Clone)]
pub struct Meter {
    store: Store,
    dir: PathBuf,
}

impl Meter {
    pub(crate) fn new(store: Store, dir: PathBuf) -> Self {
        Self { store, dir }
    }

    /// What they take: the layers that make the change, the home and the temporary directory;
    /// never the base, nor what was frozen before the first turn. A plain copy counts whole. A directory
    /// that only its owner in the sandbox could open, and a file that has no name any more, are not
    /// counted.
    ///
    /// # Errors
    /// [`Error::Io`], also when the workspace is gone.
    pub fn taken(&self) -> Result<Taken, Error> {
        // Asked each time: layers come and go.
        let record = Record::read(&self.dir)?;
        let mut taken = Taken::default();
        for part in ["home", "tmp"] {
            taken = taken.and(usage::taken(&self.dir.join(part))?);
        }
        let own = self.dir.join(match record.kind {
            Layering::Overlay => Path::new("layers"),
            Layering::Copy => Path::new(""),
        });
        for stack in record.stacks() {
            for layer in stack.layers().skip(stack.setup.len()) {
                let places = [own.join(layer), self.store.layers().join(layer)];
                for place in places {
                    match usage::taken(&place) {
                        // What was folded has a second name, which nobody asked for.
                        Ok(more) if stack.is_fold(layer) => {
                            taken = taken.and(Taken { files: 0, ..more });
                        }
                        Ok(more) => taken = taken.and(more),
                        // It is in the other place, or was dropped meanwhile.
                        Err(Error::Io { source, .. })
                            if source.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(taken)
    }
}
