//! How much of each file a change changes.

use crate::view::{
    format,
    paint::{BAD, GOOD, paint},
    text,
};

/// What a change does to one file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct FileStat {
    /// Its path.
    pub(crate) path: String,
    /// The lines added; none for a binary file.
    pub(crate) added: Option<u64>,
    /// The lines removed; none for a binary file.
    pub(crate) removed: Option<u64>,
}

/// How much of each file of a further repository changed; nothing where none did.
pub(crate) fn stat_of(name: &str, files: &[FileStat], width: usize) -> String {
    match files.is_empty() {
        true => String::new(),
        false => format!("in {}:\n{}", text::line(name), stat(files, width)),
    }
}

/// How much of each file changed.
pub(crate) fn stat(files: &[FileStat], width: usize) -> String {
    if files.is_empty() {
        return String::new();
    }
    const MOST: usize = 40;
    let total = |of: fn(&FileStat) -> Option<u64>| files.iter().filter_map(of).sum::<u64>();
    let (added, removed) = (total(|f| f.added), total(|f| f.removed));
    let widest = files
        .iter()
        .map(|file| file.added.unwrap_or(0) + file.removed.unwrap_or(0))
        .max()
        .unwrap_or(0);
    let path_columns = files
        .iter()
        .take(MOST)
        .map(|file| text::columns(&text::line(&file.path)))
        .max()
        .unwrap_or(0)
        .min(width.saturating_sub(24).max(10));
    let bar_columns = width.saturating_sub(path_columns + 12).clamp(4, 30) as u64;
    let scaled = |lines: u64| {
        if widest <= bar_columns {
            lines
        } else if lines == 0 {
            0
        } else {
            (lines * bar_columns / widest).max(1)
        }
    };
    let bar = |sign: &str, lines: u64| sign.repeat(scaled(lines) as usize);
    let mut out = String::new();
    for file in files.iter().take(MOST) {
        let change = match (file.added, file.removed) {
            (Some(added), Some(removed)) => format!(
                "{:>5} {}{}",
                added + removed,
                paint(GOOD, bar("+", added)),
                paint(BAD, bar("-", removed))
            ),
            _ => "binary".into(),
        };
        out.push_str(&format!(
            "  {} {change}\n",
            text::pad(&text::line(&file.path), path_columns)
        ));
    }
    if files.len() > MOST {
        out.push_str(&format!(
            "  … and {}\n",
            format::count(files.len() - MOST, "more file")
        ));
    }
    out.push_str(&format!(
        "  {} changed, {added} added, {removed} removed\n",
        format::count(files.len(), "file")
    ));
    out
}
