//! Ways out by files, descriptors and terminals, and what fills a machine without being large.

use std::fs;
use std::os::fd::AsRawFd;

use rustix::io::{FdFlags, fcntl_setfd};
use skep_sandbox::{Command, Kind, Limit, Mount, Namespace, Workspace};

use crate::room::{Room, is_root, succeeds_outside};

#[tokio::test]
async fn another_workspace_cannot_be_read() {
    let (one, other) = (Room::new().await, Room::new().await);
    for place in ["workspace", "home"] {
        let file = other.directory.path().join(place).join("of-another");
        fs::write(&file, "secret").unwrap();
        let script = format!("cat {}", file.display());
        assert!(succeeds_outside(&script));
        assert!(!one.sh(&script).await.exit.success());
    }
    let script =
        "find / \\( -path /usr -o -path /proc \\) -prune -o -name of-another -print | wc -l";
    assert_eq!(one.says(script).await, "0");
}

#[tokio::test]
async fn no_root_or_directory_of_a_process_leads_to_the_host() {
    let room = Room::new().await;
    let secret = room.directory.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let secret = secret.display();
    let up = "../".repeat(40);
    let ways = [
        format!("cat /proc/self/root{secret}"),
        format!("cat /proc/self/cwd/{up}{secret}"),
        format!("cat /proc/thread-self/root{secret}"),
        format!("cat {up}{secret}"),
        format!("cat /proc/self/fd/0/{up}{secret} < /"),
        format!("ln -s /proc/self/root{secret} link && cat link"),
    ];
    for way in &ways {
        let outside = format!(
            "cd {} && {way}; rm -f link",
            room.directory.path().display()
        );
        let outside = outside.replace("; rm", " && rm");
        assert!(succeeds_outside(&outside), "{way}");
        assert!(!room.sh(way).await.exit.success(), "{way}");
    }
    for way in ["/proc/1/root", "/proc/1/cwd", "/proc/$PPID/root"] {
        let script = format!("ls {way}/{up}");
        let own = script.replace("/1/", "/self/").replace("$PPID", "self");
        assert!(succeeds_outside(&own), "{own}");
        let shown = room.sh(&script).await;
        let root = room.says("ls /").await;
        let seen = shown.stdout.text();
        assert!(
            !shown.exit.success() || seen.trim_end() == root,
            "{way}: {seen}"
        );
    }
}

#[tokio::test]
async fn the_rights_and_times_of_the_hosts_devices_are_not_changed() {
    let room = Room::new().await;
    let was = || {
        let mut seen = std::process::Command::new("stat");
        let seen = seen.args(["-c", "%a %U %Y", "/dev/null", "/dev/full"]);
        seen.output().unwrap().stdout
    };
    let before = was();
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let path = format!("/dev/{name}");
        // What is there already, so that the host's are as they were also where that succeeds.
        for script in [
            format!("chmod $(stat -c %a {path}) {path}"),
            format!("touch -m -d \"$(stat -c %y {path})\" {path}"),
            format!("chown $(stat -c %u {path}) {path}"),
        ] {
            assert_eq!(succeeds_outside(&script), is_root(), "{script}");
            assert!(!room.sh(&script).await.exit.success(), "{script}");
        }
    }
    assert_eq!(before, was());
    room.says("echo x > /dev/null && echo y >> /dev/null && head -c1 /dev/zero | wc -c")
        .await;
}

