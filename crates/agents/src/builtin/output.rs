//! Making the output of a command fit for a model.

use crate::exec::Captured;

/// The most of an output that a model is told, in bytes.
pub(super) const TOLD_BYTES: usize = 16_000;

/// How far a cut may move to fall between two lines.
const LINE_SEARCH: usize = 1_000;

/// Text for a model, and how many bytes of the output it lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compacted {
    pub(super) text: String,
    pub(super) omitted: u64,
}

/// The beginning and the end of an output as clean text of at most about `limit` bytes, with
/// the number of bytes that are missing between them.
pub(super) fn compact(captured: &Captured, limit: usize) -> Compacted {
    if let Some(whole) = captured.whole() {
        let text = clean(&whole);
        if text.len() <= limit {
            return Compacted { text, omitted: 0 };
        }
        let head = beginning(&text, limit / 2);
        let tail = ending(&text, limit / 2);
        return joined(head, tail, (text.len() - head.len() - tail.len()) as u64);
    }
    let (first, last) = (clean(&captured.head), clean(&captured.tail));
    let head = beginning(&first, limit / 2);
    let tail = ending(&last, limit / 2);
    let cut = (first.len() - head.len()) + (last.len() - tail.len());
    joined(head, tail, captured.omitted + cut as u64)
}

fn joined(head: &str, tail: &str, omitted: u64) -> Compacted {
    let newline = if head.is_empty() || head.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Compacted {
        text: format!("{head}{newline}[{omitted} bytes omitted]\n{tail}"),
        omitted,
    }
}

/// At most `limit` bytes from the beginning, whole lines where possible.
fn beginning(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let end = text.floor_char_boundary(limit);
    let from = text.floor_char_boundary(end.saturating_sub(LINE_SEARCH));
    let end = text
        .get(from..end)
        .and_then(|part| part.rfind('\n'))
        .map_or(end, |newline| from + newline + 1);
    text.get(..end).unwrap_or_default()
}

/// At most `limit` bytes from the end, whole lines where possible.
fn ending(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let start = text.ceil_char_boundary(text.len() - limit);
    let until = text.ceil_char_boundary((start + LINE_SEARCH).min(text.len()));
    let start = text
        .get(start..until)
        .and_then(|part| part.find('\n'))
        .map_or(start, |newline| start + newline + 1);
    text.get(start..).unwrap_or_default()
}

/// Text without escape sequences and control characters. What is not UTF-8 is replaced. A
/// carriage return begins a new line, as on a terminal it would write over the old one.
pub(super) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips the rest of a terminal's escape sequence: a CSI to its final byte, an OSC to its
/// terminator, else what comes before its final character, and that.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while let Some(c) = chars.next_if(|c| !c.is_control()) {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
        Some(']') => {
            // A line ends it at the latest, lest a stray byte swallow the output.
            while let Some(c) = chars.next_if(|c| *c != '\n') {
                if c == '\u{7}' || c == '\u{1b}' {
                    chars.next_if(|c| *c == '\\');
                    break;
                }
            }
        }
        Some(_) => {
            while chars.next_if(|c| (' '..='/').contains(c)).is_some() {}
            chars.next_if(|c| !c.is_control());
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Captured {
        Captured {
            head: text.as_bytes().to_vec(),
            ..Captured::default()
        }
    }

    #[test]
    fn a_short_output_is_told_as_it_is() {
        let told = compact(&whole("a\nb\n"), 100);
        assert_eq!(
            told,
            Compacted {
                text: "a\nb\n".into(),
                omitted: 0
            }
        );
    }

    #[test]
    fn a_long_output_is_cut_between_lines_and_the_rest_is_counted() {
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let told = compact(&whole(&text), 200);
        assert!(told.text.starts_with("line 0\nline 1\n"));
        assert!(told.text.ends_with("line 998\nline 999\n"));
        let (head, rest) = told.text.split_once('[').unwrap();
        let (_, tail) = rest.split_once("]\n").unwrap();
        assert_eq!(head.len() + tail.len() + told.omitted as usize, text.len());
        assert!(head.ends_with('\n'));
    }

    #[test]
    fn what_was_never_kept_is_counted_too() {
        let captured = Captured {
            head: b"start\n".to_vec(),
            tail: b"end\n".to_vec(),
            omitted: 9,
        };
        assert_eq!(
            compact(&captured, 100).text,
            "start\n[9 bytes omitted]\nend\n"
        );
    }

    #[test]
    fn the_colours_of_a_terminal_are_taken_out() {
        assert_eq!(
            clean(b"\x1b[1;31mred\x1b[0m\x1b]0;title\x07 and\x1b(B bytes \xff\x00\x08"),
            "red and bytes \u{fffd}"
        );
        assert_eq!(clean(b"10%\r20%\r\ndone\r\n"), "10%\n20%\ndone\n");
        assert_eq!(clean(b"\x1b]never ends\nnext"), "\nnext");
    }

    proptest! {
        #[test]
        fn any_output_becomes_a_text_of_bounded_length(
            head in proptest::collection::vec(any::<u8>(), 0..600),
            tail in proptest::collection::vec(any::<u8>(), 0..600),
            omitted in 0..3_u64,
            limit in 0..400_usize,
        ) {
            let told = compact(&Captured { head, tail, omitted }, limit);
            prop_assert!(told.text.len() <= limit + 40);
        }
    }
}
