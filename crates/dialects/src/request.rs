//! What a request asks for, read from its bytes without changing them.

mod pictures;
mod usage_option;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use self::{pictures::Pictures, usage_option::UsageOption};
use crate::endpoint::Dialect;

/// Largest request that is read: what Anthropic accepts.
pub const MAX_REQUEST_BYTES: usize = 32 << 20;

/// What an image counts for in an estimate. A full-size image is some 1,600 tokens for most
/// models and under 5,000 for the ones that see finest.
pub const TOKENS_PER_IMAGE: u64 = 5_000;

/// Bytes of a request for each token of the estimate. Text and code in English have 3.5 to
/// 4.5 bytes a token, JSON's own characters included; dense text of other scripts can have
/// fewer than 3, which is what the settlement afterwards is for.
const BYTES_PER_TOKEN: u64 = 3;

/// Longest model name that is taken.
const MODEL_BYTES: usize = 256;

/// Why a request cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body is larger than [`MAX_REQUEST_BYTES`].
    #[error(
        "the request has {size} bytes, and at most {MAX_REQUEST_BYTES} are taken: make it smaller"
    )]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// The body is not what the dialect asks for.
    #[error("the request is not valid {dialect} JSON")]
    Malformed {
        /// The dialect that it was read as.
        dialect: Dialect,
        /// What was wrong and where.
        source: serde_json::Error,
    },
    /// The model's name is empty or too long.
    #[error("the request names no usable model: its name must have 1 to {MODEL_BYTES} bytes")]
    Model,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The dialect that it was read as.
    pub dialect: Dialect,
    /// The model, in the caller's word.
    pub model: String,
    /// The most tokens that it lets each answer have. `None`: the model's own limit.
    pub max_output: Option<u64>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// How many answers it asks for (`n`); each costs.
    pub answers: u64,
    /// Roughly how many tokens the model will read; rather too many than too few.
    pub input_estimate: u64,
    /// Images among them.
    pub images: u64,
    /// Whether tools are offered: a request without any is often housekeeping (a title).
    pub has_tools: bool,
    /// Tools that the provider itself would run, such as a web search, and what else lets it
    /// reach the world in the caller's place. Who has no network must not get one this way.
    pub remote_tools: Vec<String>,
    /// A class of service that costs more than the list price (`service_tier=priority`).
    pub premium: Option<String>,
    /// Where the caller asks for the usage at the end of a Chat Completions stream.
    usage_option: UsageOption,
}

/// Fields of both dialects that matter; a field that comes twice is an error, so that no two
/// readers can disagree about it.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(borrow, default)]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow, default)]
    mcp_servers: Option<&'a RawValue>,
    #[serde(borrow, default)]
    web_search_options: Option<&'a RawValue>,
    #[serde(borrow, default)]
    service_tier: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    speed: Option<Cow<'a, str>>,
}