#[tokio::test]
async fn hard_links_reach_neither_the_host_nor_what_is_read_only() {
    let tools = tempfile::tempdir().unwrap();
    fs::write(tools.path().join("tool"), "as it was").unwrap();
    let room = Room::with(|spec| spec.mounts.push(Mount::same_path(tools.path()))).await;
    let tool = tools.path().join("tool").display().to_string();
    let outside = room.directory.path().join("linked");
    assert!(succeeds_outside(&format!(
        "ln {tool} {}",
        outside.display()
    )));
    for target in [
        tool.as_str(),
        "/usr/bin/env",
        "/etc/passwd",
        "/proc/self/status",
    ] {
        for place in [".", "/home/agent", "/tmp"] {
            let script = format!("ln {target} {place}/linked");
            assert!(!room.sh(&script).await.exit.success(), "{script}");
        }
    }
    // Nor does one connect what is measured apart.
    let script = "echo x > x && ln x /home/agent/x";
    assert!(!room.sh(script).await.exit.success());
    assert_eq!(fs::read_to_string(tool).unwrap(), "as it was");
}

#[tokio::test]
async fn a_hard_link_to_a_file_of_the_base_is_a_file_of_the_layer() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = place.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    fs::write(path("lower").join("file"), "as it was").unwrap();
    let layers = Workspace::Overlay {
        lowers: vec![path("lower")],
        upper: path("upper"),
        work: path("work"),
        volatile: true,
    };
    let room = Room::with(|spec| spec.workspace = layers).await;
    room.says("ln file linked && echo changed > linked").await;
    assert_eq!(room.says("cat file").await, "changed");
    let base = fs::read_to_string(path("lower").join("file")).unwrap();
    assert_eq!(base, "as it was");
    room.sandbox.destroy().await.unwrap();
    use std::os::unix::fs::PermissionsExt;
    let left = place.path().join("work/work");
    fs::set_permissions(left, fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_descriptor_that_the_owner_leaks_is_not_inside() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("secret"), "secret").unwrap();
    let file = fs::File::open(place.path().join("secret")).unwrap();
    let directory = fs::File::open(place.path()).unwrap();
    for leaked in [&file, &directory] {
        fcntl_setfd(leaked, FdFlags::empty()).unwrap();
    }
    let read = format!("cat <&{}", file.as_raw_fd());
    let walk = format!("cat /proc/self/fd/{}/secret", directory.as_raw_fd());
    let room = Room::new().await;
    for script in [read, walk] {
        // A shell takes descriptors of one digit only.
        let script = format!("bash -c '{script}'");
        assert!(succeeds_outside(&script), "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    assert_eq!(room.says("ls /proc/self/fd | wc -l").await, "4");
    let looks = "for f in /proc/$PPID/fd/*; do readlink $f && exit 0; done; exit 1";
    assert!(!room.sh(looks).await.exit.success(), "nor in a minder");
}

/// Types for its own terminal, and says what the kernel answers: by the number, and with other bits in
/// the half of the number that the kernel does not look at.
const TYPE: &str = r#"
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
for request in (0x5412, 0x5412 | 1 << 40):
    answer = c.syscall(ctypes.c_long(16 if os.uname().machine == 'x86_64' else 29), ctypes.c_long(0), ctypes.c_ulong(request), ctypes.c_char_p(b'#'))
    print('typed' if answer == 0 else os.strerror(ctypes.get_errno()))
"#;

/// Whether the kernel itself forbids it, as newer ones can. Its answer is another one than the filter's
/// then, so that what is seen outside is that the call comes as far as the kernel.
pub(crate) fn is_typing_forbidden_outside() -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    let allowed = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("CapEff:\t"));
    let capabilities = u64::from_str_radix(line.unwrap(), 16).unwrap();
    allowed.is_ok_and(|it| it.trim() == "0") && capabilities & SYS_ADMIN == 0
}

#[tokio::test]
async fn nothing_is_typed_for_a_terminal() {
    let room = Room::new().await;
    let place = room.host_workspace();
    fs::write(place.join("type.py"), TYPE).unwrap();
    let inside = room
        .says("script -qec '/usr/bin/python3 type.py' /dev/null < /dev/null")
        .await;
    assert_eq!(
        inside.matches("Operation not permitted").count(),
        2,
        "{inside}"
    );
    let outside = std::process::Command::new("script")
        .args(["-qec", "/usr/bin/python3 type.py", "/dev/null"])
        .current_dir(&place)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let outside = String::from_utf8_lossy(&outside.stdout).into_owned();
    let said = match is_typing_forbidden_outside() {
        true => "Input/output error",
        false => "typed",
    };
    assert_eq!(outside.matches(said).count(), 2, "{outside}");
    // A command has no terminal unless it makes one: there is none of the owner's to type for.
    assert!(!room.sh(": < /dev/tty").await.exit.success());
}

