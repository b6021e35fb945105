//! The few styles that output has. They only add: without colour every word is still there.

use anstyle::{AnsiColor, Style};
use std::fmt::Display;

/// For names and headings.
pub(crate) const STRONG: Style = Style::new().bold();
/// For what is there when it is looked for.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// For what went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// For what did not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// For what a person should look at.
pub(crate) const LOOK: Style = AnsiColor::Yellow.on_default();
/// For what a person can type.
pub(crate) const TYPE: Style = AnsiColor::Cyan.on_default();

/// The text in this style.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}
