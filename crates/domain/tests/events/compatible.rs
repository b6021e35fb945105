//! Whether the schema of events has evolved so that every reader goes on: programs that know the
//! old schema read new events, and Skep reads old ones.
//!
//! New types of events, new states and new optional fields are fine. What is there keeps its name
//! and its type, and is there as surely as before.

use serde_json::Value;
use std::collections::BTreeMap;

/// The deepest nesting that is looked at; the schema of events is far from it.
const MAX_DEPTH: usize = 32;

/// Everything that a reader of the old schema would trip over, by its name.
pub(crate) fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut pair = Pair {
        old,
        new,
        found: Vec::new(),
    };
    pair.compare("", old, new, 0);
    pair.found
}

struct Pair<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
}

impl<'a> Pair<'a> {
    fn compare(&mut self, name: &str, old: &'a Value, new: &'a Value, depth: usize) {
        assert!(depth < MAX_DEPTH, "{name} is nested too deeply");
        let (old, new) = (resolved(self.old, old), resolved(self.new, new));
        self.values(name, old, new);
        self.variants(name, old, new, depth);
        self.fields(name, old, new, depth);
        if let Some(items) = old.get("items") {
            match new.get("items") {
                Some(other) => self.compare(&format!("{name}[]"), items, other, depth + 1),
                None => self.breaks(name, "is not a list any more"),
            }
        }
    }

    fn breaks(&mut self, name: &str, what: &str) {
        let name = if name.is_empty() { "an event" } else { name };
        self.found.push(format!("{name} {what}"));
    }

    /// What kind of value it is.
    fn values(&mut self, name: &str, old: &Value, new: &Value) {
        let (before, after) = (types(old), types(new));
        if before != after {
            let what = format!("was {} and is {}", before.join(" or "), after.join(" or "));
            self.breaks(name, &what);
        }
        for key in ["const", "pattern"] {
            if old.get(key) != new.get(key) {
                self.breaks(name, &format!("has another `{key}`"));
            }
        }
    }

    /// What it may be: types of events, kinds of payloads, words of an enumeration.
    fn variants(&mut self, name: &str, old: &'a Value, new: &'a Value, depth: usize) {
        let before = variants(self.old, old);
        let after = variants(self.new, new);
        for (label, variant) in &before {
            let inner = joined(name, label);
            match after.get(label) {
                Some(other) => self.compare(&inner, variant, other, depth + 1),
                None => self.breaks(&inner, "is gone"),
            }
        }
        if after.contains_key("null") && !before.contains_key("null") {
            self.breaks(name, "may be null now");
        }
    }

    fn fields(&mut self, name: &str, old: &'a Value, new: &'a Value, depth: usize) {
        let (before, after) = (properties(old), properties(new));
        for (field, schema) in &before {
            let inner = joined(name, field);
            let Some(other) = after.get(field) else {
                self.breaks(&inner, "is gone");
                continue;
            };
            if requires(old, field) && !requires(new, field) {
                self.breaks(&inner, "was always there and may be missing now");
            }
            if !requires(old, field) && requires(new, field) {
                self.breaks(&inner, "is required now, and old events may not have it");
            }
            self.compare(&inner, schema, other, depth + 1);
        }
        for field in after.keys() {
            if !before.contains_key(field) && requires(new, field) {
                let inner = joined(name, field);
                self.breaks(&inner, "is new and required, and old events do not have it");
            }
        }
    }
}

fn joined(name: &str, part: &str) -> String {
    match (name, part) {
        ("", part) => part.to_owned(),
        (name, "value") => name.to_owned(),
        (name, part) => format!("{name}.{part}"),
    }
}

/// What a reference stands for.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let Some(target) = schema.get("$ref").and_then(Value::as_str) else {
        return schema;
    };
    let place = target.strip_prefix('#').expect("a reference within");
    root.pointer(place).expect("what is referred to")
}

fn types(schema: &Value) -> Vec<String> {
    let mut types: Vec<String> = match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(some)) => some
            .iter()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    types.sort();
    types
}

fn properties(schema: &Value) -> BTreeMap<&str, &Value> {
    let found = schema.get("properties").and_then(Value::as_object);
    found
        .into_iter()
        .flatten()
        .map(|(name, schema)| (name.as_str(), schema))
        .collect()
}

fn requires(schema: &Value, field: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|all| all.iter().any(|one| one == field))
}

/// What it may be, by what tells one from the other.
fn variants<'a>(root: &'a Value, schema: &'a Value) -> BTreeMap<String, &'a Value> {
    let mut all = BTreeMap::new();
    for key in ["oneOf", "anyOf"] {
        for variant in schema
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            all.insert(label(resolved(root, variant)), variant);
        }
    }
    let words = schema.get("enum").and_then(Value::as_array);
    for word in words.into_iter().flatten() {
        let word = word.as_str().expect("a word");
        all.insert(word.to_owned(), &Value::Null);
    }
    all
}

fn label(variant: &Value) -> String {
    let constant = |schema: Option<&Value>| {
        let found = schema?.get("const")?.as_str()?;
        Some(found.to_owned())
    };
    let tag = |name: &str| constant(variant.get("properties")?.get(name));
    constant(Some(variant))
        .or_else(|| tag("type"))
        .or_else(|| tag("kind"))
        .unwrap_or_else(|| match types(variant).as_slice() {
            [one] if one == "null" => "null".to_owned(),
            _ => "value".to_owned(),
        })
}
