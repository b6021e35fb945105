//! Paths of requests in one form, so that a pattern and a server mean the same.

/// The path of a target without its query, with every visible character decoded. None where servers
/// could read it in different ways: segments that are `.`, `..` or empty, parameters behind `;`,
/// encoded slashes, percent signs and control characters, backslashes, and what is not ASCII.
pub(super) fn plain(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let value = hex(digits)?;
                match value {
                    b'/' | b'\\' | b';' | b'%' | 0..=0x1f | 0x7f => return None,
                    _ if value.is_ascii_graphic() && !b"?#".contains(&value) => {
                        out.push(char::from(value));
                    }
                    _ => out.push_str(&format!("%{value:02X}")),
                }
            }
            b'\\' | b';' | 0..=0x20 | 0x7f.. => return None,
            other => out.push(char::from(other)),
        }
    }
    let mut segments = out.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // The last one is empty where the path ends in a slash.
        let is_last = segments.peek().is_none();
        if segment == "." || segment == ".." || (segment.is_empty() && !is_last) {
            return None;
        }
    }
    Some(out)
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// How much of a pattern stands for itself.
pub(super) fn literal(pattern: &str) -> usize {
    pattern.find(['*', '?', '[', '{']).unwrap_or(pattern.len())
}
