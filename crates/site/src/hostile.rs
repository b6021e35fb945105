//! For the fuzzing of what comes out of a sandbox, and for nothing else.

use sandbox::archive::Listed;
use workspace::Seen;

/// An entry of a listing, as a site takes it from the archive.
#[must_use]
pub fn seen(listed: Listed) -> Seen {
    crate::elsewhere::seen(listed)
}
