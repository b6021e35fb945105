//! Conflict markers that were left in a file.

/// The lines, from one, at which unresolved conflicts begin: a line of seven `<`, later one of
/// seven `=`, later one of seven `>`, in this order. A single line of `=` is a heading in many
/// formats, so one kind alone is no conflict.
pub(crate) fn find(content: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut began = None;
    let mut divided = false;
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if is_marker(line, b"<<<<<<<") {
            began = Some(index + 1);
            divided = false;
        } else if began.is_some() && line == b"=======" {
            divided = true;
        } else if divided && is_marker(line, b">>>>>>>") {
            found.extend(began.take());
            divided = false;
        }
    }
    found
}

fn is_marker(line: &[u8], marker: &[u8]) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_found_at_the_line_where_it_begins() {
        assert_eq!(
            find(b"a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n"),
            [2]
        );
        assert_eq!(
            find(b"<<<<<<< ours\r\nb\r\n=======\r\nc\r\n>>>>>>> theirs\r\n"),
            [1]
        );
    }

    #[test]
    fn headings_and_quotations_are_no_conflict() {
        assert_eq!(
            find(b"Title\n=======\n\n>>>>>>> quoted\n"),
            Vec::<usize>::new()
        );
        assert_eq!(find(b"<<<<<<< a\n>>>>>>> b\n"), Vec::<usize>::new());
        assert_eq!(
            find(b"<<<<<<<<<< longer\n=======\n>>>>>>>>>>\n"),
            Vec::<usize>::new()
        );
    }
}
