//! What an agent did in its workspace comes out as entries that, applied to the base, give exactly
//! what the agent saw.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use bstr::BStr;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use scene::{KINDS, Node, Scene, os};
use skep_workspace::{Change, Error, GitDir, Layering, Limit, Limits, Visitor, Why};

#[test]
fn all_of_this_holds_for_an_ordinary_user_too() {
    scene::again_as_an_ordinary_user("all_of_this_holds_for_an_ordinary_user_too");
}

/// Not a test of its own: what happens in the merged view, in a process of its own.
#[test]
fn child_plays_a_scene() {
    scene::child(|name| match name {
        "nothing" => {}
        "everyday" => everyday(),
        "specials" => specials(),
        "shut" => shut(),
        "forged" => forged(),
        "touched" => touched(),
        "git kept" => fs::write(".git/index", "x").unwrap(),
        "git removed" => fs::remove_dir_all(".git").unwrap(),
        "git link" => {
            fs::remove_dir_all(".git").unwrap();
            symlink("/etc", ".git").unwrap();
        }
        "git file" => {
            fs::rename(".git", "moved").unwrap_or_else(|_| fs::remove_dir_all(".git").unwrap());
            fs::write(".git", "gitdir: /elsewhere").unwrap();
        }
        "git replaced" => {
            fs::remove_dir_all(".git").unwrap();
            fs::create_dir(".git").unwrap();
            fs::write(".git/HEAD", "ref: x").unwrap();
        }
        "git below" => {
            for dir in ["src/.git", "docs/.GIT", "new/.git"] {
                fs::create_dir_all(dir).unwrap();
                fs::write(Path::new(dir).join("config"), "[core] fsmonitor = evil").unwrap();
            }
            fs::write("vendor/.git", "gitdir: ../..").unwrap();
            fs::write("vendor/new.c", "n").unwrap();
        }
        seed => scene::random(seed.parse().unwrap()),
    });
}

fn everyday() {
    fs::write("src/new.rs", "new").unwrap();
    fs::write("src/main.rs", "fn main() { f() }").unwrap();
    fs::remove_file("docs/one.md").unwrap();
    fs::remove_dir_all("vendor").unwrap();
    fs::remove_dir_all("src/deep").unwrap();
    fs::write("src/deep", "a file now").unwrap();
    fs::remove_file("README.md").unwrap();
    fs::create_dir("README.md").unwrap();
    fs::write("README.md/part", "p").unwrap();
    fs::remove_dir_all("old/a").unwrap();
    fs::create_dir("old/a").unwrap();
    fs::write("old/a/fresh", "f").unwrap();
    // The kernel answers EXDEV for a directory of the base; every tool then copies and deletes.
    if fs::rename("docs", "texts").is_err() {
        fs::create_dir("texts").unwrap();
        fs::copy("docs/two.md", "texts/two.md").unwrap();
        fs::remove_dir_all("docs").unwrap();
    }
    fs::set_permissions("src/lib.rs", fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions("run.sh", fs::Permissions::from_mode(0o644)).unwrap();
    symlink("src/lib.rs", "lib").unwrap();
    fs::remove_file("dirlink").unwrap();
    symlink("/etc/passwd", "dirlink").unwrap();
    symlink("../../../../etc", "out").unwrap();
    fs::hard_link("src/new.rs", "src/same.rs").unwrap();
    fs::File::create("sparse")
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    fs::write("n".repeat(255), "long").unwrap();
    fs::write("line\nbreak", "n").unwrap();
    fs::write(os(b"not \xff utf-8 \xc3"), "b").unwrap();
    fs::create_dir_all(format!("{0}/{0}/{0}", "d".repeat(200))).unwrap();
    fs::write(format!("{0}/{0}/{0}/leaf", "d".repeat(200)), "leaf").unwrap();
    fs::create_dir("empty").unwrap();
}

#[test]
fn the_base_with_the_entries_applied_is_what_the_agent_saw() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let seen = scene.play("everyday");
        assert!(
            seen.len() > 15 && scene.applied() == seen,
            "{kind:?}: {:#?}",
            scene.lines()
        );
        assert!(scene.workspace.disk_bytes().unwrap() >= 4096);
    }
}

