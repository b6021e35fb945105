//! A patch in colour.

use super::{
    paint::{BAD, FAINT, GOOD, STRONG, TYPE, paint},
    text,
};

/// The patch, safe to print, each line in the style of its kind.
pub(crate) fn render(patch: &[u8]) -> String {
    let mut out = String::with_capacity(patch.len() + patch.len() / 4);
    for line in String::from_utf8_lossy(patch).split_inclusive('\n') {
        let shown = text::lines(line);
        let shown = shown.trim_end_matches('\n');
        let style = match shown.as_bytes() {
            [b'd', b'i', b'f', b'f', b' ', ..] => STRONG,
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => STRONG,
            [b'@', b'@', ..] => TYPE,
            [b'+', ..] => GOOD,
            [b'-', ..] => BAD,
            [b' ', ..] | [] => anstyle::Style::new(),
            _ => FAINT,
        };
        out.push_str(&paint(style, shown));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    #[test]
    fn a_patch_keeps_every_line_and_loses_what_a_terminal_obeys() {
        let patch = b"diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+n\x1b[2Jew\xff\n context\n";
        let shown = render(patch);
        assert_eq!(
            plain(&shown),
            "diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+new\u{fffd}\n context\n"
        );
        assert!(!shown.contains("\u{1b}[2J"));
    }
}
