//! Files of the store and of git, as a damaged disk or another program may have left them.

use crate::text;

/// A manifest is either refused, or holds exactly what was in the file.
pub fn manifest(bytes: &[u8]) {
    if let Some(again) = workspace::hostile::manifest(bytes) {
        assert_eq!(again, bytes, "what is read is what was written");
    }
}

/// A record means the same when it is written again, and names every layer of the change.
pub fn record(bytes: &[u8]) {
    if let Some((again, all_named)) = workspace::hostile::record(&text(bytes)) {
        assert!(all_named, "a layer that is used is named");
        let read = workspace::hostile::record(&again);
        assert_eq!(read, Some((again, true)));
    }
}

/// Whatever a file system takes for `.git` is known: other case, and what is left out or ignored.
pub fn git_name(bytes: &[u8]) {
    let is = workspace::hostile::is_git_directory;
    let known = is(bytes);
    let other: Vec<u8> = bytes.iter().map(u8::to_ascii_uppercase).collect();
    assert_eq!(is(&other), known, "case does not matter");
    if std::str::from_utf8(bytes).is_ok() {
        let unseen = ["\u{200c}".as_bytes(), bytes, "\u{feff}".as_bytes()].concat();
        assert_eq!(is(&unseen), known, "what is not seen does not matter");
    }
    for ignored in [&b"."[..], b" ", b". . ", b":stream"] {
        let longer = [bytes, ignored].concat();
        assert!(!known || is(&longer), "what is ignored hides nothing");
    }
}

/// An index is either refused, or written again without a loss, and that one is read the same.
pub fn index(bytes: &[u8]) {
    if let Some(again) = git::hostile::index(bytes) {
        assert!(again.len() <= bytes.len(), "nothing is added");
        let entries = bytes.windows(4).position(|it| it == b"TREE");
        let entries = entries.unwrap_or_default();
        assert_eq!(again.get(..entries), bytes.get(..entries));
        assert_eq!(git::hostile::index(&again), Some(again));
    }
}
