//! Files go in and come out as bytes, and nothing that lies inside leads anybody elsewhere.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_sandbox::archive::local::{Put, Where, name_of, pack, put};
use skep_sandbox::archive::{self, Bounds, Entry, Other, What};
use skep_sandbox::{
    Backend, Carry, Error, Kind, Sandbox, Task, Tmp, carry::Ends, copy_in, copy_out,
};
use tempfile::TempDir;

use crate::subject::{PATIENCE, Subject, ends};

/// Everything below a directory, as lines.
fn shown(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = vec![root.to_owned()];
    while let Some(path) = rest.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let what = if kind.is_dir() {
            let below = fs::read_dir(&path).unwrap();
            rest.extend(below.map(|entry| entry.unwrap().path()));
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("to {:?}", fs::read_link(&path).unwrap())
        } else {
            let executable = found.permissions().mode() & 0o111 != 0;
            let content = fs::read(&path).unwrap();
            format!("{executable} {:?}", String::from_utf8_lossy(&content))
        };
        let name = path.strip_prefix(root).unwrap();
        all.push(format!("{name:?}: {what}"));
    }
    all.sort();
    all
}

/// A tree with one of each that is carried.
fn tree(root: &Path) {
    let deep = root.join("d".repeat(120)).join("e".repeat(120));
    for directory in [root, &root.join("empty"), &deep] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(root.join("plain"), "text").unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    fs::write(root.join("block"), "x".repeat(512)).unwrap();
    fs::write(root.join("with\n\u{1b}[31m \\ and \"more\""), "odd").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "bytes").unwrap();
    fs::write(deep.join("f".repeat(250)), "deep").unwrap();
    fs::write(root.join("program"), "#!/bin/sh\n").unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.join("program"), mode).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink("/no/such/place", root.join("nowhere")).unwrap();
    symlink("t".repeat(300), root.join("far")).unwrap();
    symlink(".", root.join("around")).unwrap();
}

pub(crate) async fn give(subject: &Subject, from: PathBuf, to: &str) -> Result<(), Error> {
    give_by(subject, Carry::new(Task::In, to), from).await
}

async fn give_by(subject: &Subject, carry: Carry, from: PathBuf) -> Result<(), Error> {
    let carry = carry.with_timeout(PATIENCE);
    copy_in(&*subject.sandbox, carry, move |to| {
        pack(&from, to).map(drop)
    })
    .await
}

pub(crate) async fn get(
    subject: &Subject,
    from: impl Into<std::ffi::OsString>,
    to: &Path,
) -> Result<Put, Error> {
    let (from, to) = (from.into(), to.to_owned());
    let name = name_of(Path::new(&from)).map(ToOwned::to_owned);
    let carry = Carry::new(Task::Out, from).with_timeout(PATIENCE);
    let work = move |from: &mut _| {
        let place = name.as_deref().map_or(Where::Inside, Where::Named);
        put(from, &to, place)
    };
    copy_out(&*subject.sandbox, carry, Bounds::default(), work).await
}

/// An archive of these entries, with a byte in each file.
async fn give_entries(subject: &Subject, carry: Carry, entries: Vec<Entry>) -> Result<(), Error> {
    let carry = carry.with_timeout(PATIENCE);
    let work = move |to: &mut archive::Writer<_>| {
        entries
            .iter()
            .try_for_each(|entry| to.entry(entry, &mut &b"x"[..]))
    };
    copy_in(&*subject.sandbox, carry, work).await
}

fn file(path: &str) -> Entry {
    let what = What::File {
        executable: false,
        len: 1,
    };
    Entry {
        path: path.into(),
        what,
    }
}

fn link(path: &str, target: &str) -> Entry {
    let what = What::Link {
        target: target.into(),
    };
    Entry {
        path: path.into(),
        what,
    }
}

pub(crate) fn errno(outcome: &Result<impl Sized, Error>) -> Option<i32> {
    match outcome {
        Err(Error::Carry { source, .. }) => source.raw_os_error(),
        _ => None,
    }
}

