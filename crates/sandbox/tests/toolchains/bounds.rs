//! What is not seen, and the bounds of looking.

use crate::host::{CANARY, Host, inside, sees};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use skep_sandbox::toolchains::{Input, agent_roots, discover};

#[test]
fn a_directory_of_personal_scripts_stays_outside_and_is_named() {
    let host = Host::new();
    host.script("bin/deploy", &format!("#!/bin/sh\nTOKEN={CANARY}\n"));
    let found = host.discover(&["bin", "missing/bin", "."]);
    assert!(!sees(&found, &host.path("bin")));
    assert!(
        found
            .notes
            .iter()
            .any(|it| it.what.contains("home/ada/bin is left out")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_policy_can_name_a_toolchain_but_not_a_home_nor_what_is_private_in_it() {
    let mut host = Host::new();
    host.exe("work/zig/zig");
    host.exe(".ssh/bin/x");
    host.exe("bin/x");
    host.exe(".config/tool/bin/x");
    host.extra_roots = [
        "~/work/zig",
        "~",
        "~/.ssh",
        "~/.config/tool",
        "/",
        "/root",
        "/run",
        "/var/run",
        "~/Documents",
        "~/nowhere",
        "../x",
    ]
    .map(PathBuf::from)
    .to_vec();
    host.extra_roots
        .push(host.home.parent().unwrap().to_owned());
    let found = host.discover(&[]);
    assert!(host.on_path(&found, "work/zig"));
    let mounted: Vec<_> = found
        .mounts
        .iter()
        .filter(|it| it.host.starts_with(host.dir.path()))
        .collect();
    assert_eq!(mounted.len(), 1, "{mounted:?}");
    assert!(found.notes.len() >= 9, "{:?}", found.notes);
    // Each says what to do about it.
    let mute = found.notes.iter().find(|it| it.remedy.is_empty());
    assert_eq!(mute, None);
}

#[test]
fn a_link_does_not_lead_a_mount_into_what_is_private() {
    let mut host = Host::new();
    host.exe(".ssh/bin/python3");
    host.dir(".ssh/lib");
    host.link("tools", host.path(".ssh"));
    host.link(".local/bin/python3", host.path(".ssh/bin/python3"));
    host.extra_roots.push("~/tools".into());
    let found = host.discover(&["tools/bin", ".local/bin"]);
    assert!(
        found
            .mounts
            .iter()
            .all(|it| !it.host.starts_with(host.path(".ssh"))),
        "{:?}",
        found.mounts
    );
}

#[test]
fn what_the_user_cannot_read_is_noted_and_not_fatal() {
    let host = Host::new();
    host.exe("locked/go/bin/go");
    fs::set_permissions(host.path("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let found = host.discover(&["locked/go/bin"]);
    // Root reads everything; anybody else is told.
    let root = rustix::process::geteuid().is_root();
    assert_eq!(
        found.notes.iter().any(|it| it.what.contains("cannot read")),
        !root,
        "{:?}",
        found.notes
    );
    fs::set_permissions(host.path("locked"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_host_with_too_much_keeps_the_bounds_and_says_so() {
    let host = Host::new();
    let names: Vec<String> = (0..200).map(|n| format!("many/{n}/bin")).collect();
    for name in &names {
        host.exe(&format!("{name}/python3"));
    }
    let entries: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = host.discover(&entries);
    assert!(found.mounts.len() > 32);
    assert!(
        found
            .notes
            .iter()
            .any(|it| it.what.contains("only the first 64 entries")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_toolchain_behind_a_link_is_seen_at_both_paths() {
    let host = Host::new();
    host.exe("disk/tools/zulu/bin/java");
    host.dir("disk/tools/zulu/lib/modules");
    host.link("jdk", host.path("disk/tools/zulu"));
    let found = host.discover(&["jdk/bin"]);
    assert!(host.on_path(&found, "jdk/bin"));
    assert!(sees(&found, &host.path("disk/tools/zulu/bin/java")));
}

#[test]
fn every_link_on_the_way_to_a_program_is_seen() {
    let host = Host::new();
    host.file("venvs/x/pyvenv.cfg", "home = /usr/bin\n");
    host.link("venvs/x/bin/python3", "/usr/bin/env");
    let first = host.link("bin/tool", host.path("venvs/x/bin/python3"));
    let mounts = host.with(&[], |input| agent_roots(&first, input));
    assert!(
        inside(&mounts, &host.path("venvs/x/bin/python3")),
        "{mounts:?}"
    );
    assert!(inside(&mounts, &first), "{mounts:?}");
}

#[test]
fn looking_takes_no_longer_than_the_way_to_the_first_call_allows() {
    // The host as it is; the mark is 2 ms for an optimised build, with room here for a slow one.
    let env = |name: &str| std::env::var_os(name);
    let input = Input {
        path: std::env::var_os("PATH").unwrap_or_default(),
        home: std::env::var_os("HOME").unwrap_or_default().into(),
        env: &env,
        extra_roots: Vec::new(),
    };
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(discover(&input));
            start.elapsed()
        })
        .min();
    assert!(best < Some(Duration::from_millis(20)), "{best:?}");
}
