//! Pages of the documentation that are written from the program, and kept true by tests.

use std::path::Path;

/// The environment variable that makes the tests write the pages anew.
const UPDATE: &str = "SKEP_UPDATE_DOCS";

/// Compares a page with what the program says it should be.
pub(crate) fn is_current(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(page);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{page} is not what the program says: run `{UPDATE}=1 cargo test -p skep-cli` and commit it"
    );
}