#[test]
fn entries_name_exactly_what_was_done_in_the_order_of_bytes() {
    let scene = Scene::new(Layering::Overlay);
    scene.play("everyday");
    let lines: Vec<_> = scene
        .lines()
        .into_iter()
        .filter(|line| line.len() < 60)
        .collect();
    assert_eq!(
        lines,
        [
            "/ README.md",
            "f README.md/part 1",
            "l dirlink -> /etc/passwd",
            "- docs",
            "l lib -> src/lib.rs",
            "f line\nbreak 1",
            "f not \u{fffd} utf-8 \u{fffd} 1",
            "/ old/a",
            "f old/a/fresh 1",
            "l out -> ../../../../etc",
            "f run.sh 9",
            "f sparse 1048576",
            "f src/deep 10",
            "x src/lib.rs 13",
            "f src/main.rs 17",
            "f src/new.rs 3",
            "f src/same.rs 3",
            "f texts/two.md 3",
            "- vendor",
        ]
    );
    assert_eq!(
        lines,
        scene
            .lines()
            .into_iter()
            .filter(|line| line.len() < 60)
            .collect::<Vec<_>>(),
        "the same again"
    );
}

#[test]
fn nothing_done_is_nothing_changed() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        scene.play("nothing");
        let (changes, summary) = scene.changes();
        assert!(changes.is_empty(), "{kind:?}: {changes:?}");
        assert_eq!((summary.git, summary.refused.len()), (GitDir::Kept, 0));
    }
}

#[test]
fn any_sequence_of_operations_comes_out_as_it_went_in() {
    for seed in 1..=18_u64 {
        let scene = Scene::new(if seed % 3 == 0 {
            Layering::Copy
        } else {
            Layering::Overlay
        });
        let seen = scene.play(&seed.to_string());
        let applied = scene.applied();
        let seen: scene::Tree = seen
            .into_iter()
            .filter(|(_, node)| *node != Node::Special)
            .collect();
        assert_eq!(applied, seen, "seed {seed}: {:#?}", scene.lines());
    }
}

#[test]
fn any_sequence_of_operations_comes_out_of_a_listing_as_out_of_the_directory() {
    for seed in 1..=12_u64 {
        let scene = Scene::new(Layering::Copy);
        let before = scene.listing();
        let seen = scene.play(&seed.to_string());
        let now = scene.listing();
        let (changes, summary) = scene.changes_elsewhere(&before, &now, &Limits::default());
        let (known, known_summary) = scene.changes();
        let refused = |of: &skep_workspace::Summary| (of.refused.clone(), of.git);
        assert_eq!(refused(&summary), refused(&known_summary), "seed {seed}");
        // What the last tick of the clock touched may come besides, with the content of the base.
        let lines: Vec<_> = changes.iter().map(scene::line).collect();
        for line in known.iter().map(scene::line) {
            assert!(lines.contains(&line), "seed {seed}: {line}");
        }
        let paths: Vec<_> = changes
            .iter()
            .map(|change| (change.path().to_vec(), ""))
            .collect();
        scene::check_order(&paths);
        let mut applied = scene::tree(&scene.base.trees()[0]);
        for change in changes {
            scene::apply(&mut applied, change);
        }
        let seen: scene::Tree = seen
            .into_iter()
            .filter(|(_, node)| *node != Node::Special)
            .collect();
        assert_eq!(applied, seen, "seed {seed}: {lines:#?}");
    }
}

#[test]
fn a_listing_has_the_limits_and_refusals_of_a_directory() {
    for name in [
        "specials",
        "git below",
        "git removed",
        "git link",
        "everyday",
    ] {
        let scene = Scene::new(Layering::Copy);
        let before = scene.listing();
        scene.play(name);
        let now = scene.listing();
        let (_, summary) = scene.changes_elsewhere(&before, &now, &Limits::default());
        let (_, known) = scene.changes();
        assert_eq!(
            (summary.refused, summary.git),
            (known.refused, known.git),
            "{name}"
        );
        let limits = Limits {
            file_bytes: 2,
            ..Limits::default()
        };
        let refused = scene.limited_elsewhere(&before, &now, &limits);
        let limit = matches!(
            refused,
            Err(Error::Limit {
                limit: Limit::FileBytes,
                ..
            })
        );
        assert!(limit || name != "everyday", "{name}: {refused:?}");
    }
}

