//! The images of a request.

use super::items;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Images in a request's messages, and the bytes of their payload, which are no text.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    pub(super) count: u64,
    pub(super) payload: u64,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

impl Pictures {
    /// Only what stands where a provider looks for an image is taken for one, so that text
    /// cannot pass as a picture to look cheaper.
    pub(super) fn of_messages(messages: &RawValue) -> Self {
        let mut pictures = Self::default();
        for message in items::<Message<'_>>(messages) {
            pictures.add_content(message.content, 0);
        }
        pictures
    }

    fn add_content(&mut self, content: Option<&RawValue>, depth: u8) {
        let Some(content) = content.filter(|c| c.get().starts_with('[')) else {
            return;
        };
        for part in items::<Part<'_>>(content) {
            let payload = match part.kind.as_deref() {
                Some("image") => part.source,
                Some("image_url") => part.image_url,
                Some("tool_result") if depth == 0 => {
                    self.add_content(part.content, 1);
                    continue;
                }
                _ => continue,
            };
            self.count += 1;
            self.payload += payload.map_or(0, |p| p.get().len() as u64);
        }
    }
}
