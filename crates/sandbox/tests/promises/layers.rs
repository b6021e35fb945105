//! Other layers in the place of the workspace's, while the sandbox lives on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use skep_sandbox::{Error, Host, Workspace};

use crate::ends::{ends_in_time, living};
use crate::room::{Room, this_program};

/// Layers that grow: each freeze puts what was written below a new upper one.
struct Stack {
    directory: PathBuf,
    lowers: Vec<PathBuf>,
    written: usize,
}

impl Stack {
    fn new(directory: &Path) -> Self {
        fs::create_dir(directory.join("base")).unwrap();
        fs::write(directory.join("base/kept"), "kept").unwrap();
        fs::write(directory.join("base/gone"), "gone").unwrap();
        Self {
            directory: directory.to_owned(),
            lowers: vec![directory.join("base")],
            written: 0,
        }
    }

    fn upper(&self) -> PathBuf {
        self.directory.join(format!("upper-{}", self.written))
    }

    fn freeze(&mut self) -> Workspace {
        self.lowers.insert(0, self.upper());
        self.written += 1;
        self.workspace()
    }

    fn workspace(&self) -> Workspace {
        let work = self.directory.join(format!("work-{}", self.written));
        fs::create_dir(self.upper()).unwrap();
        fs::create_dir(&work).unwrap();
        Workspace::Overlay {
            lowers: self.lowers.clone(),
            upper: self.upper(),
            work,
            volatile: true,
        }
    }
}

/// Opens what the kernel left in an overlay's own directory.
fn open(work: &Path) {
    for place in ["work", "work/incompat", "work/incompat/volatile"] {
        fs::set_permissions(work.join(place), fs::Permissions::from_mode(0o700)).ok();
    }
}

/// The kernel leaves directories that an ordinary user can delete only when they are opened.
impl Drop for Stack {
    fn drop(&mut self) {
        for number in 0..=self.written {
            open(&self.directory.join(format!("work-{number}")));
        }
    }
}

async fn layered() -> (Room, Stack, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::new(directory.path());
    let workspace = stack.workspace();
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    let room = Room::with(|spec| {
        spec.workspace = workspace;
        spec.home = Some(home);
    })
    .await;
    (room, stack, directory)
}

/// How many mounts there are at the workspace, and in all.
const MOUNTS: &str =
    "grep -c ' /workspace/repo ' /proc/self/mountinfo; wc -l < /proc/self/mountinfo";

