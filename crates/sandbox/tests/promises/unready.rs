//! Sidecars that do not become ready, or end: what is said of each.

use std::path::Path;
use std::time::{Duration, Instant};

use skep_sandbox::container::{Ready, Sidecar, When};
use skep_sandbox::{Backend, Error, Limit, Spec, Trouble, Unready, Workspace};
use testkit::Home;

use crate::room::{PATIENCE, Room};
use crate::sidecars::{self, PORT, SECRET, beside, server, sidecar};

/// What is said of sidecars that do not come to be, in all and of each.
async fn refuses(place: &Path, sidecars: Vec<Sidecar>) -> (String, Vec<Unready>) {
    let workspace = Workspace::Directory(place.to_owned());
    let made = beside(sidecars).create(Spec::new(workspace)).await;
    let error = made.err().unwrap();
    assert_eq!(Trouble::of_error(&error), Some(Trouble::SidecarNotReady));
    let said = error.to_string();
    assert!(!said.contains(SECRET), "{said}");
    match error {
        Error::Sidecars(all) => (said, all),
        other => panic!("{other}"),
    }
}

// docs/bad-input.md: A sidecar that is never ready
#[test]
fn of_sidecars_that_fail_each_is_named_with_its_lines_and_one_that_dies_meanwhile_too() {
    sidecars::run(Home::new(), "unready::several_that_fail");
}

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn several_that_fail() {
    let place = tempfile::tempdir().unwrap();
    let named = |name: &str, mut one: Sidecar| {
        one.name = name.into();
        one
    };
    let ends = sidecar(["sh", "-c", "echo one; echo two; exit 3"], None);
    let mut silent = sidecar(["sleep", "1000"], Some(When::Port(PORT)));
    silent.ready.as_mut().unwrap().within = Duration::from_secs(1);
    let all = vec![
        named("ends", ends),
        named("silent", silent),
        named("lives", sidecar(["sleep", "1000"], None)),
    ];
    let (said, all) = refuses(place.path(), all).await;
    let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{said}");
    assert!(names.contains(&"ends") && names.contains(&"silent"));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("2 sidecars are not ready: "), "{said}");
    let at = lines
        .iter()
        .position(|it| it.starts_with("  the sidecar ends"));
    assert_eq!(lines[at.unwrap() + 1..][..2], ["    one", "    two"]);
    assert_eq!(crate::contained::containers(), Vec::<String>::new());
}

// docs/bad-input.md: A sidecar that takes more memory than it may
#[test]
fn a_sidecar_that_is_killed_for_its_memory_says_so_with_what_to_do() {
    sidecars::run(Home::new(), "unready::killed_for_memory");
}

/// Serves until somebody connects, then takes more memory than it may.
const GREEDY: &str = "socket(S,2,1,0)||die; setsockopt(S,1,2,1); bind(S,pack('S n C4 x8',2,7432,127,0,0,1))||die \"$!\"; \
    listen(S,9); $|=1; print \"serving\\n\"; while(accept(C,S)){ last if sysread(C,$b,1) } $n=400<<20; $x='x' x $n; sleep 1000";

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn killed_for_memory() {
    let mut greedy = sidecar(["perl", "-e", GREEDY], Some(When::Port(PORT)));
    greedy.limits.memory_bytes = Some(48 << 20);
    let room = Room::of(&beside(vec![greedy]), |_| {}).await;
    let before = room.sandbox.diagnose().await.sidecars.remove(0);
    assert!(before.alive && before.health.ready);
    room.says(&format!(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{PORT}; echo now >&3; cat <&3'; true"
    ))
    .await;
    // Its connection ends with it; that it has ended is told a moment later.
    let end = Instant::now() + PATIENCE;
    let after = loop {
        let found = room.sandbox.diagnose().await.sidecars.remove(0);
        if found.exit.is_some() {
            break found;
        }
        assert!(Instant::now() < end, "{found:?}");
    };
    let exit = after.exit.unwrap();
    assert_eq!((exit.signal, exit.limit), (Some(9), Some(Limit::Memory)));
    assert_eq!(after.trouble, Some(Trouble::OutOfMemory));
    assert!(
        after
            .remedy
            .unwrap()
            .contains("`memory` under `[[sandbox.sidecar]]`")
    );
    assert_eq!(after.out_of_memory_kills, Some(1));
    assert!(!after.alive && !after.health.ready && after.health.since > before.health.since);
    assert_eq!(after.output, ["serving"]);
    room.sandbox.destroy().await.unwrap();

    let mut greedy = sidecar(
        ["perl", "-e", "print qq(up\\n); $n=400<<20; $x='x' x $n"],
        None,
    );
    greedy.limits.memory_bytes = Some(48 << 20);
    greedy.ready = Some(Ready {
        when: When::Port(PORT),
        within: PATIENCE,
    });
    let place = tempfile::tempdir().unwrap();
    let (said, all) = refuses(place.path(), vec![greedy]).await;
    assert_eq!(all[0].trouble, Trouble::OutOfMemory, "{said}");
    let remedy = Trouble::OutOfMemory.remedy_beside();
    assert!(said.contains(remedy), "{said}");
}

// docs/bad-input.md: A sidecar that is never ready
#[test]
fn a_sidecar_that_is_never_ready_is_named_with_its_state_and_last_lines() {
    sidecars::run(Home::new(), "unready::sidecars_that_are_not_ready");
}

#[tokio::test]
#[ignore = "run by another test, which makes its image"]
async fn sidecars_that_are_not_ready() {
    let place = tempfile::tempdir().unwrap();
    let refused = async |sidecar: Sidecar| {
        let (said, mut all) = refuses(place.path(), vec![sidecar]).await;
        assert!(said.contains("the sidecar db"), "{said}");
        let it = all.remove(0);
        assert!(said.contains(it.trouble.remedy_beside()), "{said}");
        (it.what, it.state, it.output)
    };
    let talks = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i $TOKEN; done; sleep 1000";
    let mut silent = sidecar(["sh", "-c", talks], Some(When::Port(PORT)));
    silent.ready.as_mut().unwrap().within = Duration::from_secs(2);
    let (what, state, output) = refused(silent).await;
    assert_eq!(
        what,
        format!("nothing answers at port {PORT} within 2 seconds")
    );
    assert_eq!(state, "running");
    assert_eq!((output.len(), output[49].as_str()), (50, "60 [hidden]"));
    let ends = sidecar(
        ["sh", "-c", "echo why $TOKEN >&2; exit 3"],
        Some(When::Port(PORT)),
    );
    let (what, state, output) = refused(ends).await;
    assert_eq!(what, "its command has ended");
    assert_eq!(state, "not running (exit code 3)");
    assert_eq!(output, ["why [hidden]"]);
    let (what, state, _) = refused(sidecar(["no-such-program"], None)).await;
    assert!(what.contains("no-such-program"), "{what}");
    assert_eq!(state, "not running");
    let mut nobody = sidecar(["true"], None);
    nobody.user = Some("no-such-user".into());
    let (_, mut all) = refuses(place.path(), vec![nobody]).await;
    let it = all.remove(0);
    assert_eq!(
        (it.trouble, it.state.as_str()),
        (Trouble::UserMissing, "not started")
    );
    assert!(it.what.contains("no-such-user"), "{}", it.what);
    assert_eq!(crate::contained::containers(), Vec::<String>::new());

    let gone = beside(vec![server("localhost/not-there:1")]);
    let workspace = Workspace::Directory(place.path().to_owned());
    let refused = gone.create(Spec::new(workspace)).await.err().unwrap();
    assert!(refused.to_string().contains(" pull localhost/not-there:1`"));
}
