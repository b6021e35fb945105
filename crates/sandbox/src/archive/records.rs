//! Records of an archive (POSIX `pax`): what a header of the usual form has no room for.

use super::Error;

/// What they say of the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// It has holes that are not in the archive.
    pub(super) sparse: bool,
}

const DAMAGED: Error = Error::Malformed {
    what: "a record makes no sense",
};

impl Records {
    /// Reads `LENGTH KEY=VALUE\n`, over and over; the length counts itself.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, Error> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or(DAMAGED)?;
            let digits = bytes
                .get(..space)
                .and_then(|it| std::str::from_utf8(it).ok());
            let length = digits.and_then(|it| it.parse::<usize>().ok());
            let (record, rest) = length
                .and_then(|length| bytes.split_at_checked(length))
                .ok_or(DAMAGED)?;
            let record = record
                .get(space.saturating_add(1)..)
                .and_then(|it| it.strip_suffix(b"\n"))
                .ok_or(DAMAGED)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or(DAMAGED)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => records.path = Some(value.to_vec()),
                b"linkpath" => records.target = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).ok();
                    records.size = Some(text.and_then(|it| it.parse().ok()).ok_or(DAMAGED)?);
                }
                key if key.starts_with(b"GNU.sparse.") => records.sparse = true,
                _ => {}
            }
            bytes = rest;
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_what_a_header_has_no_room_for_and_damaged_ones_are_refused() {
        let all = b"12 path=a/b\n13 linkpath=\n11 size=77\n21 mtime=1700000000.5\n";
        let read = Records::read(all);
        // The last one says that it is shorter than it is.
        assert!(read.is_err());
        let all = b"12 path=a/b\n12 linkpath=\n11 size=77\n";
        let read = Records::read(all);
        assert!(read.is_err(), "a length that is one too small");
        let read = Records::read(b"12 path=a/b\n14 linkpath=x\n11 size=77\n").unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(read.target.as_deref(), Some(&b"x"[..]));
        assert_eq!(read.size, Some(77));
        for damaged in [&b"5"[..], b"x path=a\n", b"99 path=a\n", b"7 path\n", b"0 "] {
            assert!(Records::read(damaged).is_err(), "{damaged:?}");
        }
    }
}
