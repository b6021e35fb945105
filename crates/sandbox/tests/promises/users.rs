//! Root and ordinary users alike: all of these tests run once more in a home of their own, as an
//! ordinary user where root runs them, else as the same one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use testkit::Home;

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    let home = Home::new().as_user(65534);
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
