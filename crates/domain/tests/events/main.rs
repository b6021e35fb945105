//! The published schema of events, and what its readers are promised.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong in a test ends the test"
)]

mod compatible;

use compatible::breaks;
use serde_json::{Value, json};
use skep_domain::event::{Envelope, schema};
use std::collections::BTreeSet;

/// The schema of the last release. At a release, `docs/events.schema.json` takes its place.
const RELEASED: &str = include_str!("released.schema.json");
/// Events as Skep has written them, one of each kind and more. Lines are added, never changed.
const RECORDED: &str = include_str!("recorded.jsonl");

#[test]
fn readers_of_the_last_release_read_the_events_of_this_one() {
    let released: Value = serde_json::from_str(RELEASED).unwrap();
    let found = breaks(&released, &schema());
    assert!(
        found.is_empty(),
        "these changes break readers of events:\n{}",
        found.join("\n")
    );
}

#[test]
fn events_that_were_written_once_are_read_for_ever() {
    let mut kinds = BTreeSet::new();
    for line in RECORDED.lines() {
        let envelope: Envelope =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let recorded: Value = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_value(&envelope).unwrap(), recorded);
        fits(&schema(), &schema(), &recorded, line);
        kinds.insert(envelope.body.kind().to_owned());
        if let Some(kind) = recorded["payload"]["event"]["kind"].as_str() {
            kinds.insert(format!("agent {kind}"));
        }
    }
    let schema = schema();
    let tags = |variants: &Value, tag: &str, prefix: &str| -> BTreeSet<String> {
        let variants = variants.as_array().unwrap().iter();
        let named = variants.map(|one| one["properties"][tag]["const"].as_str().unwrap());
        named.map(|name| format!("{prefix}{name}")).collect()
    };
    let mut all = tags(&schema["oneOf"], "type", "");
    all.extend(tags(&schema["$defs"]["Agent"]["oneOf"], "kind", "agent "));
    assert_eq!(kinds, all, "record an event of each kind");
}

/// Asserts that an event has the fields that the schema says, and no others.
fn fits(root: &Value, schema: &Value, event: &Value, line: &str) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(target) => root.pointer(&target[1..]).unwrap(),
        None => schema,
    };
    let fits_here = |variant: &Value| {
        let variant = match variant.get("$ref").and_then(Value::as_str) {
            Some(target) => root.pointer(&target[1..]).unwrap(),
            None => variant,
        };
        let tags = ["type", "kind"].iter().all(|tag| {
            let wanted = &variant["properties"][*tag]["const"];
            wanted.is_null() || *wanted == event[*tag]
        });
        let is_of_type = match variant["type"].as_str() {
            Some("null") => event.is_null(),
            Some("object") => event.is_object(),
            Some("string") => event.is_string(),
            _ => true,
        };
        tags && is_of_type && (variant["const"].is_null() || variant["const"] == *event)
    };
    let mut known: Vec<&Value> = vec![schema];
    for key in ["oneOf", "anyOf"] {
        if let Some(variants) = schema[key].as_array() {
            let variant = variants.iter().find(|one| fits_here(one));
            let variant = variant.unwrap_or_else(|| panic!("{event} is nothing known: {line}"));
            if schema.get("properties").is_none() {
                return fits(root, variant, event, line);
            }
            known.push(variant);
        }
    }
    for part in &known {
        for field in part["required"].as_array().into_iter().flatten() {
            let field = field.as_str().unwrap();
            assert!(event.get(field).is_some(), "{field} is missing: {line}");
        }
    }
    for (field, value) in event.as_object().into_iter().flatten() {
        let found = known.iter().find_map(|part| part["properties"].get(field));
        let found = found.unwrap_or_else(|| panic!("{field} is not in the schema: {line}"));
        fits(root, found, value, line);
    }
}

/// What is said of a schema in which something was replaced.
fn after(place: &str, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let old = schema();
    let mut new = old.clone();
    change(new.pointer_mut(place).unwrap_or_else(|| panic!("{place}")));
    breaks(&old, &new)
}

