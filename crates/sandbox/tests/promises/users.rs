//! Root and ordinary users alike: all of these tests run once more in a home of their own, as an
//! ordinary user where root runs them, else as the same one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use testkit::Home;

use crate::room::is_root;

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Names a program of root that changes its user to root, where root has made one for these tests.
const PROGRAM_OF_ROOT: &str = "SKEP_TEST_PROGRAM_OF_ROOT";

/// `id`, which says as which user it runs.
pub(crate) fn program_of_root() -> Option<PathBuf> {
    std::env::var_os(PROGRAM_OF_ROOT).map(PathBuf::from)
}

/// A directory that other users can enter.
pub(crate) fn open_directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    let mut home = Home::new().as_user(65534);
    if is_root() {
        let id = home.root().join("id");
        fs::copy("/usr/bin/id", &id).unwrap();
        fs::set_permissions(&id, fs::Permissions::from_mode(0o6755)).unwrap();
        home = home.env(PROGRAM_OF_ROOT, id);
    }
    // Where another user can reach it.
    let program = home.root().join("promises");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let args = [
        "--test-threads=2",
        "--skip",
        "all_of_this_holds_for_an_ordinary_user",
        // These do it themselves.
        "--skip",
        "contained::",
        "--skip",
        "image::",
        "--skip",
        "sidecars::",
        "--skip",
        "unready::",
        // The toolchain of these tests may lie in root's home.
        "--skip",
        "with_its_toolchain_mounted",
    ];
    let ran = home.run(&program, args, &home.home(), PATIENCE);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
}
