//! Why git could not fetch, from what it says: in the C locale, which it runs in.

use crate::error::Error;
use crate::process::Output;

/// The most of what git said that is repeated, in bytes.
const MAX_SAID: usize = 600;

/// What git says where it wants credentials, or has wrong ones.
const UNAUTHORIZED: &[&str] = &[
    "could not read Username",
    "could not read Password",
    "terminal prompts disabled",
    "Authentication failed",
    "Permission denied (",
    "The requested URL returned error: 401",
    "The requested URL returned error: 403",
    "Host key verification failed",
];
/// What it says where nobody is there.
const UNREACHABLE: &[&str] = &[
    "Could not resolve host",
    "Could not resolve hostname",
    "Failed to connect",
    "Couldn't connect",
    "Connection refused",
    "Connection timed out",
    "Operation timed out",
    "Operation too slow",
    "No route to host",
    "Network is unreachable",
];
/// What it says where there is no such repository, or none for this user.
const NO_REPOSITORY: &[&str] = &[
    "Repository not found",
    "' not found",
    "does not appear to be a git repository",
    "The requested URL returned error: 404",
    "No such file or directory",
];

/// Why a fetch from `url` failed.
pub(super) fn of(url: &str, output: &Output) -> Error {
    let said = said(&output.stderr);
    let url = url.to_owned();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    // The word of the object comes before what git adds about the connection.
    if says(&[
        "fsck error",
        "error in object",
        "index-pack failed",
        "bad pack header",
    ]) {
        return Error::Unsound { url, said };
    }
    if says(UNAUTHORIZED) {
        return Error::Unauthorized { url, said };
    }
    if says(UNREACHABLE) {
        return Error::Unreachable { url, said };
    }
    if says(NO_REPOSITORY) {
        return Error::NoRemote { url, said };
    }
    Error::Fetch {
        url,
        status: output.status.clone(),
        said,
    }
}

/// Whether the server does not have, or does not give, a commit that was asked for by its name.
pub(super) fn is_not_given(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    [
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "bad object",
    ]
    .iter()
    .any(|word| said.contains(word))
}

/// The lines in which git says what is wrong; all of them, if it marks none.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || {
        text.split(['\r', '\n'])
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let marked = ["fatal:", "error:", "ERROR:", "remote: error", "ssh:"];
    let is_marked = |line: &&str| {
        marked.iter().any(|mark| line.starts_with(mark)) || line.contains("Permission denied")
    };
    let mut kept: Vec<&str> = lines().filter(is_marked).collect();
    if kept.is_empty() {
        kept = lines().collect();
    }
    let text = kept.join("; ");
    let start = text.ceil_char_boundary(text.len().saturating_sub(MAX_SAID));
    text.get(start..).unwrap_or_default().to_owned()
}