#[test]
fn a_listing_that_makes_no_sense_is_refused() {
    for paths in [
        &["a/b"][..],
        &["a", "a"],
        &["file", "file/below"],
        &[""],
        &["/a"],
        &[".."],
        &["a\0b"],
        &["a/"],
    ] {
        let mut listing = skep_workspace::Listing::default();
        let added: Result<Vec<()>, _> = paths
            .iter()
            .map(|path| listing.add(scene::seen(path, *path == "a")))
            .collect();
        assert!(matches!(added, Err(Error::Listing { .. })), "{paths:?}");
    }
}

fn specials() {
    mknodat(CWD, "pipe", FileType::Fifo, Mode::from(0o644), 0).unwrap();
    drop(UnixListener::bind("socket").unwrap());
    fs::remove_file("src/lib.rs").unwrap();
    mknodat(CWD, "src/lib.rs", FileType::Fifo, Mode::from(0o644), 0).unwrap();
    // A device 0:0 is the one that the kernel lets an ordinary user make; not through an overlay.
    mknodat(
        CWD,
        "whiteout",
        FileType::CharacterDevice,
        Mode::from(0o644),
        0,
    )
    .unwrap_or_default();
    fs::write("plain", "p").unwrap();
}

#[test]
fn pipes_sockets_and_devices_are_refused_and_never_opened() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        scene.play("specials");
        let (changes, summary) = scene.changes();
        let refused: Vec<_> = summary
            .refused
            .iter()
            .map(|r| (r.path.to_string(), r.why))
            .collect();
        let expected = [
            ("pipe", Why::Pipe),
            ("socket", Why::Socket),
            ("src/lib.rs", Why::Pipe),
        ];
        for (path, why) in expected {
            assert!(
                refused.contains(&(path.to_owned(), why)),
                "{kind:?}: {refused:?}"
            );
        }
        assert!(changes.iter().any(|change| change.path() == "plain"));
        assert!(
            changes
                .iter()
                .all(|change| matches!(change, Change::File { .. })),
            "{changes:?}"
        );
    }
}

fn shut() {
    fs::create_dir_all("shut/in").unwrap();
    fs::write("shut/in/secret", "s").unwrap();
    fs::write("src/main.rs", "closed").unwrap();
    fs::set_permissions("src/main.rs", fs::Permissions::from_mode(0o0)).unwrap();
    fs::write("noread.sh", "e").unwrap();
    fs::set_permissions("noread.sh", fs::Permissions::from_mode(0o111)).unwrap();
    for dir in ["shut/in", "shut", "src"] {
        fs::set_permissions(
            dir,
            fs::Permissions::from_mode(if dir == "src" { 0o444 } else { 0o0 }),
        )
        .unwrap();
    }
}

#[test]
fn what_an_agent_made_unreadable_is_read_all_the_same_and_left_as_it_was() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let before = |path: &str| {
            fs::symlink_metadata(scene.written().join(path))
                .unwrap()
                .mode()
                & 0o777
        };
        let script = "shut";
        // The scene looks at its tree, which opens it again: shut it afterwards from outside.
        scene.play(script);
        for (path, mode) in [
            ("shut/in/secret", 0),
            ("shut/in", 0),
            ("shut", 0),
            ("src/main.rs", 0),
            ("noread.sh", 0o111),
            ("src", 0o444),
        ] {
            fs::set_permissions(scene.written().join(path), fs::Permissions::from_mode(mode))
                .unwrap();
        }
        let lines = scene.lines();
        assert_eq!(
            lines
                .iter()
                .filter(|line| !line.starts_with('/'))
                .collect::<Vec<_>>(),
            ["x noread.sh 1", "f shut/in/secret 1", "f src/main.rs 6"],
            "{kind:?}"
        );
        assert_eq!(
            (before("shut"), before("src"), before("noread.sh")),
            (0, 0o444, 0o111)
        );
        scene.workspace.disk_bytes().unwrap();
        for dir in ["shut", "src", "shut/in"] {
            fs::set_permissions(scene.written().join(dir), fs::Permissions::from_mode(0o755))
                .unwrap();
        }
    }
}

