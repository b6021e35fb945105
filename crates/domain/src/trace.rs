//! The trace of a request, by which other systems know what belongs together.

use crate::id::RequestId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{borrow::Cow, fmt};

/// How it is written.
const DIGITS: usize = 32;

/// What all events have in common that one request led to. It is written as W3C Trace Context
/// writes a trace: 32 hexadecimal digits, in lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace(u128);

impl From<RequestId> for Trace {
    fn from(request: RequestId) -> Self {
        Self(request.bits().into())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Trace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Trace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != DIGITS || !text.bytes().all(digit) {
            return Err(D::Error::custom("a trace has 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

impl JsonSchema for Trace {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Trace".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_is_written_and_nothing_else_is() {
        let trace = Trace::from(RequestId::from_bits(0xbeef));
        let text = serde_json::to_string(&trace).unwrap();
        assert_eq!(text, r#""0000000000000000000000000000beef""#);
        assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), trace);
        for wrong in [
            "",
            "beef",
            "0000000000000000000000000000BEEF",
            "+000000000000000000000000000beef",
            "00000000000000000000000000000beef",
        ] {
            assert!(
                serde_json::from_value::<Trace>(wrong.into()).is_err(),
                "{wrong}"
            );
        }
    }
}