/// A value that is there, even if it is `null`.
fn even_null<'de: 'a, 'a, D>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// When the body is too large, is not JSON of this dialect, has one of the fields that
    /// matter twice, or names no model.
    pub fn inspect(dialect: Dialect, body: &[u8]) -> Result<Self, Error> {
        if body.len() > MAX_REQUEST_BYTES {
            return Err(Error::TooLarge { size: body.len() });
        }
        let fields: Fields<'_> =
            serde_json::from_slice(body).map_err(|source| Error::Malformed { dialect, source })?;
        if fields.model.is_empty() || fields.model.len() > MODEL_BYTES {
            return Err(Error::Model);
        }
        let pictures = match fields.messages {
            // Looking for a word is much cheaper than reading all messages.
            Some(messages) if contains(messages.get().as_bytes(), b"image") => {
                Pictures::of_messages(messages)
            }
            _ => Pictures::default(),
        };
        let text = (body.len() as u64).saturating_sub(pictures.payload);
        let stream = fields.stream.unwrap_or(false);
        let (max_output, answers) = match dialect {
            Dialect::ChatCompletions => (
                match (fields.max_completion_tokens, fields.max_tokens) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                },
                fields.n.unwrap_or(1).max(1),
            ),
            Dialect::Messages => (fields.max_tokens, 1),
        };
        Ok(Self {
            dialect,
            model: fields.model.clone().into_owned(),
            max_output,
            stream,
            answers,
            input_estimate: text
                .div_ceil(BYTES_PER_TOKEN)
                .saturating_add(pictures.count.saturating_mul(TOKENS_PER_IMAGE)),
            images: pictures.count,
            has_tools: fields
                .tools
                .is_some_and(|t| !matches!(t.get(), "null" | "[]")),
            remote_tools: remote_tools(&fields),
            premium: premium(&fields),
            usage_option: if stream && dialect == Dialect::ChatCompletions {
                UsageOption::find(body, fields.stream_options)
            } else {
                UsageOption::Present
            },
        })
    }

    /// Whether the stream that this request asks for would not tell what it used: a Chat
    /// Completions stream without `stream_options.include_usage`.
    #[must_use]
    pub fn needs_usage_option(&self) -> bool {
        self.usage_option != UsageOption::Present
    }

    /// The same request, with `stream_options.include_usage` set and no other byte changed.
    /// `body` must be what was inspected. `None` when nothing is to be done.
    #[must_use]
    pub fn with_usage_option(&self, body: &[u8]) -> Option<Vec<u8>> {
        let (start, end, with) = match self.usage_option {
            UsageOption::Present => return None,
            UsageOption::Replace { start, end, with } => (start, end, with),
            UsageOption::Absent => {
                let close = body.iter().rposition(|b| *b == b'}')?;
                // There is at least the model before it, so a comma is always right.
                (close, close, ",\"stream_options\":{\"include_usage\":true}")
            }
        };
        let mut out = Vec::with_capacity(body.len() + with.len());
        out.extend_from_slice(body.get(..start)?);
        out.extend_from_slice(with.as_bytes());
        out.extend_from_slice(body.get(end..)?);
        Some(out)
    }
}

/// Kinds of tools that the caller runs itself: the beginnings of their `type`. Anthropic dates
/// them (`bash_20250124`). A search among the tools of a request reaches nothing beyond it.
const LOCAL_TOOLS: [&str; 7] = [
    "function",
    "custom",
    "bash_",
    "text_editor_",
    "computer_",
    "memory_",
    "tool_search_tool_",
];

/// The most remote tools that are named.
const MAX_REMOTE_TOOLS: usize = 16;

/// Whatever is not known to be run by the caller counts as run by the provider.
fn remote_tools(fields: &Fields<'_>) -> Vec<String> {
    #[derive(Deserialize)]
    struct Offered<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    let present =
        |value: Option<&RawValue>| value.is_some_and(|value| !matches!(value.get(), "null" | "[]"));
    let mut remote = Vec::new();
    if present(fields.mcp_servers) {
        remote.push("mcp_servers".to_owned());
    }
    if present(fields.web_search_options) {
        remote.push("web_search_options".to_owned());
    }
    let Some(tools) = fields.tools else {
        return remote;
    };
    // All at once where they have the shape that they should, else one by one.
    let offered: Vec<Option<Offered<'_>>> = serde_json::from_str(tools.get())
        .map(|all: Vec<Offered<'_>>| all.into_iter().map(Some).collect())
        .unwrap_or_else(|_| {
            let raw: Vec<&RawValue> = serde_json::from_str(tools.get()).unwrap_or_default();
            raw.into_iter()
                .map(|tool| serde_json::from_str(tool.get()).ok())
                .collect()
        });
    for tool in offered {
        let kind = match tool {
            Some(Offered { kind: None }) => continue,
            Some(Offered { kind: Some(kind) }) => kind,
            None => Cow::Borrowed("unreadable"),
        };
        let local = LOCAL_TOOLS.iter().any(|known| {
            if known.ends_with('_') {
                kind.starts_with(known)
            } else {
                kind == *known
            }
        });
        let name: String = kind.chars().take(60).collect();
        if !local && !remote.contains(&name) && remote.len() < MAX_REMOTE_TOOLS {
            remote.push(name);
        }
    }
    remote
}

/// A class of service above the standard one.
fn premium(fields: &Fields<'_>) -> Option<String> {
    let named = |key: &str, value: &Option<Cow<'_, str>>, standard: &[&str]| {
        let value = value.as_deref()?;
        let shown: String = value.chars().take(40).collect();
        (!standard.contains(&value)).then(|| format!("{key}={shown}"))
    };
    let tiers = ["auto", "default", "standard", "standard_only", "flex"];
    named("service_tier", &fields.service_tier, &tiers)
        .or_else(|| named("speed", &fields.speed, &["standard"]))
}

