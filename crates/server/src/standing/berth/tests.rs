use super::*;
use crate::standing::{
    Status, Why,
    berths::{Whole, found, sweep},
    kept::Phase,
};

fn all(data: &Path) -> Result<Vec<Whole>, Error> {
    found(data).map(|(whole, _)| whole)
}

fn record(id: SandboxId) -> Record {
    Record {
        id,
        name: Some("one".into()),
        repository: "/repository".into(),
        commit: "1a2b3c4d".into(),
        kind: Kind::Namespace,
        image: None,
        fork_of: None,
        also: Vec::new(),
        beside: Vec::new(),
        given: Given::default(),
        created: Timestamp(1),
        ends: Timestamp(2),
        pid: 1,
    }
}

fn kept(id: SandboxId, ends: Timestamp) -> Kept {
    let record = Record { ends, ..record(id) };
    let origin = crate::standing::moments::Origin {
        of: None,
        repository: "p-1".into(),
        top: "/repository".into(),
        commit: record.commit.clone(),
        roots: Vec::new(),
        also: Vec::new(),
        beside: Vec::new(),
    };
    let kept = Kept {
        record,
        phase: Phase::Made,
        since: Timestamp(1),
        why: None,
        boot: None,
        origin: Some(origin),
    };
    kept.held(Timestamp(1))
}

/// A data directory with the files of this sandbox.
fn with_files(id: SandboxId) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    workspace::Store::open(data.path(), workspace::Layering::Copy).unwrap();
    fs::create_dir(data.path().join("workspaces").join(id.to_string())).unwrap();
    data
}

#[test]
fn what_a_killed_holder_had_is_stopped_and_says_why_until_its_time_is_over() {
    let id = SandboxId::from_bits(7);
    let data = with_files(id);
    let files = data.path().join("workspaces").join(id.to_string());
    let never = Timestamp(i64::MAX);
    let berth = Berth::make(data.path(), id, Some("one")).unwrap();
    berth.write(&kept(id, never)).unwrap();
    let holder = Berth::join(data.path(), id).unwrap();
    let other = Berth::join(data.path(), id);
    assert!(matches!(other, Err(Error::Held { .. })), "{other:?}");
    let standing = |data: &Path| all(data).unwrap().remove(0).1;
    assert_eq!(standing(data.path()).status, Status::Running);
    drop((berth, holder));
    let found = standing(data.path());
    assert_eq!(
        (found.status, found.why),
        (Status::Stopped, Some(Why::Killed))
    );
    assert!(found.since > Timestamp(1));
    assert_eq!(standing(data.path()), found, "it was noticed once");
    let claimed = Berth::claim(data.path(), id).unwrap();
    let mut earlier = claimed.kept().unwrap();
    let berth = Berth::join(data.path(), id).unwrap();
    assert_eq!(standing(data.path()).status, Status::Starting);
    // Of another start of the machine.
    earlier.phase = Phase::Running;
    earlier.boot = Some("another".into());
    berth.write(&earlier).unwrap();
    drop((berth, claimed));
    assert_eq!(standing(data.path()).why, Some(Why::Restarted));
    assert!(files.exists());

    let berth = Berth::claim(data.path(), id).unwrap();
    berth.write(&kept(id, Timestamp(2))).unwrap();
    drop(berth);
    assert!(all(data.path()).unwrap().is_empty(), "its time is over");
    assert!(!files.exists() && !place(data.path()).exists());
}

#[test]
fn one_look_tells_those_that_are_whole_from_those_that_are_damaged() {
    let (one, other) = (SandboxId::from_bits(7), SandboxId::from_bits(8));
    let data = with_files(one);
    let berth = Berth::make(data.path(), one, None).unwrap();
    berth.write(&kept(one, Timestamp(i64::MAX))).unwrap();
    let torn = Berth::make(data.path(), other, None).unwrap();
    fs::write(torn.path.join("record.json"), "{").unwrap();
    let (whole, damaged) = found(data.path()).unwrap();
    let whole: Vec<_> = whole.iter().map(|(record, ..)| record.id).collect();
    let damaged: Vec<_> = damaged.iter().map(|it| it.id).collect();
    assert_eq!((whole, damaged), (vec![one], vec![other]));
}

#[test]
fn of_two_who_want_one_name_at_once_one_gets_it() {
    let data = tempfile::tempdir().unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let start = |bits| {
            let data = data.path();
            scope.spawn(move || Berth::make(data, SandboxId::from_bits(bits), Some("one")))
        };
        let all: Vec<_> = (1..=8).map(start).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let refused = made
        .iter()
        .filter(|it| matches!(it, Err(Error::NameTaken { .. })));
    assert_eq!(refused.count(), 7, "{made:?}");
    drop(made);
    let again = Berth::make(data.path(), SandboxId::from_bits(9), Some("one"));
    assert!(again.is_ok(), "its maker was killed: {again:?}");
}

#[test]
fn whoever_is_killed_while_it_is_made_or_destroyed_leaves_no_sandbox() {
    let id = SandboxId::from_bits(7);
    for step in 0..3 {
        let data = with_files(id);
        let berth = Berth::make(data.path(), id, None).unwrap();
        let kept = kept(id, Timestamp(i64::MAX));
        match step {
            // Its maker was killed before anybody knew that it was ready,
            0 => berth
                .write(&Kept {
                    phase: Phase::Made,
                    ..kept
                })
                .unwrap(),
            // its holder once it was to go,
            1 => {
                berth.write(&kept).unwrap();
                berth.strike().unwrap();
            }
            // or whoever took its files.
            _ => {
                berth.write(&kept).unwrap();
                fs::remove_dir(data.path().join("workspaces").join(id.to_string())).unwrap();
            }
        }
        drop(berth);
        assert!(all(data.path()).unwrap().is_empty(), "{step}");
        assert!(!place(data.path()).exists(), "{step}");
        let files = data.path().join("workspaces").join(id.to_string());
        // Without a record any sweep takes the files.
        assert_eq!(files.exists(), step == 1);
    }
}

#[test]
fn a_directory_whose_holder_has_ended_is_removed_by_whoever_looks() {
    let data = tempfile::tempdir().unwrap();
    let id = SandboxId::from_bits(7);
    let berth = Berth::make(data.path(), id, None).unwrap();
    assert!(
        all(data.path()).unwrap().is_empty(),
        "it is about to be ready"
    );
    assert!(berth.path.exists());
    drop(berth);
    assert!(all(data.path()).unwrap().is_empty());
    assert!(!place(data.path()).exists(), "nothing is left");
}

#[test]
fn a_directory_is_passed_on_without_a_moment_in_which_it_is_free() {
    let data = tempfile::tempdir().unwrap();
    let id = SandboxId::from_bits(7);
    let made = Berth::make(data.path(), id, None).unwrap();
    let joined = Berth::join(data.path(), id).unwrap();
    drop(made);
    sweep(data.path()).unwrap();
    assert!(joined.path.exists());
    joined.remove();
    let refused = Berth::join(data.path(), id);
    assert!(matches!(refused, Err(Error::Gone { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_socket_is_reached_however_long_the_path_is() {
    let data = tempfile::tempdir().unwrap();
    let deep = data.path().join("x".repeat(200));
    let berth = Berth::make(&deep, SandboxId::from_bits(7), None).unwrap();
    let listener = berth.listen().unwrap();
    let connected = tokio::net::UnixStream::connect(socket(&berth.directory)).await;
    assert!(connected.is_ok());
    assert!(listener.accept().await.is_ok());
}
