//! Text that others wrote, made safe to print.
//!
//! What comes from agents, models and repositories may hold escape sequences that move the
//! cursor, retitle the window, or hide and reorder text. All of it goes through here.

/// The text on one line: no control character, no escape sequence, white space collapsed to
/// single spaces where it was a line break or a tab.
pub(crate) fn line(text: &str) -> String {
    let cleaned = lines(text);
    let mut out = String::with_capacity(cleaned.len());
    for word in cleaned.split(['\n', '\t']) {
        let word = word.trim();
        if !word.is_empty() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(word);
        }
    }
    out
}

/// What is said, on one line, and the lines that belong to it, if there are some: those that stand below
/// it, further to the right, as the last ones that a program printed.
pub(crate) fn parts(text: &str) -> (String, Vec<String>) {
    const INDENT: &str = "  ";
    let Some((said, below)) = text.split_once("\n  ") else {
        return (line(text), Vec::new());
    };
    let below = below.lines().enumerate().map(|(index, one)| {
        let one = match index {
            0 => one,
            _ => one.strip_prefix(INDENT).unwrap_or(one),
        };
        let width = one.len() - one.trim_start_matches(' ').len();
        " ".repeat(width) + &line(one)
    });
    (line(said), below.collect())
}

/// The first line that says anything.
pub(crate) fn first_line(text: &str) -> String {
    lines(text)
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(line)
        .unwrap_or_default()
}

/// The text with its line breaks and tabs, and without everything else that a terminal would obey.
pub(crate) fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {
                if !rest.as_str().starts_with('\n') {
                    out.push('\n');
                }
            }
            '\u{1b}' => rest = after_escape(rest.as_str()).chars(),
            '\u{9b}' => rest = after_control_sequence(rest.as_str()).chars(),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => {
                rest = after_string(rest.as_str()).chars();
            }
            c if c.is_control() || is_invisible(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Characters that print nothing but change what is seen: the order of letters, or where a line
/// ends.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn after_escape(text: &str) -> &str {
    let mut chars = text.chars();
    match chars.next() {
        Some('[') => after_control_sequence(chars.as_str()),
        Some(']' | 'P' | 'X' | '^' | '_') => after_string(chars.as_str()),
        // Two or three characters: intermediates, then one that ends it.
        Some(' '..='/') => {
            let rest = chars
                .as_str()
                .trim_start_matches(|c| matches!(c, ' '..='/'));
            let mut chars = rest.chars();
            match chars.next() {
                Some('0'..='~') => chars.as_str(),
                _ => rest,
            }
        }
        Some('0'..='~') => chars.as_str(),
        _ => text,
    }
}

/// After `ESC [`: parameters, intermediates and one final character.
fn after_control_sequence(text: &str) -> &str {
    let rest = text.trim_start_matches(|c| matches!(c, ' '..='?'));
    let mut chars = rest.chars();
    match chars.next() {
        Some('@'..='~') => chars.as_str(),
        _ => rest,
    }
}

/// After the start of a string such as a window title: up to its end, which must be on the same
/// line. One that never ends hides nothing: only its start is left out.
fn after_string(text: &str) -> &str {
    let line = text.split('\n').next().unwrap_or(text);
    for (at, c) in line.char_indices() {
        let length = match c {
            '\u{7}' | '\u{9c}' => c.len_utf8(),
            '\u{1b}' => {
                let after = at + 1;
                return match text.get(after..) {
                    Some(rest) if rest.starts_with('\\') => rest.get(1..).unwrap_or_default(),
                    // Another sequence begins: let it be looked at by itself.
                    _ => text.get(at..).unwrap_or_default(),
                };
            }
            _ => continue,
        };
        return text.get(at + length..).unwrap_or_default();
    }
    text
}

/// The text cut to this many columns, with `…` where something was left out.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthChar;
    let width = |c: char| c.width().unwrap_or(0);
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        if used + width(c) + 1 > columns {
            break;
        }
        used += width(c);
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// How many columns a text without styles takes.
pub(crate) fn columns(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// The text, with spaces after it up to this many columns.
pub(crate) fn pad(text: &str, columns_wanted: usize) -> String {
    let mut out = fit(text, columns_wanted);
    let have = columns(&out);
    out.extend(std::iter::repeat_n(
        ' ',
        columns_wanted.saturating_sub(have),
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        for (hostile, shown) in [
            ("plain", "plain"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{9b}31mred", "red"),
            ("\u{9d}0;title\u{9c}after", "after"),
            ("\u{1b}Pq data \u{1b}\\after", "after"),
            ("\u{1b}(Bcharset", "charset"),
            ("\u{1b}cfull reset", "full reset"),
            ("bell\u{7}back\u{8}space\u{7f}", "bellbackspace"),
            ("\u{202e}desrever\u{2066}", "desrever"),
            ("zero\u{200b}width", "zerowidth"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("\u{1b}]never ends", "never ends"),
            ("\u{1b}]0;a\u{1b}[31mb", "b"),
            ("tags\u{e0041}", "tags"),
        ] {
            assert_eq!(lines(hostile), shown, "{hostile:?}");
            assert!(!lines(hostile).chars().any(char::is_control));
        }
    }

    #[test]
    fn a_title_that_never_ends_does_not_swallow_the_lines_below() {
        assert_eq!(lines("\u{1b}]0;title\nbelow\u{7}"), "0;title\nbelow");
    }

    #[test]
    fn line_breaks_stay_where_they_mean_something() {
        assert_eq!(lines("a\r\nb\rc\n\td"), "a\nb\nc\n\td");
        assert_eq!(line(" a\r\n\n\tb  c \n"), "a b  c");
        assert_eq!(first_line("\n\n  one \ntwo"), "one");
        assert_eq!(first_line(""), "");
    }

    #[test]
    fn lines_that_stand_below_what_is_said_stay_lines() {
        let text = "it failed:\n  the one\n    a\u{1b}[2Jb\tc\n  the other";
        let (said, below) = parts(text);
        assert_eq!(said, "it failed:");
        assert_eq!(below, ["the one", "  ab c", "the other"]);
        assert_eq!(parts("a\nb"), ("a b".into(), Vec::new()));
    }

    #[test]
    fn a_text_is_cut_by_columns_not_by_bytes() {
        assert_eq!(fit("short", 10), "short");
        assert_eq!(fit("a long text", 6), "a lon…");
        assert_eq!(fit("日本語文字", 5), "日本…");
        assert_eq!(fit("日本", 4), "日本");
        assert_eq!(fit("anything", 0), "");
        assert_eq!(pad("ab", 4), "ab  ");
        assert_eq!(columns(&pad("日本語", 5)), 5);
    }
}
