//! The headers of a tar archive (POSIX `ustar`, with GNU's long names): what goes between a sandbox and
//! its owner when files are copied. Compiled into the owner, too, so that both sides read what either
//! writes.

use super::read::{Malformed, Result};

/// Archives consist of blocks of this size; contents are filled up to one.
pub const BLOCK: usize = 512;

/// Bytes of a name, or of a link's target, that a header holds itself.
pub const SHORT: usize = 100;

pub const FILE: u8 = b'0';
pub const HARD_LINK: u8 = b'1';
pub const LINK: u8 = b'2';
pub const CHARACTER_DEVICE: u8 = b'3';
pub const BLOCK_DEVICE: u8 = b'4';
pub const DIRECTORY: u8 = b'5';
pub const PIPE: u8 = b'6';
/// As [`FILE`], for systems that lay files out in one piece.
pub const CONTIGUOUS: u8 = b'7';
/// Records for the next entry, or for all that follow.
pub const RECORDS: u8 = b'x';
pub const GLOBAL_RECORDS: u8 = b'g';
/// The next entry's name, or its link's target.
pub const LONG_NAME: u8 = b'L';
pub const LONG_TARGET: u8 = b'K';
/// Ours: there is no kind for sockets.
pub const SOCKET: u8 = b'U';

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub kind: u8,
    pub mode: u32,
    /// Of what follows, without what fills the last block.
    pub size: u64,
    /// What comes before the name and a slash, if anything.
    pub prefix: &'a [u8],
    pub name: &'a [u8],
    pub target: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads a block; none where it is empty, which is the archive's end.
    pub fn read(block: &'a [u8; BLOCK]) -> Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let part = |from, to| block.get(from..to).ok_or(Malformed);
        if number(part(148, 156)?)? != u64::from(sum(block)) {
            return Err(Malformed);
        }
        let is_posix = part(257, 263)? == b"ustar\0";
        let kind = match part(156, 157)? {
            [0] => FILE,
            [kind] => *kind,
            _ => return Err(Malformed),
        };
        Ok(Some(Self {
            kind,
            mode: (number(part(100, 108)?)? & 0o7777) as u32,
            size: number(part(124, 136)?)?,
            prefix: if is_posix { text(part(345, 500)?) } else { b"" },
            name: text(part(0, SHORT)?),
            target: text(part(157, 257)?),
        }))
    }

    /// The block, of whose texts only so much is in it as fits.
    pub fn write(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8], most: usize| {
            let room = block.iter_mut().skip(at).take(most);
            for (to, from) in room.zip(bytes) {
                *to = *from;
            }
        };
        put(0, self.name, SHORT);
        put(100, &octal::<7>(u64::from(self.mode)), 7);
        put(108, &octal::<7>(0), 7);
        put(116, &octal::<7>(0), 7);
        if self.size < 1 << 33 {
            put(124, &octal::<11>(self.size), 11);
        } else {
            put(124, &[0x80, 0, 0, 0], 4);
            put(128, &self.size.to_be_bytes(), 8);
        }
        put(136, &octal::<11>(0), 11);
        put(156, &[self.kind], 1);
        put(157, self.target, SHORT);
        put(257, b"ustar\x0000", 8);
        put(148, b"        ", 8);
        let sum = octal::<6>(u64::from(sum(&block)));
        for (to, from) in block.iter_mut().skip(148).zip(sum.into_iter().chain([0])) {
            *to = from;
        }
        block
    }
}

/// How many bytes fill up the last block of a content.
pub fn filling(size: u64) -> usize {
    let rest = (size % BLOCK as u64) as usize;
    if rest == 0 { 0 } else { BLOCK - rest }
}

/// Of all bytes, those of the sum itself as spaces.
fn sum(block: &[u8; BLOCK]) -> u32 {
    let bytes = block.iter().enumerate();
    bytes
        .map(|(at, byte)| match at {
            148..156 => 32,
            _ => u32::from(*byte),
        })
        .sum()
}

/// Up to the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// Octal digits among spaces and zero bytes, or a number of base 256.
fn number(field: &[u8]) -> Result<u64> {
    let mut value = 0u64;
    if let Some((first @ 0x80.., rest)) = field.split_first() {
        // No negative ones, which would have 0xff.
        for byte in [*first & 0x7f].iter().chain(rest) {
            value = value.checked_mul(256).ok_or(Malformed)? | u64::from(*byte);
        }
        return Ok(value);
    }
    let begin = field.iter().position(|byte| *byte != b' ');
    let digits = field.get(begin.unwrap_or(0)..).unwrap_or(&[]);
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' '));
    let (digits, rest) = digits.split_at(end.unwrap_or(digits.len()));
    if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(Malformed);
    }
    for digit in digits {
        match digit {
            b'0'..=b'7' => {
                value = value.checked_mul(8).ok_or(Malformed)? | u64::from(digit - b'0');
            }
            _ => return Err(Malformed),
        }
    }
    Ok(value)
}

fn octal<const N: usize>(mut value: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 8) as u8;
        value /= 8;
    }
    digits
}

/// What tells whether an entry is still the one that it was, in listings without contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The inode's.
    pub number: u64,
    /// Kind and permissions.
    pub mode: u32,
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    pub changed: (i64, u32),
    /// All zero where nobody knows it.
    pub born: (i64, u32),
}

/// Where the identity is: nothing else of ours has a prefix.
const IDENTITY: usize = 345;
const IDENTITY_BYTES: usize = 56;

/// Puts the identity into a header.
pub fn identify(block: &mut [u8; BLOCK], identity: &Identity) {
    let parts: [&[u8]; 9] = [
        &identity.number.to_le_bytes(),
        &identity.mode.to_le_bytes(),
        &identity.size.to_le_bytes(),
        &identity.modified.0.to_le_bytes(),
        &identity.modified.1.to_le_bytes(),
        &identity.changed.0.to_le_bytes(),
        &identity.changed.1.to_le_bytes(),
        &identity.born.0.to_le_bytes(),
        &identity.born.1.to_le_bytes(),
    ];
    let room = block.iter_mut().skip(IDENTITY).take(IDENTITY_BYTES);
    for (to, from) in room.zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    let sum = octal::<6>(u64::from(sum(block)));
    for (to, from) in block.iter_mut().skip(148).zip(sum.into_iter().chain([0])) {
        *to = from;
    }
}

/// The identity in a header.
pub fn identity(block: &[u8; BLOCK]) -> Result<Identity> {
    let bytes = block.get(IDENTITY..).ok_or(Malformed)?;
    let mut reader = super::read::Reader::new(bytes);
    Ok(Identity {
        number: reader.long()?,
        mode: reader.word()?,
        size: reader.long()?,
        modified: (reader.long()? as i64, reader.word()?),
        changed: (reader.long()? as i64, reader.word()?),
        born: (reader.long()? as i64, reader.word()?),
    })
}
