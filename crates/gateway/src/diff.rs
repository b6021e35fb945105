//! The first field in which two requests differ.

use serde_json::Value;

/// How much of a value is shown, in characters.
const SHOWN_CHARS: usize = 120;

/// What stands for a value that is not there.
pub(crate) const ABSENT: &str = "(absent)";

/// A field, and what it was and is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) field: String,
    pub(crate) recorded: String,
    pub(crate) now: String,
}

/// The first difference of two bodies: as JSON where both are, field by field, else as bytes.
pub(crate) fn of_bodies(recorded: &[u8], now: &[u8]) -> Option<Difference> {
    if recorded == now {
        return None;
    }
    let both = serde_json::from_slice::<Value>(recorded)
        .ok()
        .zip(serde_json::from_slice::<Value>(now).ok());
    match both {
        Some((recorded, now)) => {
            let mut path = String::new();
            of_values(&mut path, &recorded, &now)
        }
        None => Some(Difference {
            field: "(body)".into(),
            recorded: shown(&String::from_utf8_lossy(recorded), 0),
            now: shown(&String::from_utf8_lossy(now), 0),
        }),
    }
}

/// Depth is bounded by what the parser took.
fn of_values(path: &mut String, recorded: &Value, now: &Value) -> Option<Difference> {
    let length = path.len();
    match (recorded, now) {
        (Value::Object(old), Value::Object(new)) => {
            let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
            let pairs = old
                .iter()
                .map(|(key, value)| (key, Some(value), new.get(key)))
                .chain(added.map(|(key, value)| (key, None, Some(value))));
            for (key, old, new) in pairs {
                if !path.is_empty() {
                    path.push('.');
                }
                path.extend(key.chars().take(SHOWN_CHARS));
                let found = of_options(path, old, new);
                path.truncate(length);
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                path.push_str(&format!("[{index}]"));
                let found = of_options(path, old.get(index), new.get(index));
                path.truncate(length);
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        (Value::String(old), Value::String(new)) if old != new => {
            let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b);
            let from = same.count().saturating_sub(SHOWN_CHARS / 4);
            Some(Difference {
                field: path.clone(),
                recorded: shown(old, from),
                now: shown(new, from),
            })
        }
        (old, new) if old != new => Some(Difference {
            field: path.clone(),
            recorded: shown(&old.to_string(), 0),
            now: shown(&new.to_string(), 0),
        }),
        _ => None,
    }
}

fn of_options(path: &mut String, old: Option<&Value>, new: Option<&Value>) -> Option<Difference> {
    match (old, new) {
        (Some(old), Some(new)) => of_values(path, old, new),
        (None, None) => None,
        (old, new) => {
            let text = |value: Option<&Value>| {
                value.map_or(ABSENT.to_owned(), |value| shown(&value.to_string(), 0))
            };
            Some(Difference {
                field: path.clone(),
                recorded: text(old),
                now: text(new),
            })
        }
    }
}

/// A part of a text that fits on a line, from the `from`th character on.
fn shown(text: &str, from: usize) -> String {
    let mut out = String::new();
    if from > 0 {
        out.push('…');
    }
    let mut rest = text.chars().skip(from);
    out.extend(rest.by_ref().take(SHOWN_CHARS).flat_map(|c| {
        let escaped = c.is_control();
        escaped
            .then(|| c.escape_default())
            .into_iter()
            .flatten()
            .chain((!escaped).then_some(c))
    }));
    if rest.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_that_differs_is_named() {
        for (recorded, now, field, old, new) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":3}"#, "a", "1", "3"),
            (
                r#"{"messages":[{},{"content":[{"text":"one"}]}]}"#,
                r#"{"messages":[{},{"content":[{"text":"two"}]}]}"#,
                "messages[1].content[0].text",
                "one",
                "two",
            ),
            (r#"{"a":[1]}"#, r#"{"a":[1,2]}"#, "a[1]", ABSENT, "2"),
            (r#"{"a":1}"#, r#"{}"#, "a", "1", ABSENT),
            (r#"{}"#, r#"{"z":null}"#, "z", ABSENT, "null"),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, "a", "1", "\"1\""),
            ("not json", r#"{}"#, "(body)", "not json", "{}"),
        ] {
            let found = of_bodies(recorded.as_bytes(), now.as_bytes()).unwrap();
            let found = (&*found.field, &*found.recorded, &*found.now);
            assert_eq!(found, (field, old, new), "{recorded} {now}");
        }
    }

    #[test]
    fn order_and_white_space_are_no_difference() {
        assert_eq!(
            of_bodies(
                br#"{"a":[1,{"c":1,"d":2}]}"#,
                b"{ \"a\": [1, {\"d\":2, \"c\":1}] }"
            ),
            None
        );
    }

    #[test]
    fn a_long_text_is_shown_where_it_differs() {
        let long = "x".repeat(10_000);
        let old = format!(r#"{{"a":"{long}old\nline"}}"#);
        let new = format!(r#"{{"a":"{long}new{long}"}}"#);
        let found = of_bodies(old.as_bytes(), new.as_bytes()).unwrap();
        assert!(found.recorded.ends_with("xold\\nline"), "{found:?}");
        assert!(found.now.contains("xnewx") && found.now.ends_with('…'));
        assert!(found.now.len() < 400);
    }
}
