//! The one field of a request that is written over: the model's name.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
}

/// A request in pieces that, one after the other, are the same body with another model's name.
/// No other byte differs, and nothing but the name is copied. `None` when there is no such field.
pub(crate) fn with_model(body: &Bytes, model: &str) -> Option<Vec<Bytes>> {
    let named: Named<'_> = serde_json::from_slice(body).ok()?;
    let old = named.model.get();
    let start = (old.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(old.len())?;
    if body.get(start..end)? != old.as_bytes() {
        return None;
    }
    let new = serde_json::to_string(model).ok()?;
    if new == old {
        return Some(vec![body.clone()]);
    }
    Some(vec![
        body.slice(..start),
        Bytes::from(new),
        body.slice(end..),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_of_the_outer_model_changes() {
        for (before, after) in [
            (r#"{"model":"skep"}"#, r#"{"model":"m/x"}"#),
            (
                "{ \"messages\": [{\"model\":\"skep\"}],\n\t\"model\" : \"sk\\u0065p\" , \"x\":1.0 }\n",
                "{ \"messages\": [{\"model\":\"skep\"}],\n\t\"model\" : \"m/x\" , \"x\":1.0 }\n",
            ),
            (r#"{"mod\u0065l":"skep"}"#, r#"{"mod\u0065l":"m/x"}"#),
            (r#"{"model":"m/x"}"#, r#"{"model":"m/x"}"#),
        ] {
            let pieces = with_model(&Bytes::copy_from_slice(before.as_bytes()), "m/x").unwrap();
            assert_eq!(String::from_utf8(pieces.concat()).unwrap(), after);
        }
        assert!(with_model(&Bytes::from_static(b"{}"), "m").is_none());
        let quoted = with_model(&Bytes::from_static(br#"{"model":"a"}"#), "a\"b").unwrap();
        assert_eq!(quoted.concat(), br#"{"model":"a\"b"}"#);
    }
}
