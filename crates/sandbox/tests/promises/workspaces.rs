//! The files to work on, and the programs of the host that work on them.

use std::fs;
use std::path::Path;

use skep_sandbox::{Command, Mount, Workspace};

use crate::room::Room;

fn layers(directory: &Path, lowers: usize) -> Workspace {
    let make = |name: String| {
        let path = directory.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    Workspace::Overlay {
        lowers: (0..lowers)
            .map(|number| make(format!("lower-{number}")))
            .collect(),
        upper: make("upper".to_owned()),
        work: make("work".to_owned()),
        volatile: true,
    }
}

#[tokio::test]
async fn writes_land_in_the_upper_layer_and_the_lower_ones_stay() {
    let directory = tempfile::tempdir().unwrap();
    let workspace = layers(directory.path(), 2);
    let path = |name: &str| directory.path().join(name);
    fs::write(path("lower-0/near"), "near").unwrap();
    fs::write(path("lower-1/near"), "hidden").unwrap();
    fs::write(path("lower-1/far"), "far").unwrap();
    fs::write(path("lower-1/gone"), "gone").unwrap();
    let room = Room::with(|spec| spec.workspace = workspace).await;
    assert_eq!(
        room.says(
            "cat near far; echo changed > far; rm gone; mkdir d; echo new > d/new; mv near moved"
        )
        .await,
        "nearfar"
    );
    assert_eq!(fs::read_to_string(path("upper/far")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(path("upper/d/new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(path("lower-1/far")).unwrap(), "far");
    assert!(path("lower-1/gone").exists() && path("lower-0/near").exists());
    room.sandbox.destroy().await.unwrap();
    fs::set_permissions(
        path("work/work"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
}

#[tokio::test]
async fn hundreds_of_layers_with_long_paths_are_mounted() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("n".repeat(200)).join("m".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let workspace = layers(&deep, 300);
    for number in 0..300 {
        fs::write(deep.join(format!("lower-{number}/{number}")), "").unwrap();
    }
    let room = Room::with(|spec| spec.workspace = workspace).await;
    assert_eq!(room.says("ls | wc -l").await, "300");
    room.sandbox.destroy().await.unwrap();
    fs::set_permissions(
        deep.join("work/work"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
}

#[tokio::test]
async fn git_works_and_trusts_the_workspace() {
    let room = Room::new().await;
    let script = "git init -q -b main . && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -q -m m && git status --porcelain && git log --format=%s";
    assert_eq!(room.says(script).await, "m");
}

#[tokio::test]
async fn python_and_node_run_a_repositorys_tests() {
    let room = Room::new().await;
    let write = |name: &str, text: &str| fs::write(room.host_workspace().join(name), text).unwrap();
    write(
        "test_sum.py",
        "import unittest, tempfile, multiprocessing, socket, ssl\nclass T(unittest.TestCase):\n    def test_sum(self):\n        with multiprocessing.Pool(2) as p:\n            self.assertEqual(p.map(abs, [-1]), [1])\n",
    );
    write(
        "sum.test.js",
        "const test = require('node:test'); const assert = require('assert'); test('sum', () => assert.equal(1 + 1, 2));\n",
    );
    let python = room.sh("/usr/bin/python3 -m unittest 2>&1").await;
    assert!(python.exit.success(), "{}", python.stdout.text());
    let node = room.sh("/usr/bin/node --test 2>&1").await;
    assert!(node.exit.success(), "{}", node.stdout.text());
}

#[tokio::test]
async fn cargo_runs_a_repositorys_tests_with_its_toolchain_mounted() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = std::process::Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .unwrap();
    let sysroot = String::from_utf8(sysroot.stdout).unwrap().trim().to_owned();
    let room = Room::with(|spec| spec.mounts.push(Mount::same_path(&sysroot))).await;
    room.says("mkdir src && echo '#[test] fn adds() { assert_eq!(1 + 1, 2) }' > src/lib.rs && printf '[package]\\nname=\"p\"\\nedition=\"2024\"\\n' > Cargo.toml").await;
    let path = format!("{sysroot}/bin:/usr/bin:/bin");
    let command = Command::new(["cargo", "test", "--offline"], room.sandbox.workspace())
        .with_env(room.sandbox.base_env())
        .with_env([("PATH", path)]);
    let output = room.run(command).await;
    assert!(output.exit.success(), "{}", output.stderr.text());
    assert!(output.stdout.text().contains("test adds ... ok"));
}
