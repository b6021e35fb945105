//! What a sandbox gets beyond what every one has, and that it is only what was asked for.

use skep_sandbox::extras::SECRETS;
use skep_sandbox::{Error, Extras, Secret, devices};

use crate::room::{Room, is_root, succeeds_outside};

const VALUE: &str = "open-sesame-of-this-test";

fn secrets() -> Extras {
    Extras {
        secrets: vec![
            Secret::new("token", format!("{VALUE}\n")).unwrap(),
            Secret::new("bytes", vec![0, 1, 255]).unwrap(),
        ],
        nested: crate::nested::is_asked_for(),
        ..Extras::default()
    }
}

#[tokio::test]
async fn a_secret_is_a_file_in_memory_that_only_its_user_reads_and_nobody_writes() {
    let room = Room::with(|spec| spec.extras = secrets()).await;
    let said = room
        .says(&format!(
            "cd {SECRETS} && ls -A && cat token && od -An -tx1 bytes && stat -c '%a %U' token ."
        ))
        .await;
    assert_eq!(
        said,
        format!("bytes\ntoken\n{VALUE}\n 00 01 ff\n400 agent\n500 agent")
    );
    for script in [
        "echo x > token",
        "chmod 600 token",
        "rm token",
        "touch more",
        "mv token other",
        "ln token /home/agent/token",
        "mkdir /run/x",
    ] {
        let ran = room.sh(&format!("cd {SECRETS} && {script}")).await;
        assert!(!ran.exit.success(), "{script}");
    }
    let mounts = room.says("cat /proc/mounts").await;
    let mount = mounts.lines().find(|line| line.contains(SECRETS)).unwrap();
    // Which the kernel never swaps.
    assert!(mount.starts_with("ramfs "), "{mount}");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.contains(option), "{mount}");
    }
}

#[tokio::test]
async fn a_secret_is_in_no_environment_no_argument_and_no_file_of_the_host() {
    let room = Room::with(|spec| spec.extras = secrets()).await;
    let all = room
        .says("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'")
        .await;
    assert!(!all.contains(VALUE), "{all}");
    let place = room.directory.path().display();
    assert!(!succeeds_outside(&format!("grep -r {VALUE} {place}")));
    let own = std::process::id();
    assert!(!succeeds_outside(&format!(
        "cat /proc/{own}/environ /proc/{own}/cmdline | grep -a {VALUE}"
    )));
}

#[tokio::test]
async fn what_is_kept_of_an_output_has_no_secret_in_it() {
    let room = Room::with(|spec| spec.extras = secrets()).await;
    let ran = room.sh(&format!("cat {SECRETS}/token; exit 3")).await;
    assert!(ran.stdout.text().contains(VALUE), "whoever asked is told");
    let last = format!("{:?}", room.sandbox.diagnose().await.last);
    assert!(last.contains("[hidden]") && !last.contains(VALUE), "{last}");
}

#[tokio::test]
async fn without_being_asked_for_there_is_no_secret_and_no_device() {
    let room = Room::new().await;
    assert!(!room.sh("test -e /run").await.exit.success());
    let names = room.says("ls /dev").await;
    let usual = [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), usual);
}

/// A device of this machine that no sandbox has of itself, and that this user may use: the processors'
/// virtual machines, a tunnel, or what else there is. With it, what only that device answers, in Python.
fn some_device() -> Option<(&'static str, &'static str)> {
    let known = [
        (
            "/dev/kvm",
            "fcntl.ioctl(os.open('/dev/kvm', os.O_RDWR), 0xAE00)",
        ),
        (
            "/dev/net/tun",
            "fcntl.ioctl(os.open('/dev/net/tun', os.O_RDWR), 0x800454CF, bytes(4)).hex()",
        ),
        (
            "/dev/hwrng",
            "len(os.read(os.open('/dev/hwrng', os.O_RDONLY), 1))",
        ),
        (
            "/dev/cpu_dma_latency",
            "len(os.read(os.open('/dev/cpu_dma_latency', os.O_RDWR), 4))",
        ),
    ];
    let mut known = known.into_iter();
    known.find(|(path, _)| devices::find(&[(*path).to_owned()]).is_ok())
}

