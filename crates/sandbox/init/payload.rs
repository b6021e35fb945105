//! A command as the owner writes it and a minder reads it.

use super::read::{Malformed, Reader, Result, Text};

/// Three counts (words, variables, candidates), then texts with a zero byte each: the directory, the
/// words, the variables, and the paths to try as the program.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    pub words: usize,
    pub variables: usize,
    texts: &'a [u8],
}

impl<'a> Payload<'a> {
    /// All the texts are there, and nothing else is.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        const COUNTS: usize = 12;
        let mut counts = Reader::new(bytes);
        let (words, variables) = (counts.word()?, counts.word()?);
        let candidates = counts.word()?;
        let texts = bytes.get(COUNTS..).ok_or(Malformed)?;
        let wanted = 1 + u64::from(words) + u64::from(variables) + u64::from(candidates);
        let found = texts.iter().filter(|byte| **byte == 0).count();
        if words == 0 || texts.last() != Some(&0) || found as u64 != wanted {
            return Err(Malformed);
        }
        Ok(Self {
            words: words as usize,
            variables: variables as usize,
            texts,
        })
    }

    fn texts(self) -> impl Iterator<Item = Text<'a>> {
        self.texts.split_inclusive(|byte| *byte == 0).map(Text::new)
    }

    /// Where it begins to work.
    pub fn directory(self) -> Text<'a> {
        self.texts().next().unwrap_or(Text::new(b"\0"))
    }

    /// The words and then the variables.
    pub fn strings(self) -> impl Iterator<Item = Text<'a>> {
        self.texts().skip(1).take(self.words + self.variables)
    }

    /// The paths to try as the program.
    pub fn candidates(self) -> impl Iterator<Item = Text<'a>> {
        self.texts().skip(1 + self.words + self.variables)
    }
}
