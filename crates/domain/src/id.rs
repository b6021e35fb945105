//! Ids: a letter that says of what, a dash, and twelve characters that were random.
//!
//! Sixty random bits make a collision unlikely below a billion rows, and a person can name an
//! entity by the first few characters. The alphabet has no letters that look like digits.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Cow, fmt, str::FromStr};

/// Lower-case base 32 without `i`, `l`, `o` and `u` (Crockford's).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 12;
const BITS: u32 = 5;

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of a {kind}: it should look like `{prefix}-0123456789ab`")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    prefix: char,
}

/// What each byte is worth as a character of an id; beyond the alphabet for those that are none.
#[expect(clippy::indexing_slicing, reason = "evaluated while it is compiled")]
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// The text of an id.
struct Text([u8; 2 + LENGTH]);

impl Text {
    fn of(prefix: char, bits: u64) -> Self {
        let mut text = [b'0'; 2 + LENGTH];
        let [first, dash, digits @ ..] = &mut text;
        *first = u8::try_from(prefix).unwrap_or(b'?');
        *dash = b'-';
        for (place, slot) in digits.iter_mut().rev().enumerate() {
            let value = (bits >> (BITS * place as u32)) & 31;
            if let Some(character) = ALPHABET.get(value as usize) {
                *slot = *character;
            }
        }
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn decode(text: &str) -> Option<u64> {
    if text.len() != LENGTH {
        return None;
    }
    text.bytes().try_fold(0u64, |bits, byte| {
        let value = *VALUES.get(usize::from(byte))?;
        (value < 32).then_some((bits << BITS) | u64::from(value))
    })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// The letter that begins the text of such an id.
            pub const PREFIX: char = $prefix;

            /// The id made of the lower sixty of these bits, which should be random.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits & ((1 << (BITS * LENGTH as u32)) - 1))
            }

            /// The bits of the id, for storage.
            pub const fn bits(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Text::of($prefix, self.0).as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('-'))
                    .and_then(decode)
                    .map(Self)
                    .ok_or_else(|| InvalidId { text: text.into(), kind: $kind, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Text::of($prefix, self.0).as_str())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": concat!("The id of a ", $kind, "."),
                    "pattern": concat!("^", $prefix, "-[0-9a-hjkmnp-tv-z]{12}$"),
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// An ordered event log.
    SessionId = 's', "session";
    /// What a person asked for, on a repository.
    RequestId = 'r', "request";
    /// A unit of agent work.
    JobId = 'j', "job";
    /// One execution of a job.
    AttemptId = 'a', "attempt";
    /// The commits that a passed gate produced.
    ChangeId = 'c', "change";
    /// A timed, fenced claim.
    LeaseId = 'l', "lease";
    /// What a spender may use, as one revocable capability.
    GrantId = 'g', "grant";
    /// A sandbox that a person or a program works in, and no agent.
    SandboxId = 'x', "sandbox";
    /// A repository that Skep has a mirror of.
    RepositoryId = 'p', "repository";
    /// One event, wherever it is delivered.
    EventId = 'e', "event";
}

/// The name of a blob: the SHA-256 of its content, in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The blob whose content has this SHA-256.
    pub const fn from_sha256(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The SHA-256 of the content.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the name of a blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a blob: it should be 64 hexadecimal digits, none a capital")]
pub struct InvalidBlobId(String);

impl FromStr for BlobId {
    type Err = InvalidBlobId;
    fn from_str(text: &str) -> Result<Self, InvalidBlobId> {
        let invalid = || InvalidBlobId(text.into());
        // One has one text: no capitals, and no sign, which numbers are read with.
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.bytes().all(is_digit) {
            return Err(invalid());
        }
        let mut digest = [0u8; 32];
        for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *slot = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for BlobId {
    fn schema_name() -> Cow<'static, str> {
        "BlobId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "The name of a blob: the SHA-256 of its content.",
            "pattern": "^[0-9a-f]{64}$",
        })
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_from_its_text(bits: u64) {
            let id = JobId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        }

        #[test]
        fn no_text_makes_parsing_fail_in_another_way_than_an_error(text in ".*") {
            let parsed = text.parse::<JobId>();
            prop_assert!(parsed.is_err() || parsed.unwrap().to_string() == text);
        }
    }

    #[test]
    fn an_id_of_another_kind_is_refused_with_an_example() {
        let error = RequestId::from_bits(7)
            .to_string()
            .parse::<JobId>()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`r-000000000007` is not an id of a job: it should look like `j-0123456789ab`"
        );
    }

    #[test]
    fn a_blob_id_is_sixty_four_hexadecimal_digits() {
        let id = BlobId::from_sha256([0xa5; 32]);
        assert_eq!(id.to_string().parse::<BlobId>().unwrap(), id);
        assert!("a5".parse::<BlobId>().is_err());
        for other in ["A5".repeat(32), "+5".repeat(32), "é".repeat(32)] {
            assert!(other.parse::<BlobId>().is_err(), "{other}");
        }
    }
}