#[tokio::test]
async fn a_device_is_at_its_path_and_works_as_it_does_outside() {
    let Some((path, answer)) = some_device() else {
        // An ordinary user may use none here, and then no sandbox of theirs may.
        assert!(!is_root(), "none of the devices is there: `modprobe tun`");
        let refused = devices::find(&["/dev/net/tun".to_owned()]).unwrap_err();
        assert!(
            matches!(refused, devices::Error::Denied { .. }),
            "{refused}"
        );
        assert!(!succeeds_outside(": < /dev/net/tun"));
        return;
    };
    let found = devices::find(&[path.to_owned(), path.to_owned()]).unwrap();
    assert_eq!(found.len(), 1);
    let room = Room::with(|spec| spec.extras.devices = found).await;
    assert_eq!(
        room.says(&format!("stat -c '%F %t:%T' {path}")).await,
        String::from_utf8(
            std::process::Command::new("stat")
                .args(["-c", "%F %t:%T", path])
                .output()
                .unwrap()
                .stdout
        )
        .unwrap()
        .trim_end()
    );
    // Rules on paths let it be opened, and asked what only this device knows.
    let open = format!("import fcntl, os\nprint({answer})");
    let inside = room
        .run(room.command(["/usr/bin/python3", "-c", &open]))
        .await;
    let outside = std::process::Command::new("/usr/bin/python3")
        .args(["-c", &open])
        .output()
        .unwrap();
    let answered = String::from_utf8(outside.stdout).unwrap();
    assert!(outside.status.success() && !answered.trim().is_empty());
    assert_eq!(
        (inside.exit.success(), inside.stdout.text()),
        (true, answered),
        "{}",
        inside.stderr.text()
    );
    for script in [
        format!("rm {path}"),
        format!("chmod 600 {path}"),
        "touch /dev/x".to_owned(),
    ] {
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
}

// docs/bad-input.md: A device that leads out of any seal (`--device /dev/mem`)
#[tokio::test]
async fn a_device_that_would_break_the_seal_is_never_given() {
    let find = |path: &str| devices::find(&[path.to_owned()]);
    let is_refused = |path: &str| matches!(find(path), Err(devices::Error::Refused { .. }));
    for path in ["/dev/mem", "/dev/kmsg", "/dev/loop-control", "/dev/tty1"] {
        assert!(is_refused(path), "{path}");
    }
    if !is_root() {
        return;
    }
    // Another name and another place hide nothing: the number counts, also one that the kernel gave
    // out as it came, as it knows the name.
    let place = "/dev/skep-test-of-names";
    let under_another_name = |number: &str| {
        let made = format!("rm -f {place} && mknod {place} {number}");
        assert!(succeeds_outside(&made), "{number}");
        let found = find(place);
        std::fs::remove_file(place).unwrap();
        found
    };
    for number in ["c 1 1", "b 7 0"] {
        let found = under_another_name(number);
        assert!(
            matches!(found, Err(devices::Error::Refused { .. })),
            "{number}"
        );
    }
    assert_eq!(under_another_name("c 1 3").unwrap().len(), 1);
    let mut tried = Vec::new();
    for entry in std::fs::read_dir("/sys/dev/char").unwrap() {
        let entry = entry.unwrap();
        let said = std::fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
        let name = said.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        let Some(name) = name.filter(|name| is_refused(&format!("/dev/{name}"))) else {
            continue;
        };
        let number = entry.file_name().into_string().unwrap().replace(':', " ");
        let found = under_another_name(&format!("c {number}"));
        assert!(
            matches!(found, Err(devices::Error::Refused { .. })),
            "{name}"
        );
        tried.push(name.to_owned());
    }
    assert!(tried.len() > 1, "{tried:?}");
}

#[tokio::test]
async fn what_runs_unsealed_has_no_secrets_and_no_devices_of_its_own() {
    let place = crate::room::directories();
    let mut spec = crate::room::spec(place.path());
    spec.extras = secrets();
    let refused = skep_sandbox::Backend::create(&skep_sandbox::Host, spec).await;
    assert!(matches!(refused.err().unwrap(), Error::Spec { .. }));
}
