//! What is printed for a person.

#[allow(dead_code, reason = "the binary uses the rest")]
#[path = "../../../crates/cli/src/view/text.rs"]
mod text;

/// Nothing that a terminal obeys is left, whatever was put together out of what was taken away.
pub fn terminal(bytes: &[u8]) {
    let hostile = crate::text(bytes);
    let lines = text::lines(&hostile);
    let obeyed = |it: char| it.is_control() && it != '\n' && it != '\t';
    assert!(!lines.chars().any(obeyed), "{lines:?}");
    assert_eq!(text::lines(&lines), lines, "clean is clean");
    let line = text::line(&hostile);
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert_eq!(text::line(&line), line);
    for columns in [0, 1, 7, 80] {
        assert!(text::columns(&text::fit(&line, columns)) <= columns);
    }
}
