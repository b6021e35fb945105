//! Whether a stream of Chat Completions tells what it used, and where in the request it is asked to.

use super::even_null;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageOption {
    /// Asked for, or never needed.
    Present,
    /// No `stream_options`.
    Absent,
    /// `stream_options` that can be written over: these bytes, with these instead.
    Replace {
        start: usize,
        end: usize,
        with: &'static str,
    },
}

impl UsageOption {
    pub(super) fn find(body: &[u8], options: Option<&RawValue>) -> Self {
        #[derive(Default, Deserialize)]
        struct Options<'a> {
            #[serde(borrow, default, deserialize_with = "even_null")]
            include_usage: Option<&'a RawValue>,
        }
        let Some(options) = options else {
            return Self::Absent;
        };
        let Some((start, end)) = place(body, options) else {
            return Self::Present;
        };
        match serde_json::from_str::<Option<Options<'_>>>(options.get())
            .map(Option::unwrap_or_default)
        {
            Ok(Options {
                include_usage: Some(value),
            }) if value.get() == "true" => Self::Present,
            Ok(Options {
                include_usage: Some(value),
            }) => match place(body, value) {
                Some((start, end)) => Self::Replace {
                    start,
                    end,
                    with: "true",
                },
                None => Self::Present,
            },
            Ok(Options {
                include_usage: None,
            }) => match options.get().strip_prefix('{') {
                // After the brace, before what else there may be.
                Some(rest) if rest.trim_start() != "}" => Self::Replace {
                    start: start + 1,
                    end: start + 1,
                    with: "\"include_usage\":true,",
                },
                _ => Self::Replace {
                    start,
                    end,
                    with: "{\"include_usage\":true}",
                },
            },
            // Not an object: the provider says so better than Skep.
            Err(_) => Self::Present,
        }
    }
}

/// Where a borrowed value lies in the body that it was read from.
fn place(body: &[u8], value: &RawValue) -> Option<(usize, usize)> {
    let text = value.get();
    let start = (text.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(text.len())?;
    (body.get(start..end)? == text.as_bytes()).then_some((start, end))
}
