//! Root and ordinary users alike: as root, all of these tests run once more as an ordinary user.

use std::process::Command;

use crate::room::is_root;

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    if !is_root() {
        return;
    }
    // Where an ordinary user can reach it.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("promises");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let open = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), open()).unwrap();
    std::fs::set_permissions(&program, open()).unwrap();
    let output = Command::new("/usr/bin/setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--",
        ])
        .arg(&program)
        // The toolchain of these tests may lie in root's home.
        .args(["--test-threads=2", "--skip", "with_its_toolchain_mounted"])
        .env("HOME", "/nonexistent")
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