/// The elements of a JSON array that have the shape of `T`; others are passed over.
fn items<'a, T: Deserialize<'a>>(array: &'a RawValue) -> impl Iterator<Item = T> {
    let raw: Vec<&'a RawValue> = serde_json::from_str(array.get()).unwrap_or_default();
    raw.into_iter()
        .filter_map(|item| serde_json::from_str(item.get()).ok())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn chat(body: &str) -> Request {
        Request::inspect(Dialect::ChatCompletions, body.as_bytes()).unwrap()
    }

    #[test]
    fn what_a_request_asks_for_is_read_from_either_dialect() {
        let request = chat(
            r#"{"model":"gpt-\u0035","max_completion_tokens":700,"stream":true,"n":3,
                "messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function"}]}"#,
        );
        assert_eq!(request.model, "gpt-5");
        assert_eq!(request.max_output, Some(700));
        assert_eq!(request.answers, 3);
        assert!(request.stream && request.has_tools);
        let body = r#"{"model":"claude","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[],"n":5}"#;
        let request = Request::inspect(Dialect::Messages, body.as_bytes()).unwrap();
        assert_eq!((request.max_output, request.answers), (Some(9), 1));
        assert!(!request.stream && !request.has_tools && !request.needs_usage_option());
        assert_eq!(request.input_estimate, (body.len() as u64).div_ceil(3));
    }

    #[test]
    fn a_field_that_comes_twice_or_has_the_wrong_type_is_refused() {
        for body in [
            r#"{"model":"allowed","model":"forbidden"}"#,
            r#"{"model":"allowed","mod\u0065l":"forbidden"}"#,
            r#"{"model":7}"#,
            r#"{"model":""}"#,
            r#"{}"#,
            r#"[]"#,
            r#"{"model":"x"} {"model":"y"}"#,
            r#"{"model":"x","max_tokens":-1}"#,
            r#"{"model":"x","stream":"yes"}"#,
            r#"{"model":"x""#,
            "",
        ] {
            for dialect in Dialect::ALL {
                assert!(
                    Request::inspect(dialect, body.as_bytes()).is_err(),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn nesting_without_end_is_no_danger() {
        let deep = format!(r#"{{"model":"x","messages":{}}}"#, "[".repeat(1_000_000));
        assert!(Request::inspect(Dialect::Messages, deep.as_bytes()).is_err());
        let closed = format!(
            r#"{{"model":"x","messages":[{{"content":{}"image"{}}}]}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        drop(Request::inspect(Dialect::Messages, closed.as_bytes()));
    }

    #[test]
    fn what_the_provider_would_run_in_the_callers_place_is_named() {
        let remote = |body: Value| {
            Request::inspect(Dialect::Messages, body.to_string().as_bytes())
                .unwrap()
                .remote_tools
        };
        let own = json!({"model": "m", "tools": [
            {"name": "Bash", "input_schema": {"type": "web_search_20250305"}},
            {"type": "custom", "name": "x"}, {"type": "function", "function": {}},
            {"type": "bash_20250124", "name": "bash"}], "mcp_servers": []});
        assert_eq!(remote(own), Vec::<String>::new());
        let others = json!({"model": "m", "tools": [
            {"type": "web_search_20250305", "name": "web_search"}, {"type": "functionary"}, 7],
            "mcp_servers": [{}], "web_search_options": {}});
        assert_eq!(
            remote(others),
            [
                "mcp_servers",
                "web_search_options",
                "web_search_20250305",
                "functionary",
                "unreadable"
            ]
        );
        let escaped = br#"{"model":"m","tools":[{"t\u0079pe":"web_fetch_1"}]}"#;
        let request = Request::inspect(Dialect::Messages, escaped).unwrap();
        assert_eq!(request.remote_tools, ["web_fetch_1"]);
    }

    #[test]
    fn a_dearer_class_of_service_is_named() {
        assert_eq!(chat(r#"{"model":"m","service_tier":"auto"}"#).premium, None);
        let priority = chat(r#"{"model":"m","service_tier":"priority"}"#);
        assert_eq!(priority.premium.as_deref(), Some("service_tier=priority"));
        let fast = chat(r#"{"model":"m","speed":"fast"}"#);
        assert_eq!(fast.premium.as_deref(), Some("speed=fast"));
    }

    #[test]
    fn images_count_as_images_and_only_where_images_stand() {
        let payload = "A".repeat(300_000);
        let source = json!({"type": "base64", "media_type": "image/png", "data": payload});
        let image = json!({"type": "image", "source": source});
        let inspect = |content: Value| {
            let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
            Request::inspect(Dialect::Messages, body.to_string().as_bytes()).unwrap()
        };
        let direct = inspect(json!([image]));
        assert_eq!(direct.images, 1);
        assert!(direct.input_estimate < TOKENS_PER_IMAGE + 200);
        let nested = inspect(json!([{"type": "tool_result", "content": [image, image]}]));
        assert_eq!(nested.images, 2);
        let disguised = inspect(json!([{"type": "tool_use", "input": image}]));
        assert_eq!(disguised.images, 0);
        assert!(disguised.input_estimate > 99_000);
        let body = json!({"model": "m", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{payload}")}}]}]});
        assert_eq!(chat(&body.to_string()).images, 1);
    }

    #[test]
    fn the_usage_option_is_added_and_nothing_else_changes() {
        let on = "\"stream_options\":{\"include_usage\":true}";
        for (before, after) in [
            (
                r#"{"model":"m","stream":true}"#,
                format!(r#"{{"model":"m","stream":true,{on}}}"#),
            ),
            (
                "{\"stream\" : true, \"model\":\"m}\"\n } \n",
                format!("{{\"stream\" : true, \"model\":\"m}}\"\n ,{on}}} \n"),
            ),
            (
                r#"{"model":"m","stream":true,"stream_options":null}"#,
                format!(r#"{{"model":"m","stream":true,{on}}}"#),
            ),
            (
                r#"{"model":"m","stream_options":{},"stream":true}"#,
                format!(r#"{{"model":"m",{on},"stream":true}}"#),
            ),
            (
                r#"{"model":"m","stream":true,"stream_options":{ "include_usage" : false }}"#,
                r#"{"model":"m","stream":true,"stream_options":{ "include_usage" : true }}"#.into(),
            ),
            (
                r#"{"model":"m","stream":true,"stream_options":{"x":1}}"#,
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":1}}"#
                    .into(),
            ),
        ] {
            let request = chat(before);
            assert!(request.needs_usage_option(), "{before}");
            let changed = request.with_usage_option(before.as_bytes()).unwrap();
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed, after);
            assert!(!chat(&changed).needs_usage_option());
        }
        for untouched in [
            r#"{"model":"m"}"#,
            r#"{"model":"m","stream":false}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"model":"m","stream":true,"stream_options":"odd"}"#,
        ] {
            let request = chat(untouched);
            assert!(!request.needs_usage_option());
            assert_eq!(request.with_usage_option(untouched.as_bytes()), None);
        }
    }
}