pub(crate) async fn files_go_in_and_come_out_as_they_are(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let place = TempDir::new().unwrap();
    tree(&place.path().join("tree"));
    give(&subject, place.path().join("tree"), "in")
        .await
        .unwrap();
    let wanted = shown(&place.path().join("tree"));
    assert_eq!(shown(&subject.outside("workspace/in")), wanted);
    assert_eq!(
        subject
            .says("cat in/link; [ -x in/program ] && echo x")
            .await,
        "textx"
    );
    // Commands can do with it what they can do with their own.
    subject
        .says("mv in moved; echo more >> moved/plain; chmod 600 moved/block")
        .await;
    fs::write(place.path().join("tree/plain"), "textmore\n").unwrap();
    let back = place.path().join("back");
    let got = get(&subject, "moved", &back).await.unwrap();
    assert_eq!(got.left_out.count, 0);
    assert_eq!(shown(&back), shown(&place.path().join("tree")));
    // Of a place that is named by its whole path, and of what is in a directory alone.
    let whole = subject.sandbox.workspace().join("moved/.");
    let content = place.path().join("content");
    fs::create_dir(&content).unwrap();
    get(&subject, whole, &content).await.unwrap();
    assert_eq!(shown(&content), shown(&back));
}

pub(crate) async fn a_copy_is_put_where_cp_would_put_it(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let place = TempDir::new().unwrap();
    let path = |name: &str| place.path().join(name);
    fs::write(path("new"), "new").unwrap();
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("dir/inner"), "inner").unwrap();
    let outside = |name: &str| subject.outside("workspace").join(name);
    let read = |name: &str| fs::read_to_string(outside(name)).unwrap();
    subject
        .says("mkdir there; echo old > old; echo kept > there/kept; mkdir there/new")
        .await;
    symlink("old", outside("link")).unwrap();
    symlink("there", outside("way")).unwrap();
    // A name that there is not, a file, a directory, a link to a directory.
    give(&subject, path("new"), "fresh").await.unwrap();
    give(&subject, path("new"), "old").await.unwrap();
    give(&subject, path("dir"), "there").await.unwrap();
    give(&subject, path("dir"), "way").await.unwrap();
    assert_eq!((read("fresh"), read("old")), ("new".into(), "new".into()));
    assert_eq!(
        (read("there/kept"), read("there/dir/inner")),
        ("kept\n".into(), "inner".into())
    );
    // A link gives way and is not written through.
    subject.says("echo safe > old").await;
    give(&subject, path("new"), "link").await.unwrap();
    assert_eq!((read("old"), read("link")), ("safe\n".into(), "new".into()));
    assert!(fs::symlink_metadata(outside("link")).unwrap().is_file());
    // A directory is in the way of a file, and a file in that of a directory.
    let refused = give(&subject, path("new"), "there").await;
    assert_eq!(errno(&refused), Some(libc::EISDIR), "{refused:?}");
    let refused = give(&subject, path("dir"), "old").await;
    assert_eq!(errno(&refused), Some(libc::ENOTDIR), "{refused:?}");
    // There is no such place.
    let refused = give(&subject, path("new"), "no/such/place").await;
    assert_eq!(errno(&refused), Some(libc::ENOENT), "{refused:?}");
    give_by(&subject, Carry::new(Task::Fill, "made"), path("dir/."))
        .await
        .unwrap();
    assert_eq!(read("made/inner"), "inner");
    // A link that is named is copied as one, unless a slash asks for what it leads to.
    get(&subject, "way", &path("way")).await.unwrap();
    assert!(path("way").is_symlink());
    get(&subject, "way/", &path("followed")).await.unwrap();
    assert_eq!(fs::read_to_string(path("followed/kept")).unwrap(), "kept\n");
}

