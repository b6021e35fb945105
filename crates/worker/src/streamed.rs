//! Streamed text of an agent on its way to becoming an event.

use domain::event::{Agent, MAX_TEXT};
use gateway::Gateway;
use std::time::Duration;
use tokio::time::Instant;

/// Streamed text waits so long, or until there is so much of it, before it becomes an event.
const COALESCE: Duration = Duration::from_millis(50);
const COALESCE_BYTES: usize = 4 * 1024;

/// Text that has not become an event yet.
pub(crate) struct Streamed {
    /// Whether the agent thinks instead of speaking.
    pub(crate) reasoning: bool,
    text: String,
    since: Instant,
}

impl Streamed {
    pub(crate) fn new(reasoning: bool) -> Self {
        Self {
            reasoning,
            text: String::new(),
            since: Instant::now(),
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// When it has waited long enough.
    pub(crate) fn due(&self) -> Instant {
        self.since + COALESCE
    }

    pub(crate) fn is_due(&self) -> bool {
        self.text.len() >= COALESCE_BYTES || self.due() <= Instant::now()
    }

    /// All of it: nothing follows.
    pub(crate) fn into_event(self, gateway: &Gateway) -> Agent {
        Self::event(self.reasoning, gateway.redact(self.text))
    }

    /// What may be kept already. What could be the beginning of a key waits for the rest of it.
    pub(crate) fn take_begun(&mut self, gateway: &Gateway) -> Option<Agent> {
        let (text, held) = gateway.redact_begun(std::mem::take(&mut self.text));
        self.text = held;
        self.since = Instant::now();
        (!text.is_empty()).then(|| Self::event(self.reasoning, text))
    }

    fn event(reasoning: bool, text: String) -> Agent {
        let text = cut(text).0;
        if reasoning {
            Agent::Reasoning { text }
        } else {
            Agent::Text { text }
        }
    }
}

/// The beginning of a text that fits into an event, and how many bytes were cut.
pub(crate) fn cut(mut text: String) -> (String, u64) {
    let end = text.floor_char_boundary(MAX_TEXT);
    let gone = text.len() - end;
    text.truncate(end);
    (text, gone as u64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dialects::Prices;
    use gateway::{Options, Providers, Secret, Settings};

    pub(crate) const KEY: &str = "sk-secret-1";
    pub(crate) const STARS: &str = "***********";

    pub(crate) fn gateway() -> Gateway {
        let provider = Settings {
            base_url: "http://127.0.0.1:9/v1".into(),
            ..Settings::openai(Secret::new(KEY))
        };
        Gateway::new(Options {
            providers: Providers::new([provider], Prices::builtin()).unwrap(),
            ..Options::default()
        })
        .unwrap()
    }

    fn streamed(text: &str) -> Streamed {
        Streamed {
            reasoning: false,
            text: text.into(),
            since: Instant::now(),
        }
    }

    fn text(event: Option<Agent>) -> String {
        match event {
            Some(Agent::Text { text } | Agent::Reasoning { text }) => text,
            _ => String::new(),
        }
    }

    #[test]
    fn a_key_that_is_cut_by_the_end_of_an_event_is_in_neither_event() {
        let gateway = gateway();
        let whole = format!("é {KEY} and {KEY}{KEY}.");
        let letters: Vec<char> = whole.chars().collect();
        for size in 1..letters.len() {
            let (mut waiting, mut kept) = (streamed(""), String::new());
            for piece in letters.chunks(size) {
                waiting.text.extend(piece);
                kept += &text(waiting.take_begun(&gateway));
                assert!(!kept.contains("sk-"), "{kept}");
            }
            kept += &text(Some(waiting.into_event(&gateway)));
            assert_eq!(kept, whole.replace(KEY, STARS), "pieces of {size}");
        }
    }

    #[test]
    fn the_end_of_a_text_that_is_no_key_is_kept_as_it_is() {
        let gateway = gateway();
        let mut waiting = streamed("it ends with sk-sec");
        assert_eq!(text(waiting.take_begun(&gateway)), "it ends with ");
        assert_eq!(text(Some(waiting.into_event(&gateway))), "sk-sec");
    }

    #[test]
    fn a_key_at_the_place_where_an_event_is_cut_leaves_no_part_of_it() {
        let gateway = gateway();
        let long = format!("{}{KEY}", "x".repeat(MAX_TEXT - 3));
        let kept = text(Some(streamed(&long).into_event(&gateway)));
        assert_eq!(kept.len(), MAX_TEXT);
        assert!(kept.ends_with("x***"));
    }
}
