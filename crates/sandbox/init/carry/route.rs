//! The path where the work stands.

use super::LONGEST;
use crate::files::ENAMETOOLONG;
use crate::sys::Result;

pub struct Route {
    path: [u8; LONGEST],
    length: usize,
}

impl Route {
    pub fn new() -> Self {
        Self {
            path: [0; LONGEST],
            length: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        self.path.get(..self.length).unwrap_or(&[])
    }

    /// Stands somewhere else; what does not fit is left out, for this is only told.
    pub fn say(&mut self, path: &[u8]) {
        self.length = 0;
        let room = self.path.iter_mut().take(LONGEST - 1);
        for (to, from) in room.zip(path) {
            *to = *from;
            self.length += 1;
        }
    }

    /// Goes down to a name; gives back what leads up again.
    pub fn enter(&mut self, name: &[u8]) -> Result<usize> {
        let before = self.length;
        let slash: &[u8] = match self.bytes() {
            [] | [.., b'/'] => b"",
            _ => b"/",
        };
        let rest = self.path.get_mut(before..LONGEST - 1).unwrap_or(&mut []);
        if slash.len() + name.len() > rest.len() {
            return Err(ENAMETOOLONG);
        }
        for (to, from) in rest.iter_mut().zip(slash.iter().chain(name)) {
            *to = *from;
            self.length += 1;
        }
        Ok(before)
    }

    pub fn leave(&mut self, before: usize) {
        self.length = before.min(self.length);
    }
}