// docs/bad-input.md: An agent that deletes `.git`
// docs/bad-input.md: An agent that makes `.git` a link
#[test]
fn the_top_git_directory_is_never_visited_and_its_fate_is_told() {
    for kind in KINDS {
        for (name, expected) in [
            ("git kept", GitDir::Kept),
            ("git removed", GitDir::Removed),
            ("git link", GitDir::Replaced),
            ("git file", GitDir::Replaced),
            ("git replaced", GitDir::Replaced),
        ] {
            let scene = Scene::new(kind);
            scene.play(name);
            let (changes, summary) = scene.changes();
            assert_eq!(summary.git, expected, "{kind:?} {name}");
            assert!(
                changes
                    .iter()
                    .all(|change| change.path().starts_with(b"moved")),
                "{kind:?} {name}: {changes:?}"
            );
        }
    }
}

#[test]
fn a_git_directory_further_down_is_refused_whatever_its_spelling() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        scene.play("git below");
        let (changes, summary) = scene.changes();
        let refused: Vec<_> = summary
            .refused
            .iter()
            .map(|r| (r.path.to_string(), r.why))
            .collect();
        let expected = ["docs/.GIT", "new/.git", "src/.git", "vendor/.git"]
            .map(|p| (p.to_owned(), Why::GitDirectory));
        assert_eq!(refused, expected, "{kind:?}");
        let files: Vec<_> = changes
            .iter()
            .filter(|change| matches!(change, Change::File { .. }))
            .map(scene::line)
            .collect();
        assert_eq!(files, ["f vendor/new.c 1"], "{kind:?}");
    }
}

fn forged() {
    fs::write("src/main.rs", "mine").unwrap();
    fs::write("zero", "").unwrap();
    fs::create_dir("dir").unwrap();
    fs::write("dir/f", "f").unwrap();
    fs::write("docs/new", "n").unwrap();
    for (path, name, value) in [
        ("docs", "user.overlay.opaque", "y"),
        ("docs", "user.overlay.redirect", "/etc"),
        ("dir", "user.overlay.redirect", "/src"),
        ("zero", "user.overlay.whiteout", "y"),
        ("src/main.rs", "user.overlay.metacopy", ""),
        ("src/main.rs", "user.overlay.origin", "x"),
        ("src/lib.rs", "trusted.overlay.metacopy", ""),
    ] {
        // Stored under another name since Linux 6.7, refused before.
        setxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap_or_default();
    }
}

#[test]
fn overlay_attributes_that_an_agent_sets_mean_nothing() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let seen = scene.play("forged");
        assert_eq!(scene.applied(), seen, "{kind:?}: {:?}", scene.lines());
        assert!(
            seen.contains_key(b"docs/one.md".as_slice()) && seen.contains_key(b"zero".as_slice())
        );
        assert!(scene.changes().1.refused.is_empty());
    }
}

