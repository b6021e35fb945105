//! The part of the terminal that is drawn again and again, below what scrolls.

use super::text;
use std::io::{self, Write};

/// Draws lines at the bottom of a terminal, each time over what it drew before.
///
/// The terminal may be resized between two drawings. Terminals wrap what no longer fits, so the
/// rows to go up are counted at the width that the terminal has now.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    drawn: Vec<usize>,
    last: String,
}

impl Screen {
    /// What to write to a terminal this wide so that it shows `above` as lines that scroll away,
    /// and `lines` below them.
    ///
    /// Empty if nothing has changed.
    pub(crate) fn frame(&mut self, above: &[String], lines: &[String], width: usize) -> String {
        let body = lines.join("\n");
        if above.is_empty() && body == self.last {
            return String::new();
        }
        let mut out = self.rewind(width);
        for line in above {
            out.push_str(line);
            out.push('\n');
        }
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        self.drawn = lines
            .iter()
            .map(|line| text::columns(&anstream::adapter::strip_str(line).to_string()))
            .collect();
        self.last = body;
        out
    }

    /// What to write so that the drawn lines are gone and the cursor is where they began.
    pub(crate) fn rewind(&mut self, width: usize) -> String {
        let width = width.max(1);
        let rows: usize = self
            .drawn
            .drain(..)
            .map(|columns| columns.div_ceil(width).max(1))
            .sum();
        self.last.clear();
        if rows == 0 {
            return String::new();
        }
        // Up, to the first column, and away with all that is below.
        format!("\u{1b}[{rows}A\r\u{1b}[J")
    }
}

/// The columns and rows of the terminal behind this descriptor.
pub(crate) fn size(terminal: impl rustix::fd::AsFd) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 0 => (usize::from(size.ws_col), usize::from(size.ws_row.max(2))),
        _ => (80, 24),
    }
}

/// Writes a whole frame at once, so that no half of it is seen.
pub(crate) fn put(mut to: impl Write, frame: &str) -> io::Result<()> {
    if frame.is_empty() {
        return Ok(());
    }
    to.write_all(frame.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn each_frame_is_drawn_over_the_one_before() {
        let mut screen = Screen::default();
        assert_eq!(screen.frame(&[], &lines(&["one", "two"]), 80), "one\ntwo\n");
        assert_eq!(
            screen.frame(&lines(&["note"]), &lines(&["three"]), 80),
            "\u{1b}[2A\r\u{1b}[Jnote\nthree\n"
        );
        assert_eq!(screen.rewind(80), "\u{1b}[1A\r\u{1b}[J");
        assert_eq!(screen.rewind(80), "");
    }

    #[test]
    fn what_has_not_changed_is_not_drawn_again() {
        let mut screen = Screen::default();
        screen.frame(&[], &lines(&["one"]), 80);
        assert_eq!(screen.frame(&[], &lines(&["one"]), 80), "");
        assert_ne!(screen.frame(&lines(&["note"]), &lines(&["one"]), 80), "");
    }

    #[test]
    fn lines_that_wrap_in_a_narrower_terminal_are_still_cleared() {
        let mut screen = Screen::default();
        let long = "x".repeat(75);
        screen.frame(&[], &lines(&[&long, "short", ""]), 80);
        assert_eq!(screen.rewind(40), "\u{1b}[4A\r\u{1b}[J");
    }

    #[test]
    fn styles_take_no_columns() {
        let mut screen = Screen::default();
        screen.frame(&[], &lines(&["\u{1b}[32mab\u{1b}[0m"]), 80);
        assert_eq!(screen.rewind(2), "\u{1b}[1A\r\u{1b}[J");
    }
}