pub(crate) async fn what_cannot_be_copied_is_named(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let place = TempDir::new().unwrap();
    let missing = get(&subject, "missing/file", &place.path().join("x")).await;
    assert_eq!(errno(&missing), Some(libc::ENOENT), "{missing:?}");
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("\"missing/file\"")
    );
    assert!(!place.path().join("x").exists());
    let zero = get(&subject, std::ffi::OsStr::from_bytes(b"a\0b"), place.path()).await;
    assert!(
        matches!(zero, Err(Error::InvalidCommand { .. })),
        "{zero:?}"
    );
    let owner = fs::metadata(place.path()).unwrap();
    let is_root = std::os::unix::fs::MetadataExt::uid(&owner) == 0;
    if backend.kind() == Kind::Host && is_root {
        return;
    }
    subject
        .says("mkdir -p all/closed; echo x > all/secret; chmod 000 all/secret")
        .await;
    subject.says("chmod 500 all/closed").await;
    let unread = get(&subject, "all", &place.path().join("all")).await;
    assert_eq!(errno(&unread), Some(libc::EACCES), "{unread:?}");
    assert!(unread.unwrap_err().to_string().contains("all/secret"));
    fs::write(place.path().join("new"), "new").unwrap();
    let unwritten = give(&subject, place.path().join("new"), "all/closed").await;
    assert_eq!(errno(&unwritten), Some(libc::EACCES), "{unwritten:?}");
    subject.says("chmod 700 all/closed").await;
    if backend.kind() != Kind::Host {
        let refused = give(&subject, place.path().join("new"), "/usr/new").await;
        assert!(errno(&refused).is_some(), "{refused:?}");
    }
}

pub(crate) async fn no_link_of_the_workspace_leads_a_copy_elsewhere(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    let outside = |name: &str| subject.outside("workspace").join(name);
    fs::create_dir(outside("into")).unwrap();
    symlink(elsewhere.path(), outside("into/out")).unwrap();
    symlink(elsewhere.path().join("secret"), outside("into/file")).unwrap();
    let fill = || Carry::new(Task::Fill, "into");
    for entry in [
        file("out/new"),
        file("out/secret"),
        file("../out"),
        file("a/../b"),
        file("/abs"),
    ] {
        let refused = give_entries(&subject, fill(), vec![entry]).await;
        let refused_with = errno(&refused);
        assert!(
            matches!(
                refused_with,
                Some(libc::ENOTDIR | libc::ELOOP | libc::EINVAL)
            ),
            "{refused:?}"
        );
    }
    // Nor does one that comes in the same archive, and what is a link is replaced.
    let target = elsewhere.path().display().to_string();
    let both = vec![link("way", &target), file("way/new")];
    let refused = give_entries(&subject, fill(), both).await;
    assert!(errno(&refused).is_some(), "{refused:?}");
    give_entries(&subject, fill(), vec![file("file")])
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(outside("into/file")).unwrap(), "x");
    let secret = fs::read_to_string(elsewhere.path().join("secret")).unwrap();
    assert_eq!(secret, "secret");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    // What comes out are the links themselves.
    let place = TempDir::new().unwrap();
    get(&subject, "into", &place.path().join("into"))
        .await
        .unwrap();
    assert!(place.path().join("into/out").is_symlink());
    // In a sealed sandbox the same path is another place.
    if backend.kind() != Kind::Host {
        let seen = get(&subject, elsewhere.path().join("secret"), place.path()).await;
        assert_eq!(errno(&seen), Some(libc::ENOENT), "{seen:?}");
    }
}

pub(crate) async fn what_is_no_file_is_left_out_and_never_opened(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    subject
        .says("mkdir odd; echo x > odd/file; mkfifo odd/pipe")
        .await;
    let _socket = UnixListener::bind(subject.outside("workspace/odd/socket")).unwrap();
    let place = TempDir::new().unwrap();
    let got = get(&subject, "odd", &place.path().join("odd"))
        .await
        .unwrap();
    assert_eq!(got.left_out.count, 2);
    let mut named = got.left_out.named;
    named.sort_by_key(|(path, _)| path.clone());
    let wanted = [("odd/pipe", Other::Pipe), ("odd/socket", Other::Socket)];
    assert_eq!(named, wanted.map(|(path, other)| (path.into(), other)));
    let found = fs::read_dir(place.path().join("odd")).unwrap();
    let found: Vec<_> = found.map(|entry| entry.unwrap()).collect();
    assert_eq!(found.len(), 1);
    assert!(!found[0].file_type().unwrap().is_fifo());
    let device = get(&subject, "/dev/zero", &place.path().join("zero"))
        .await
        .unwrap();
    assert_eq!((device.entries, device.left_out.count), (0, 1));
}