#[test]
fn overlay_attributes_in_the_layer_itself_mean_what_the_kernel_means_by_them() {
    let scene = Scene::new(Layering::Overlay);
    let upper = scene.written();
    for dir in ["docs", "old", "redirected", "src"] {
        fs::create_dir(upper.join(dir)).unwrap();
    }
    for (path, content) in [
        ("docs/two.md", ""),
        ("redirected/f", "f"),
        ("src/main.rs", "\0\0"),
        ("old/new", "n"),
    ] {
        fs::write(upper.join(path), content).unwrap();
    }
    for (path, name, value) in [
        ("docs", "user.overlay.opaque", "x"),
        ("docs/two.md", "user.overlay.whiteout", "y"),
        ("old", "user.overlay.opaque", "y"),
        ("redirected", "user.overlay.redirect", "/src"),
        ("src/main.rs", "user.overlay.metacopy", ""),
    ] {
        setxattr(
            upper.join(path),
            name,
            value.as_bytes(),
            XattrFlags::empty(),
        )
        .unwrap();
    }
    assert_eq!(scene.lines(), ["- docs/two.md", "/ old", "f old/new 1"]);
    let refused: Vec<_> = scene
        .changes()
        .1
        .refused
        .iter()
        .map(|r| (r.path.to_string(), r.why))
        .collect();
    assert_eq!(
        refused,
        ["redirected", "src/main.rs"].map(|p| (p.to_owned(), Why::Elsewhere))
    );
}

fn touched() {
    // The same size, and the time set back: only what an agent cannot set tells.
    let time = fs::metadata("src/main.rs").unwrap().modified().unwrap();
    fs::write("src/main.rs", "fn evil() {}").unwrap();
    fs::File::options()
        .write(true)
        .open("src/main.rs")
        .unwrap()
        .set_modified(time)
        .unwrap();
    let time = fs::metadata("docs/one.md").unwrap().modified().unwrap();
    fs::write("docs/other", "ONE").unwrap();
    fs::File::options()
        .write(true)
        .open("docs/other")
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::rename("docs/other", "docs/one.md").unwrap();
}

#[test]
fn a_change_with_size_and_time_set_back_is_found() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let seen = scene.play("touched");
        assert_eq!(
            scene.lines(),
            ["f docs/one.md 3", "f src/main.rs 12"],
            "{kind:?}"
        );
        assert_eq!(scene.applied(), seen);
    }
}

#[test]
fn each_limit_is_an_error_that_names_the_path_and_the_limit() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let top = scene.written();
        fs::create_dir_all(top.join("n/o/p")).unwrap();
        fs::write(top.join("n/big"), "x".repeat(1000)).unwrap();
        fs::File::create(top.join("n/huge"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        fs::write(top.join("n/o/p/q"), "x".repeat(500)).unwrap();
        let enough = Limits {
            file_bytes: 1 << 41,
            total_bytes: 1 << 41,
            ..Limits::default()
        };
        for (limits, path, limit) in [
            (Limits::default(), "n/huge", Limit::FileBytes),
            (
                Limits {
                    file_bytes: 999,
                    ..enough.clone()
                },
                "n/big",
                Limit::FileBytes,
            ),
            (
                Limits {
                    total_bytes: 1 << 40,
                    ..enough.clone()
                },
                "n/huge",
                Limit::TotalBytes,
            ),
            (
                Limits {
                    depth: 2,
                    ..enough.clone()
                },
                "n/o/p",
                Limit::Depth,
            ),
            (
                Limits {
                    path_bytes: 6,
                    ..enough.clone()
                },
                "n/o/p/q",
                Limit::PathBytes,
            ),
            (
                Limits {
                    entries: 3,
                    ..enough.clone()
                },
                "n",
                Limit::Entries,
            ),
        ] {
            match scene
                .workspace
                .changes(&limits, &mut |_| Ok::<_, Error>(()))
            {
                Err(Error::Limit {
                    path: at,
                    limit: which,
                    ..
                }) => assert_eq!((at.to_string().as_str(), which), (path, limit)),
                other => panic!("{kind:?} {limit:?}: {other:?}"),
            }
        }
        assert!(
            scene
                .workspace
                .changes(&enough, &mut |_| Ok::<_, Error>(()))
                .is_ok()
        );
    }
}

#[test]
fn an_error_of_the_visitor_ends_the_reading() {
    #[derive(Debug)]
    struct Enough;
    impl From<Error> for Enough {
        fn from(error: Error) -> Self {
            panic!("{error}")
        }
    }
    let scene = Scene::new(Layering::Overlay);
    scene.play("everyday");
    let mut visits = 0;
    let result = scene.workspace.changes(&Limits::default(), &mut |_| {
        visits += 1;
        if visits == 3 { Err(Enough) } else { Ok(()) }
    });
    assert!(matches!(result, Err(Enough)) && visits == 3);
}