#[tokio::test]
async fn names_of_255_bytes_and_paths_of_4000_work_and_end_nothing() {
    let room = Room::new().await;
    // Sixteen levels of 250 bytes, each entered, because no single path may be longer than 4,095.
    let script = "n=$(printf '%0250d' 7); for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do mkdir $n && cd -P $n; done; echo deep > $(printf '%0255d' 1) && pwd | wc -c";
    let length: usize = room.says(script).await.parse().unwrap();
    assert!(length > 4_000, "{length}");
    let long = room.sh("touch $(printf '%0256d' 1)").await;
    assert!(!long.exit.success() && long.stderr.text().contains("too long"));
    let deep = "0".repeat(249) + "7";
    let mut directory = room.sandbox.workspace().to_owned();
    for _ in 0..15 {
        directory.push(&deep);
    }
    assert!(directory.as_os_str().len() > 3_700);
    let listed = room.run(Command::new(["/bin/ls"], &directory)).await;
    assert_eq!(listed.stdout.text().trim_end(), deep);
    assert!(succeeds_outside(&format!(
        "rm -r {}",
        room.host_workspace().display()
    )));
}

#[tokio::test]
async fn a_hundred_thousand_files_in_a_directory_keep_nothing_waiting() {
    // In memory, so that it does not depend on the disk of the tests.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let workspace = Workspace::Directory(place.path().to_owned());
    let room = Room::with(|spec| spec.workspace = workspace).await;
    let make = "import os\nos.mkdir('many')\nfor i in range(100_000): os.mknod(f'many/{i}')\nprint(len(os.listdir('many')))";
    let made = room
        .run(room.command(["/usr/bin/python3", "-c", make]))
        .await;
    assert_eq!(made.stdout.text(), "100000\n");
    assert_eq!(room.says("echo on").await, "on");
    let began = std::time::Instant::now();
    room.sandbox.destroy().await.unwrap();
    assert!(began.elapsed().as_secs() < 5);
}

/// Makes empty files until no more are taken.
const BOMB: &str = "import os\nn = 0\ntry:\n  while True:\n    os.mknod(f'/dev/shm/{n}'); n += 1\nexcept OSError as e: print(n, os.strerror(e.errno))";

#[tokio::test]
async fn empty_files_in_memory_are_bounded_too() {
    let kind = crate::contained::kind();
    let room = match kind.kind() {
        // Without a control group nothing else counts them.
        Kind::Namespace => Room::of(&Namespace::without_cgroups(), |_| {}).await,
        _ => Room::of(&*kind, |_| {}).await,
    };
    let command = room.command(["/usr/bin/python3", "-c", BOMB]);
    let said = room.run(command).await.stdout.text();
    let (count, why) = said.split_once(' ').unwrap();
    let count: u32 = count.parse().unwrap();
    assert!((1_000..=100_000).contains(&count), "{said}");
    assert_eq!(why, "No space left on device\n");
}

#[tokio::test]
async fn what_a_bomb_of_output_prints_is_thrown_away() {
    let room = Room::new().await;
    let script = "yes | head -c 200000000 & yes | head -c 200000000 >&2; wait";
    let output = room.sh(script).await;
    assert!(output.exit.success());
    let kept = |captured: &skep_sandbox::Captured| captured.head.len() + captured.tail.len();
    assert_eq!(kept(&output.stdout), crate::room::OUTPUT);
    assert_eq!(kept(&output.stderr), crate::room::OUTPUT);
    assert_ne!(output.exit.limit, Some(Limit::Memory));
}
