//! Bytes that somebody else wrote, read piece by piece and never beyond their end. Compiled into the
//! owner, too, so that its tests read what it writes as the inside does.

/// What is read is nothing that the owner writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

pub type Result<T> = core::result::Result<T, Malformed>;

/// A path or other text that ends with a zero byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// `bytes` with their zero byte at the end; anything else is cut to nothing.
    pub fn new(bytes: &'a [u8]) -> Self {
        match bytes.last() {
            Some(0) => Self(bytes),
            _ => Self(b"\0"),
        }
    }

    pub fn pointer(self) -> usize {
        self.0.as_ptr() as usize
    }

    pub fn bytes(self) -> &'a [u8] {
        self.0.split_last().map_or(&[], |(_, text)| text)
    }
}

/// Bytes, and how far they have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn word(&mut self) -> Result<u32> {
        match *self.take(4)? {
            [a, b, c, d] => Ok(u32::from_le_bytes([a, b, c, d])),
            _ => Err(Malformed),
        }
    }

    pub fn long(&mut self) -> Result<u64> {
        Ok(u64::from(self.word()?) | u64::from(self.word()?) << 32)
    }

    /// Any bytes, with the zero byte behind them.
    pub fn text(&mut self) -> Result<Text<'a>> {
        let length = (self.word()? as usize).checked_add(1).ok_or(Malformed)?;
        match self.take(length)? {
            text @ [.., 0] => Ok(Text(text)),
            _ => Err(Malformed),
        }
    }

    /// The same for what the kernel reads up to the first zero byte: with one inside, it would be another
    /// path than the owner's.
    pub fn path(&mut self) -> Result<Text<'a>> {
        let text = self.text()?;
        match text.bytes().contains(&0) {
            false => Ok(text),
            true => Err(Malformed),
        }
    }
}