#[test]
fn a_directory_swapped_for_a_link_while_it_is_read_never_leads_outside() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        let secret = scene.dir.path().join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("f"), "SECRET").unwrap();
        let [real, aside, link] = ["swap", "aside", "link2"].map(|name| scene.written().join(name));
        fs::create_dir(&real).unwrap();
        fs::write(real.join("f"), "mine").unwrap();
        symlink(&secret, &link).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for (from, to) in [
                        (&real, &aside),
                        (&link, &real),
                        (&real, &link),
                        (&aside, &real),
                    ] {
                        drop(fs::rename(from, to));
                    }
                }
            });
            let _stop = scene::Stop(&stop);
            let (mut whole, mut changed) = (0, 0);
            for _ in 0..1500 {
                let result = scene.workspace.changes(&Limits::default(), &mut |change| {
                    if let Change::File {
                        mut content, path, ..
                    } = change
                    {
                        let mut text = String::new();
                        std::io::Read::read_to_string(&mut content, &mut text).unwrap();
                        assert_ne!(text, "SECRET", "{path:?}");
                    }
                    Ok::<_, Error>(())
                });
                match result {
                    Ok(_) => whole += 1,
                    Err(Error::Changed { .. }) => changed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(whole + changed, 1500);
        });
    }
}

// docs/bad-input.md: 100,000 files in one directory
#[test]
fn a_hundred_thousand_new_files_come_out_sorted() {
    let scene = Scene::new(Layering::Overlay);
    let dir = scene.written().join("many");
    fs::create_dir(&dir).unwrap();
    for number in 0..100_000 {
        fs::write(dir.join(format!("{number:x}")), "").unwrap();
    }
    let mut paths = Vec::new();
    scene
        .workspace
        .changes(&Limits::default(), &mut |change| {
            paths.push((change.path().to_vec(), ""));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(paths.len(), 100_000);
    scene::check_order(&paths);
    assert!(scene.workspace.disk_bytes().unwrap() > 1 << 20);
    let few = Limits {
        entries: 99_999,
        ..Limits::default()
    };
    let result = scene.workspace.changes(&few, &mut |_| Ok::<_, Error>(()));
    assert!(matches!(
        result,
        Err(Error::Limit {
            limit: Limit::Entries,
            ..
        })
    ));
}

/// Wants everything but one directory and what ends in `.o`.
#[derive(Default)]
struct WithoutOutput(Vec<String>);

impl Visitor<Error> for WithoutOutput {
    fn wants(&mut self, path: &BStr, is_directory: bool) -> Result<bool, Error> {
        Ok(!(path.ends_with(b".o") || is_directory && path == "target"))
    }

    fn visit(&mut self, change: Change) -> Result<(), Error> {
        self.0.push(change.path().to_string());
        Ok(())
    }
}

#[test]
fn what_is_not_wanted_is_neither_counted_nor_opened() {
    for kind in KINDS {
        let scene = Scene::over(kind, |tree| {
            fs::write(tree.join("known.o"), "of the base").unwrap();
        });
        let top = scene.written();
        fs::create_dir(top.join("target")).unwrap();
        let huge = fs::File::create(top.join("target/huge")).unwrap();
        huge.set_len(150 << 20).unwrap();
        fs::File::create(top.join("huge.o"))
            .unwrap()
            .set_len(150 << 20)
            .unwrap();
        for number in 0..50 {
            fs::write(top.join(format!("target/{number}")), "").unwrap();
            fs::write(top.join(format!("{number}.o")), "").unwrap();
        }
        fs::write(top.join("source"), "new").unwrap();
        let few = Limits {
            entries: 10,
            ..Limits::default()
        };
        let mut seen = WithoutOutput::default();
        let summary = scene.workspace.wanted_changes(&few, &mut seen).unwrap();
        assert_eq!((seen.0, summary.bytes), (vec!["source".to_owned()], 3));
    }
}
