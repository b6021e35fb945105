//! Columns.

use super::text;
use anstyle::Style;

/// One cell: what it says, and how it looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// A cell in this style. What it says is made safe.
    pub(crate) fn styled(style: Style, words: impl AsRef<str>) -> Self {
        Self {
            text: text::line(words.as_ref()),
            style,
            right: false,
        }
    }

    /// A cell that belongs to the row above: a little to the right.
    pub(crate) fn below(style: Style, words: impl AsRef<str>) -> Self {
        let mut cell = Self::styled(style, words);
        cell.text.insert_str(0, "  ");
        cell
    }

    /// A cell whose text stands at the right: a number.
    pub(crate) fn number(words: impl AsRef<str>) -> Self {
        Self {
            right: true,
            ..Self::styled(Style::new(), words)
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(words: T) -> Self {
        Self::styled(Style::new(), words)
    }
}

/// The rows below each other, columns two spaces apart, the last column cut to the width.
pub(crate) fn render(rows: &[Vec<Cell>], indent: usize, width: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| text::columns(&cell.text))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut used = indent;
        let mut line = " ".repeat(indent);
        let last = row.iter().rposition(|cell| !cell.text.is_empty());
        for (column, (cell, wanted)) in row.iter().zip(&widths).enumerate() {
            if last.is_none_or(|last| column > last) {
                break;
            }
            let room = width.saturating_sub(used).max(8);
            let shown = if Some(column) == last && !cell.right {
                text::fit(&cell.text, room)
            } else if cell.right {
                let missing = wanted.saturating_sub(text::columns(&cell.text));
                format!("{}{}", " ".repeat(missing), cell.text)
            } else {
                text::pad(&cell.text, *wanted)
            };
            used += text::columns(&shown) + 2;
            line.push_str(&super::paint::paint(cell.style, &shown));
            if Some(column) != last {
                line.push_str("  ");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_the_last_one_is_cut() {
        let rows = vec![
            vec!["name".into(), Cell::number("7"), "a short text".into()],
            vec![
                "n".into(),
                Cell::number("1234"),
                "a text that is too long for it".into(),
            ],
            vec!["alone".into()],
        ];
        insta::assert_snapshot!("table", render(&rows, 2, 32));
    }

    #[test]
    fn a_cell_cannot_break_its_line() {
        let rows = vec![vec!["a\nb\u{1b}[2J".into(), "c".into()]];
        assert_eq!(render(&rows, 0, 80), "a b  c\n");
    }
}
