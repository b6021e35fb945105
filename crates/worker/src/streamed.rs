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
    pub(crate) fn into_events(self, gateway: &Gateway) -> Vec<Agent> {
        events(self.reasoning, &gateway.redact(self.text))
    }

    /// What may be kept already. What could be the beginning of a key waits for the rest of it.
    pub(crate) fn take_begun(&mut self, gateway: &Gateway) -> Vec<Agent> {
        let (text, held) = gateway.redact_begun(std::mem::take(&mut self.text));
        self.text = held;
        self.since = Instant::now();
        events(self.reasoning, &text)
    }
}

/// A text as events, each with as much of it as fits into one: an agent may send more at once.
fn events(reasoning: bool, mut rest: &str) -> Vec<Agent> {
    let mut events = Vec::new();
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.floor_char_boundary(MAX_TEXT));
        let text = text.to_owned();
        events.push(if reasoning {
            Agent::Reasoning { text }
        } else {
            Agent::Text { text }
        });
        rest = after;
    }
    events
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

    fn texts(events: Vec<Agent>) -> Vec<String> {
        let texts = events.into_iter().map(|event| match event {
            Agent::Text { text } | Agent::Reasoning { text } => text,
            _ => String::new(),
        });
        texts.collect()
    }

    fn text(events: Vec<Agent>) -> String {
        texts(events).concat()
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
            kept += &text(waiting.into_events(&gateway));
            assert_eq!(kept, whole.replace(KEY, STARS), "pieces of {size}");
        }
    }

    #[test]
    fn the_end_of_a_text_that_is_no_key_is_kept_as_it_is() {
        let gateway = gateway();
        let mut waiting = streamed("it ends with sk-sec");
        assert_eq!(text(waiting.take_begun(&gateway)), "it ends with ");
        assert_eq!(text(waiting.into_events(&gateway)), "sk-sec");
    }

    #[test]
    fn a_key_at_the_place_where_an_event_is_full_is_in_neither_event() {
        let gateway = gateway();
        let long = format!("{}{KEY}", "x".repeat(MAX_TEXT - 3));
        let kept = texts(streamed(&long).into_events(&gateway));
        let lengths: Vec<usize> = kept.iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_TEXT, KEY.len() - 3]);
        assert_eq!(kept.concat(), long.replace(KEY, STARS));
    }

    #[test]
    fn nothing_of_a_long_text_that_comes_at_once_is_lost() {
        let gateway = gateway();
        // An odd length before letters of two bytes: the bound falls within one of them.
        let long = format!("x{}{KEY}.", "é".repeat(MAX_TEXT * 2));
        for reasoning in [false, true] {
            let waiting = |text: &str| Streamed {
                reasoning,
                ..streamed(text)
            };
            let mut begun = waiting(&long);
            for events in [
                waiting(&long).into_events(&gateway),
                begun.take_begun(&gateway),
            ] {
                let kind = |event: &Agent| matches!(event, Agent::Reasoning { .. });
                assert!(events.iter().all(|event| kind(event) == reasoning));
                let kept = texts(events);
                assert!(kept.iter().all(|text| text.len() <= MAX_TEXT));
                assert_eq!(kept.concat(), long.replace(KEY, STARS));
            }
        }
    }
}