pub(crate) async fn a_large_file_takes_little_memory_on_its_way(backend: &dyn Backend) {
    const BYTES: u64 = 100 << 20;
    let subject = Subject::new(backend).await;
    let before = peak();
    let carry = Carry::new(Task::In, "large").with_timeout(PATIENCE);
    let work = |to: &mut archive::Writer<_>| {
        let what = What::File {
            executable: false,
            len: BYTES,
        };
        let path = "large".into();
        to.entry(&Entry { path, what }, &mut std::io::repeat(b'x'))
    };
    copy_in(&*subject.sandbox, carry, work).await.unwrap();
    assert_eq!(subject.says("wc -c < large").await, BYTES.to_string());
    let carry = Carry::new(Task::Out, "large").with_timeout(PATIENCE);
    let work = |from: &mut archive::Reader<_>| {
        from.next_entry()?;
        let counted = std::io::copy(from, &mut std::io::sink());
        counted.map_err(archive::Error::Stream)
    };
    let counted = copy_out(&*subject.sandbox, carry, Bounds::default(), work).await;
    assert_eq!(counted.unwrap(), BYTES);
    let grown = peak().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

/// The most memory that this process ever used, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

pub(crate) async fn a_limit_that_a_copy_reaches_is_named(backend: &dyn Backend) {
    let subject = Subject::with(backend, |spec, _| {
        spec.limits.file_bytes = Some(1 << 20);
        spec.tmp = Tmp::Memory { bytes: 256 << 10 };
    })
    .await;
    let large = |to: &mut archive::Writer<_>| {
        let what = What::File {
            executable: false,
            len: 8 << 20,
        };
        let path = "large".into();
        to.entry(&Entry { path, what }, &mut std::io::repeat(b'x'))
    };
    if backend.abilities().limits {
        let carry = |path: &str| Carry::new(Task::In, path).with_timeout(PATIENCE);
        let limited = copy_in(&*subject.sandbox, carry("large"), large).await;
        let Err(Error::CarryEnded { exit }) = limited else {
            panic!("{limited:?}");
        };
        assert_eq!(exit.limit, Some(skep_sandbox::Limit::FileBytes));
        let full = copy_in(&*subject.sandbox, carry("/tmp"), large).await;
        assert_eq!(errno(&full), Some(libc::ENOSPC), "{full:?}");
    }
    // Outside, what comes is bounded too.
    subject
        .says("mkdir many; touch many/a many/b many/c; head -c 9 /dev/zero > many/d")
        .await;
    let bounds = [
        Bounds {
            entries: 3,
            ..Bounds::default()
        },
        Bounds {
            file_bytes: 8,
            ..Bounds::default()
        },
        Bounds {
            total_bytes: 8,
            ..Bounds::default()
        },
        Bounds {
            path_bytes: 5,
            ..Bounds::default()
        },
        Bounds {
            depth: 1,
            ..Bounds::default()
        },
    ];
    for bounds in bounds {
        let carry = Carry::new(Task::Out, "many").with_timeout(PATIENCE);
        let place = TempDir::new().unwrap();
        let to = place.path().join("many");
        let work = move |from: &mut _| put(from, &to, Where::Named("many".as_ref()));
        let stopped = copy_out(&*subject.sandbox, carry, bounds.clone(), work).await;
        let typed = matches!(stopped, Err(Error::Archive(archive::Error::TooMuch { .. })));
        assert!(typed, "{bounds:?}: {stopped:?}");
    }
}

pub(crate) async fn a_copy_that_is_given_up_or_out_of_time_leaves_no_process(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    subject.says("head -c 10000000 /dev/zero > large").await;
    // It waits for a reader, or for a writer, in the middle.
    for (task, path) in [(Task::Out, "large"), (Task::In, "half")] {
        let mut process = subject.sandbox.carry(Carry::new(task, path)).await.unwrap();
        let mut held = Ends::of(&mut process).unwrap();
        drop(process);
        ends(&mut held.stderr).await;
    }
    let carry = Carry::new(Task::Fill, "half").with_timeout(Duration::from_millis(50));
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let work = move |_: &mut archive::Writer<_>| {
        // Until nobody can say anything any more.
        waits.recv().unwrap_err();
        Ok(())
    };
    let copying = copy_in(&*subject.sandbox, carry, work);
    let watching = async {
        while subject
            .sandbox
            .diagnose()
            .await
            .last
            .exit
            .is_none_or(|exit| !exit.timed_out)
        {
            tokio::task::yield_now().await;
        }
        drop(done);
    };
    let (copied, ()) = tokio::join!(copying, watching);
    let Err(Error::CarryEnded { exit }) = copied else {
        panic!("{copied:?}");
    };
    assert!(exit.timed_out);
    // What is broken off has no end, and is not taken for whole.
    let broken = subject.sandbox.carry(Carry::new(Task::In, "cut")).await;
    let mut process = broken.unwrap();
    let held = Ends::of(&mut process).unwrap();
    let input = held.stdin.unwrap().into_blocking_fd().unwrap();
    std::fs::File::from(input)
        .write_all(b"half a header")
        .unwrap();
    assert_eq!(process.wait().await.unwrap().code, Some(1));
    assert!(!subject.outside("workspace/cut").exists());
}

pub(crate) async fn a_listing_tells_a_file_that_was_written_from_one_that_was_not(
    backend: &dyn Backend,
) {
    let subject = Subject::new(backend).await;
    subject
        .says("mkdir -p a/b; echo one > a/one; echo two > a/b/two; touch b")
        .await;
    let before = listed(&*subject.sandbox).await;
    let names: Vec<_> = before
        .iter()
        .map(|it| it.entry.path.display().to_string())
        .collect();
    assert_eq!(names, ["a", "a/b", "a/b/two", "a/one", "b"]);
    assert_eq!(listed(&*subject.sandbox).await, before);
    // The clock must have left the first listing behind.
    let changed = |path: &str, before: &[archive::Listed]| {
        let found = before.iter().find(|it| it.entry.path == Path::new(path));
        found.unwrap().changed
    };
    let was = changed("a/one", &before);
    let mut after = before.clone();
    while changed("a/one", &after) == was {
        subject
            .says("echo uno > a/one; touch -d @0 a/one 2>/dev/null || true")
            .await;
        after = listed(&*subject.sandbox).await;
    }
    let differing: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    assert_eq!(differing.len(), 1);
    // Their contents come in the order in which they are asked for.
    let mut process = subject
        .sandbox
        .carry(Carry::new(Task::Pick, "."))
        .await
        .unwrap();
    let held = Ends::of(&mut process).unwrap();
    let mut input = std::fs::File::from(held.stdin.unwrap().into_blocking_fd().unwrap());
    let output = std::fs::File::from(held.stdout.into_blocking_fd().unwrap());
    let picked = tokio::task::spawn_blocking(move || {
        let mut reader = archive::Reader::new(output, Bounds::default());
        let mut texts = Vec::new();
        for name in ["b", "a/b/two", "a/one"] {
            input.write_all(name.as_bytes()).unwrap();
            input.write_all(b"\0").unwrap();
            let entry = reader.next_entry().unwrap().unwrap();
            assert_eq!(entry.path, Path::new(name));
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            texts.push(text);
        }
        drop(input);
        assert!(reader.next_entry().unwrap().is_none());
        texts
    });
    assert_eq!(picked.await.unwrap(), ["", "two\n", "uno\n"]);
    assert!(process.wait().await.unwrap().success());
    // One that fails gives back what it changed in order to look.
    subject
        .says("(mkdir shut && cd shut && for i in $(seq 300); do mkdir d && cd d; done) && chmod 000 shut")
        .await;
    let carry = Carry::new(Task::List, ".").with_timeout(PATIENCE);
    let work = |from: &mut archive::Reader<_>| {
        while from.next_listed()?.is_some() {}
        Ok(())
    };
    let failed = copy_out(&*subject.sandbox, carry, Bounds::default(), work).await;
    assert!(failed.is_err());
    let shut = fs::metadata(subject.outside("workspace/shut")).unwrap();
    assert_eq!(shut.permissions().mode() & 0o777, 0);
    subject.says("chmod 700 shut").await;
}

async fn listed(sandbox: &dyn Sandbox) -> Vec<archive::Listed> {
    let carry = Carry::new(Task::List, ".").with_timeout(PATIENCE);
    let work = |from: &mut archive::Reader<_>| {
        let mut all = Vec::new();
        while let Some(listed) = from.next_listed()? {
            all.push(listed);
        }
        Ok(all)
    };
    let mut all = copy_out(sandbox, carry, Bounds::default(), work)
        .await
        .unwrap();
    all.sort_by_key(|it| it.entry.path.clone());
    all
}
