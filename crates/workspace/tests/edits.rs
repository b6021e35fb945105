//! What the trusted side writes into a workspace is there for the agent, and, once frozen, no change.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod scene;

use std::fs;

use bstr::{BStr, ByteSlice};
use scene::{KINDS, Node, Scene};
use skep_workspace::{Change, Error, Layering, Workspace};

#[test]
fn all_of_this_holds_for_an_ordinary_user_too() {
    scene::again_as_an_ordinary_user("all_of_this_holds_for_an_ordinary_user_too");
}

/// Not a test of its own: what happens in the merged view, in a process of its own.
#[test]
fn child_plays_a_scene() {
    scene::child(|name| match name {
        "nothing" => {}
        "work" => {
            fs::write("src/main.rs", "agent").unwrap();
            fs::remove_file(".env").unwrap();
            fs::remove_dir_all("docs").unwrap();
        }
        other => panic!("{other}"),
    });
}

fn edit(workspace: &Workspace) {
    let path = |path: &'static str| -> &'static BStr { path.into() };
    workspace
        .edit()
        .write(path(".env"), false, b"KEY=test")
        .unwrap();
    workspace
        .edit()
        .write(path("src/main.rs"), true, b"edited")
        .unwrap();
    workspace
        .edit()
        .write(path("src/deep"), false, b"a file now")
        .unwrap();
    workspace
        .edit()
        .write(path("README.md/part"), false, b"p")
        .unwrap();
    workspace
        .edit()
        .write(path("dirlink/inside"), false, b"not through the link")
        .unwrap();
    workspace
        .edit()
        .link(path("out"), path("/etc/passwd"))
        .unwrap();
    workspace.edit().remove(path("vendor")).unwrap();
    workspace.edit().remove(path("old/d.txt")).unwrap();
}

#[test]
fn what_is_written_from_outside_is_what_the_agent_sees_and_what_comes_out() {
    for kind in KINDS {
        let scene = Scene::new(kind);
        edit(&scene.workspace);
        let seen = scene.play("nothing");
        assert_eq!(
            seen.get(b".env".as_slice()),
            Some(&Node::File {
                executable: false,
                content: b"KEY=test".to_vec()
            })
        );
        assert!(
            seen.contains_key(b"dirlink/inside".as_slice())
                && !seen.contains_key(b"src/inside".as_slice())
        );
        assert!(
            !seen.contains_key(b"vendor/v.c".as_slice())
                && !seen.contains_key(b"README.md".as_slice())
        );
        assert_eq!(scene.applied(), seen, "{kind:?}");
    }
}

#[test]
fn what_was_frozen_is_no_change_and_what_the_agent_does_to_it_is() {
    for kind in KINDS {
        let mut scene = Scene::new(kind);
        for round in 0..3 {
            let file = format!("round {round}");
            edit(&scene.workspace);
            scene
                .workspace
                .edit()
                .write(file.as_bytes().as_bstr(), false, b"r")
                .unwrap();
            scene.workspace.freeze().unwrap();
            assert_eq!(scene.lines(), Vec::<String>::new(), "{kind:?}");
        }
        let before = scene.play("nothing");
        assert!(scene.lines().is_empty() && before.contains_key(b"round 0".as_slice()));
        let seen = scene.play("work");
        assert_eq!(
            scene.lines(),
            ["- .env", "- docs", "x src/main.rs 5"],
            "{kind:?}"
        );
        let mut applied = before;
        for change in scene.changes().0 {
            scene::apply(&mut applied, change);
        }
        assert_eq!(applied, seen, "{kind:?}");

        drop(scene.workspace);
        let again = scene.store.open_workspace("w").unwrap();
        let mut found = Vec::new();
        again
            .changes(&Default::default(), &mut |change: Change| {
                found.push(scene::line(&change));
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(found.len(), 3, "a freeze is kept");
        again.delete().unwrap();
        let emptied = scene.store.empty_trash(&Default::default()).unwrap();
        assert!(
            emptied.removed == 1 && emptied.failed.is_empty(),
            "{emptied:?}"
        );
    }
}

#[test]
fn no_path_leads_out_of_the_workspace_or_into_a_git_directory() {
    let scene = Scene::new(Layering::Overlay);
    for path in [
        "",
        "/x",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        ".git/config",
        "a/.GIT",
        "nul\0",
    ] {
        let refused = scene
            .workspace
            .edit()
            .write(path.as_bytes().as_bstr(), false, b"x");
        assert!(matches!(refused, Err(Error::EditPath { .. })), "{path:?}");
        assert!(
            matches!(
                scene.workspace.edit().remove(path.as_bytes().as_bstr()),
                Err(Error::EditPath { .. })
            ),
            "{path:?}"
        );
    }
    assert!(scene.lines().is_empty());
}
