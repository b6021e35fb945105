//! Keys are taken out of everything that leaves the gateway or is kept.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use zeroize::Zeroizing;

/// Shorter keys are words that can stand in any text (`none`, `dummy`): they protect nothing,
/// and to take them out would damage what passes.
const SHORTEST_KEY: usize = 8;

/// Knows the keys of all providers, and finds them.
#[derive(Clone)]
pub(crate) struct Redactor {
    keys: Arc<[Key]>,
}

struct Key {
    text: Zeroizing<String>,
    finder: Finder<'static>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let mut keys: Vec<Key> = keys
            .into_iter()
            .filter(|key| key.len() >= SHORTEST_KEY)
            .map(|key| Key {
                text: Zeroizing::new(key.to_owned()),
                finder: Finder::new(key.as_bytes()).into_owned(),
            })
            .collect();
        // A key that begins with another one is found whole.
        keys.sort_by_key(|key| std::cmp::Reverse(key.text.len()));
        Self { keys: keys.into() }
    }

    fn finds(&self, data: &[u8]) -> bool {
        self.keys.iter().any(|key| key.finder.find(data).is_some())
    }

    /// Writes asterisks over every key; the length stays.
    fn mask(&self, data: &mut [u8]) {
        for key in self.keys.iter() {
            let length = key.text.len();
            let mut from = 0;
            while let Some(at) = data.get(from..).and_then(|rest| key.finder.find(rest)) {
                let start = from + at;
                if let Some(found) = data.get_mut(start..start + length) {
                    found.fill(b'*');
                }
                from = start + length;
            }
        }
    }

    /// The same bytes with asterisks in place of keys; not copied when there are none.
    pub(crate) fn bytes(&self, data: Bytes) -> Bytes {
        if !self.finds(&data) {
            return data;
        }
        let mut copy = BytesMut::from(data.as_ref());
        self.mask(&mut copy);
        copy.freeze()
    }

    /// The same text with asterisks in place of keys.
    pub(crate) fn text(&self, text: String) -> String {
        if !self.finds(text.as_bytes()) {
            return text;
        }
        let mut bytes = text.into_bytes();
        self.mask(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The same of a text that may go on, and apart from it the end that could be the beginning of
    /// a key: it belongs before what follows.
    pub(crate) fn begun(&self, text: String) -> (String, String) {
        let mut text = self.text(text);
        let end = text.len().saturating_sub(self.pending(text.as_bytes()));
        let held = text.split_off(text.floor_char_boundary(end));
        (text, held)
    }

    /// How many bytes at the end could be the beginning of a key.
    fn pending(&self, data: &[u8]) -> usize {
        let begins = |key: &Key| {
            let longest = (key.text.len() - 1).min(data.len());
            (1..=longest).rev().find(|length| {
                let begin = key.text.as_bytes().get(..*length);
                begin.is_some_and(|begin| data.ends_with(begin))
            })
        };
        self.keys.iter().filter_map(begins).max().unwrap_or(0)
    }
}

/// Takes keys out of a stream, wherever its chunks are cut. What could be the beginning of a key
/// is held back until the next chunk tells.
#[derive(Debug)]
pub(crate) struct Scrubber {
    redactor: Redactor,
    held: BytesMut,
}

impl Scrubber {
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            held: BytesMut::new(),
        }
    }

    /// What may pass now; empty when all of it is held back.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() && !self.redactor.finds(&chunk) {
            let mut chunk = chunk;
            let pending = self.redactor.pending(&chunk);
            if pending > 0 {
                self.held = BytesMut::from(chunk.split_off(chunk.len() - pending).as_ref());
            }
            return chunk;
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(&chunk);
        self.redactor.mask(&mut data);
        let pending = self.redactor.pending(&data);
        self.held = data.split_off(data.len() - pending);
        data.freeze()
    }

    /// What was held back at the end: only the beginning of a key, and so none.
    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk-secret-1";

    proptest! {
        #[test]
        fn no_way_to_cut_a_stream_lets_a_key_through(
            before in "[sk\\-e]{0,12}",
            between in "[ -z]{0,6}",
            cuts in proptest::collection::vec(0usize..60, 0..8),
        ) {
            let text = format!("{before}{KEY}{between}{KEY}{KEY}sk-sec");
            let redactor = Redactor::new([KEY, "short"]);
            let mut scrubber = Scrubber::new(redactor.clone());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut out = Vec::new();
            for pair in cuts.windows(2) {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]])));
            }
            out.extend_from_slice(&scrubber.finish());
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(&out, &text.replace(KEY, "***********"));
            prop_assert_eq!(out, redactor.text(text));
        }

        #[test]
        fn no_way_to_cut_a_text_lets_a_key_through(
            before in "[sk\\-eé]{0,12}",
            between in "[ -z]{0,6}",
            cuts in proptest::collection::vec(0usize..60, 0..8),
        ) {
            let text = format!("{before}{KEY}{between}{KEY}{KEY}sk-sec");
            let redactor = Redactor::new([KEY]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| text.floor_char_boundary(c)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut out, mut held) = (String::new(), String::new());
            for pair in cuts.windows(2) {
                let (clean, rest) = redactor.begun(held + &text[pair[0]..pair[1]]);
                out.push_str(&clean);
                held = rest;
            }
            prop_assert_eq!(out + &redactor.text(held), text.replace(KEY, "***********"));
        }
    }

    #[test]
    fn what_holds_no_key_is_not_copied() {
        let chunk = Bytes::from_static(b"data: {}\n\n");
        let redactor = Redactor::new([KEY]);
        assert_eq!(redactor.bytes(chunk.clone()).as_ptr(), chunk.as_ptr());
        assert_eq!(
            Scrubber::new(redactor).push(chunk.clone()).as_ptr(),
            chunk.as_ptr()
        );
    }
}