/// Where the payload of a type of event is.
fn payload(kind: &str) -> String {
    let schema = schema();
    let types = schema["oneOf"].as_array().unwrap();
    let place = types
        .iter()
        .position(|one| one["properties"]["type"]["const"] == kind)
        .unwrap();
    format!("/oneOf/{place}/properties/payload")
}

#[test]
fn a_type_of_event_that_goes_is_refused_by_name() {
    let found = after("/oneOf", |types| {
        let types = types.as_array_mut().unwrap();
        types.retain(|one| one["properties"]["type"]["const"] != "published");
    });
    assert_eq!(found, ["published is gone"]);
}

#[test]
fn a_field_that_goes_or_changes_its_type_is_refused_by_name() {
    let found = after(&payload("note"), |note| {
        note["properties"]["text"]["type"] = json!("integer");
    });
    assert_eq!(found, ["note.payload.text was string and is integer"]);
    let found = after(&payload("planned"), |planned| {
        planned["properties"]
            .as_object_mut()
            .unwrap()
            .remove("note");
    });
    assert_eq!(found, ["planned.payload.note is gone"]);
    let found = after("/$defs/PlannedJob/properties", |job| {
        job["name"] = json!({"type": ["string", "null"]});
    });
    assert_eq!(
        found,
        ["planned.payload.jobs[].name was string and is null or string"]
    );
    let found = after("/properties", |envelope| {
        envelope.as_object_mut().unwrap().remove("sequence");
    });
    assert_eq!(found, ["sequence is gone"]);
}

#[test]
fn a_field_that_is_less_or_more_sure_than_before_is_refused_by_name() {
    let found = after(&payload("note"), |note| note["required"] = json!([]));
    assert_eq!(
        found,
        ["note.payload.text was always there and may be missing now"]
    );
    let found = after(&payload("job_changed"), |job| {
        job["required"].as_array_mut().unwrap().push(json!("until"));
    });
    assert_eq!(
        found,
        ["job_changed.payload.until is required now, and old events may not have it"]
    );
    let found = after(&payload("note"), |note| {
        note["properties"]["by"] = json!({"type": "string"});
        note["required"].as_array_mut().unwrap().push(json!("by"));
    });
    assert_eq!(
        found,
        ["note.payload.by is new and required, and old events do not have it"]
    );
}

#[test]
fn a_word_that_goes_and_an_id_of_another_form_are_refused_by_name() {
    let found = after("/$defs/Verdict/oneOf", |words| {
        words
            .as_array_mut()
            .unwrap()
            .retain(|one| one["const"] != "broken");
    });
    assert_eq!(found, ["checked.payload.evidence.verdict.broken is gone"]);
    let found = after("/$defs/EventId", |id| id["pattern"] = json!("^[0-9]+$"));
    assert_eq!(
        found,
        ["id has another `pattern`", "parent has another `pattern`"]
    );
    let found = after("/$defs/Agent/oneOf", |kinds| {
        kinds
            .as_array_mut()
            .unwrap()
            .retain(|one| one["properties"]["kind"]["const"] != "usage");
    });
    assert_eq!(found, ["agent.payload.event.usage is gone"]);
}

#[test]
fn new_types_of_events_new_words_and_new_optional_fields_are_fine() {
    let found = after("/oneOf", |types| {
        types.as_array_mut().unwrap().push(json!({
            "type": "object",
            "properties": {"type": {"type": "string", "const": "promoted"}},
            "required": ["type"],
        }));
    });
    assert!(found.is_empty(), "{found:?}");
    let found = after("/$defs/RequestState/oneOf", |words| {
        let word = json!({"type": "string", "const": "asleep"});
        words.as_array_mut().unwrap().push(word);
    });
    assert!(found.is_empty(), "{found:?}");
    let found = after(&payload("note"), |note| {
        note["properties"]["by"] = json!({"type": ["string", "null"]});
        note["description"] = json!("other words");
    });
    assert!(found.is_empty(), "{found:?}");
}
