//! `skep ledger`: what is known is checked, copied, brought back and shortened.

use crate::world::World;
use serde_json::Value;
use testkit::Ran;

fn object(ran: Ran) -> Value {
    ran.expect_code(0).json_lines().remove(0)
}

#[test]
fn what_is_known_is_checked_backed_up_restored_and_pruned() {
    let world = World::simple();
    world.run();
    let checked = world.skep(&["ledger", "check", "--blobs"]).expect_code(0);
    assert_eq!(checked.stdout, "Everything that must hold holds.\n");

    // The directories above it are made.
    let backup = world.home.home().join("backups/of/today");
    let backup = backup.to_str().unwrap();
    let made = object(world.skep(&["ledger", "backup", backup, "--json"]));
    assert!(made["blobs"].as_u64().unwrap() > 0, "{made}");
    let again = world.skep(&["ledger", "backup", backup]).expect_code(6);
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);

    let data = world.home.home().join("elsewhere/data");
    let there = ["--data", data.to_str().unwrap()];
    let skep = |args: &[&str]| world.skep(&[&there, args].concat());
    let restored = skep(&["ledger", "restore", backup]).expect_code(0);
    assert!(restored.stdout.contains("holds what was known"));
    skep(&["ledger", "restore", backup]).expect_code(6);
    skep(&["ledger", "check", "--blobs"]).expect_code(0);
    let list = |ran| object(ran)["requests"].clone();
    let known = list(world.skep(&["list", "--json"]));
    assert_eq!(list(skep(&["list", "--json"])), known);
    assert_eq!(known.as_array().unwrap().len(), 1);
    // A backup holds no commits: that is said, and not that there was no change.
    let diff = skep(&["diff", known[0]["id"].as_str().unwrap()]).expect_code(5);
    assert!(
        diff.stderr.contains("not on this machine"),
        "{}",
        diff.stderr
    );

    let dry = object(skep(&[
        "ledger",
        "prune",
        "--older-than",
        "0h",
        "--dry-run",
        "--json",
    ]));
    assert_eq!(list(skep(&["list", "--json"])), known, "nothing is removed");
    let pruned = object(skep(&["ledger", "prune", "--older-than", "0h", "--json"]));
    assert_eq!(pruned["requests"], 1);
    assert_eq!(pruned["events"], dry["events"]);
    assert_eq!(list(skep(&["list", "--json"])), Value::Array(Vec::new()));
    skep(&["ledger", "check", "--blobs"]).expect_code(0);
    let wrong = skep(&["ledger", "prune", "--older-than", "soon"]).expect_code(2);
    assert!(wrong.stderr.contains("30d"), "{}", wrong.stderr);

    // What was lost is found and named.
    let shelves = data.join("blobs");
    std::fs::remove_dir_all(&shelves).unwrap();
    world.skep(&["ledger", "check", "--blobs"]).expect_code(0);
    std::fs::remove_dir_all(world.data().join("blobs")).unwrap();
    let found = world.skep(&["ledger", "check", "--blobs"]).expect_code(1);
    assert!(
        found.stdout.contains("is named and missing"),
        "{}",
        found.stdout
    );
    world.skep(&["ledger", "check"]).expect_code(0);
    let damaged = world.home.home().join("backups/of/today/manifest.json");
    std::fs::remove_file(damaged).unwrap();
    let other = ["--data", "unused", "ledger", "restore", backup];
    let refused = world.skep(&other).expect_code(1);
    assert!(
        refused.stderr.contains("manifest.json"),
        "{}",
        refused.stderr
    );
}