#[tokio::test]
async fn what_is_frozen_stays_seen_and_what_comes_after_lands_in_the_new_layer() {
    let (room, mut stack, _directory) = layered().await;
    room.says("echo one > one; rm gone; mkdir d; echo 1 > d/f")
        .await;
    let layers = stack.freeze();
    room.sandbox.switch(vec![layers]).await.unwrap();
    assert_eq!(room.says("ls; cat one d/f").await, "d\nkept\none\none\n1");
    room.says("echo two > one; rm -r d; mkdir d; echo new > d/g; echo x > gone")
        .await;
    assert_eq!(room.says("cat one gone; ls d").await, "two\nx\ng");
    let path = |name: &str| stack.directory.join(name);
    assert_eq!(fs::read_to_string(path("upper-0/one")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(path("upper-1/one")).unwrap(), "two\n");
    assert!(path("upper-0/d/f").exists() && !path("upper-1/d/f").exists());
    room.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn the_layers_of_an_earlier_moment_show_what_was_there_then() {
    let (room, mut stack, _directory) = layered().await;
    room.says("echo one > file").await;
    room.sandbox.switch(vec![stack.freeze()]).await.unwrap();
    room.says("echo two > file; rm kept").await;
    // The upper layer of the second turn is left out.
    stack.written += 1;
    room.sandbox.switch(vec![stack.workspace()]).await.unwrap();
    assert_eq!(room.says("cat file kept").await, "one\nkept");
    room.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn after_two_hundred_changes_of_layers_one_mount_is_there_and_the_seal_holds() {
    let (room, mut stack, _directory) = layered().await;
    let before = room.says(MOUNTS).await;
    assert!(before.starts_with("1\n"), "{before}");
    let options = "grep ' /workspace/repo ' /proc/self/mountinfo | grep -o 'rw,nosuid,nodev'";
    for number in 0..200 {
        room.says(&format!("echo {number} > {number}")).await;
        room.sandbox.switch(vec![stack.freeze()]).await.unwrap();
    }
    assert_eq!(room.says(MOUNTS).await, before);
    assert_eq!(
        room.says("ls [0-9]* | wc -l; cat 0 199").await,
        "200\n0\n199"
    );
    assert_eq!(room.says(options).await, "rw,nosuid,nodev");
    // Nothing of the host came along with the layers, and no path of theirs is told.
    assert_eq!(
        room.says("grep -c upper-0 /proc/self/mountinfo; true")
            .await,
        "0"
    );
    assert!(!room.sh("mount -t tmpfs none /tmp").await.exit.success());
    room.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn layers_do_not_change_under_what_runs() {
    let (room, mut stack, _directory) = layered().await;
    let busy = |found| assert!(matches!(found, Err(Error::Busy { .. })), "{found:?}");
    let mut process = room
        .sandbox
        .exec(room.command(["/bin/sleep", "1000"]))
        .await
        .unwrap();
    let layers = stack.freeze();
    busy(room.sandbox.switch(vec![layers.clone()]).await);
    process.kill();
    process.wait().await.unwrap();
    // What a command was told to leave running holds a directory, or an open file.
    let mut command = room.command(["/bin/sh", "-c", "sleep 1000 > held & echo $!"]);
    command.keep_background = true;
    let pid = room.run(command).await.stdout.text();
    busy(room.sandbox.switch(vec![layers.clone()]).await);
    room.says("echo still > old").await;
    assert!(stack.directory.join("upper-0/old").exists());
    // A zombie holds nothing.
    let pid = pid.trim();
    let lives = format!("grep -qs 'State:.[^Z]' /proc/{pid}/status");
    let ended = format!("kill -9 {pid}; while {lives}; do :; done");
    room.says(&ended).await;
    room.sandbox.switch(vec![layers]).await.unwrap();
    assert_eq!(room.says("cat old").await, "still");
    room.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn layers_that_cannot_be_mounted_leave_the_old_ones_in_place() {
    let (room, mut stack, _directory) = layered().await;
    room.says("echo one > file").await;
    let good = stack.freeze();
    let Workspace::Overlay { lowers, upper, .. } = good.clone() else {
        panic!("these are layers");
    };
    // A directory that cannot be the overlay's own: it is on another file system.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let bad = Workspace::Overlay {
        lowers,
        upper,
        work: elsewhere.path().to_owned(),
        volatile: true,
    };
    let refused = room.sandbox.switch(vec![bad]).await;
    assert!(
        matches!(refused, Err(Error::OverlayRefused { .. })),
        "{refused:?}"
    );
    assert_eq!(
        room.says("cat file; echo more >> file; cat file").await,
        "one\none\nmore"
    );
    room.sandbox.switch(vec![good]).await.unwrap();
    assert_eq!(room.says("cat file").await, "one\nmore");
    room.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn layers_of_several_workspaces_are_changed_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let place = directory.path().join(name);
        fs::create_dir(&place).unwrap();
        place
    };
    let (mut one, mut other) = (Stack::new(&place("one")), Stack::new(&place("other")));
    let (first, second) = (one.workspace(), other.workspace());
    let home = place("home");
    let room = Room::with(|spec| {
        spec.workspace = first;
        spec.also = vec![("other".into(), second)];
        spec.home = Some(home);
    })
    .await;
    room.says("echo 1 > file; echo 2 > ../other/file").await;
    let (first, second) = (one.freeze(), other.freeze());
    let few = room.sandbox.switch(vec![first.clone()]).await;
    assert!(matches!(few, Err(Error::Spec { .. })), "{few:?}");
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut bad = second.clone();
    if let Workspace::Overlay { work, .. } = &mut bad {
        *work = elsewhere.path().to_owned();
    }
    let refused = room.sandbox.switch(vec![first, bad]).await;
    assert!(
        matches!(refused, Err(Error::OverlayRefused { .. })),
        "{refused:?}"
    );
    // The kernel has marked the scratch directory of the first by now: others take its place.
    room.says("echo 1 >> file; echo 2 >> ../other/file").await;
    one.written += 1;
    let (first, second) = (one.workspace(), second);
    room.sandbox.switch(vec![first, second]).await.unwrap();
    assert_eq!(
        room.says("cat file ../other/file kept ../other/kept").await,
        "1\n1\n2\n2\nkeptkept"
    );
    room.says("echo 3 > file; echo 4 > ../other/file").await;
    let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
    assert_eq!(read("one/upper-0/file"), "1\n1\n");
    assert_eq!(read("other/upper-1/file"), "4\n");
    let mounts = "grep -c ' /workspace/[a-z]* ' /proc/self/mountinfo";
    assert_eq!(room.says(mounts).await, "2");
    room.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn a_directory_gives_way_to_no_layers() {
    let layers = Workspace::Directory("/usr".into());
    let room = Room::new().await;
    let refused = room.sandbox.switch(vec![layers.clone()]).await;
    assert!(matches!(refused, Err(Error::CannotSwitch { .. })));
    let host = Room::of(&Host, |_| {}).await;
    let refused = host.sandbox.switch(vec![layers]).await;
    assert!(matches!(refused, Err(Error::CannotSwitch { .. })));
}

#[tokio::test]
async fn nothing_is_left_of_a_sandbox_whose_layers_were_changed() {
    let (room, mut stack, _directory) = layered().await;
    room.sandbox.switch(vec![stack.freeze()]).await.unwrap();
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    room.sandbox.destroy().await.unwrap();
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    // A mount that were left would hold its layer: the kernel would refuse a second one its own
    // directory, or its mark would still be there.
    let again = Workspace::Overlay {
        lowers: stack.lowers.clone(),
        upper: stack.upper(),
        work: {
            let work = stack.directory.join("work-again");
            fs::create_dir(&work).unwrap();
            work
        },
        volatile: false,
    };
    let room = Room::with(|spec| spec.workspace = again).await;
    assert_eq!(room.says("cat kept").await, "kept");
    room.sandbox.destroy().await.unwrap();
    open(&stack.directory.join("work-again"));
}

#[tokio::test]
#[ignore = "the owner that another test kills"]
async fn an_owner_that_changes_layers() {
    let (room, mut stack, directory) = layered().await;
    let first = room.sandbox.diagnose().await.first_process.unwrap();
    println!("\nowns {first} in {}", directory.path().display());
    loop {
        room.sandbox.switch(vec![stack.freeze()]).await.unwrap();
        println!("changed");
    }
}

/// The processes that have a directory of the host among their mounts.
fn users(directory: &str) -> Vec<u32> {
    let list = fs::read_dir("/proc").unwrap().flatten();
    list.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                .is_ok_and(|mounts| mounts.contains(directory))
        })
        .collect()
}

#[test]
fn an_owner_that_is_killed_while_layers_change_leaves_no_process_and_no_mount() {
    for changes in 1..6 {
        let mut owner = this_program("layers::an_owner_that_changes_layers")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("owns ")).unwrap();
        let directory = line.split(' ').nth(3).unwrap().to_owned();
        // The home of the sandbox, in its mounts; the helper enters them too.
        let home = users(&directory);
        assert_eq!(lines.by_ref().take(changes).count(), changes);
        owner.kill().unwrap();
        owner.wait().unwrap();
        for pid in home.into_iter().chain(users(&directory)) {
            if let Some(process) = living(pid) {
                assert!(ends_in_time(&process), "{pid}");
            }
        }
        assert_eq!(users(&directory), Vec::<u32>::new());
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            open(&entry.path());
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
