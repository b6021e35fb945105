//! A sandbox in which others may be made: what can be made there, and that the seal holds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use skep_sandbox::{Backend as _, Error, Mount, Namespace, Output, Spec};
use testkit::Home;
use tokio::io::AsyncReadExt as _;

use crate::room::{Room, is_root, succeeds_outside};

/// Where this is set, all rooms are such ones.
const NESTED: &str = "SKEP_TEST_NESTED";
const PATIENCE: Duration = Duration::from_secs(300);
/// What is said where something is refused, or not there; not where a program is missing or misused.
const REFUSALS: [&str; 11] = [
    "Operation not permitted",
    "Permission denied",
    "Read-only file system",
    "No such file or directory",
    "Invalid argument",
    "must be superuser",
    "permission denied",
    "does not exist",
    // Of `umount` and `mount`, where the kernel has locked what is mounted.
    "not mounted",
    // Of the shell.
    "Directory nonexistent",
    "I/O error",
];

/// Whether all rooms of this process are.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(NESTED).is_some()
}

fn nested(spec: &mut Spec) {
    spec.extras.nested = true;
}

/// What is promised of a seal, in this profile.
const SEAL: [&str; 19] = [
    "--test-threads=2",
    "seal::",
    "escapes::",
    "refusals::",
    "extras::",
    "network::",
    "layers::",
    "system_calls::",
    "limits::",
    "addresses::",
    "commands::",
    "workspaces::",
    "terminal::",
    "ends::",
    "nested::",
    // Those that begin this, and one whose toolchain may lie in root's home.
    "--skip",
    "all_of_the_seal_holds",
    "--skip",
    "with_its_toolchain_mounted",
];

/// As an ordinary user, where root runs the tests.
#[test]
fn all_of_the_seal_holds_where_sandboxes_may_be_made_inside() {
    let home = Home::new().as_user(65534).env(NESTED, "1");
    // Where another user can reach it.
    let program = home.root().join("promises");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = home.run(&program, SEAL, &home.home(), PATIENCE);
    assert!(ran.status.success(), "{}\n{}", ran.stdout, ran.stderr);
}

/// A room in which namespaces can be made; none where root runs the tests, to whom that is refused.
async fn room(change: impl FnOnce(&mut Spec)) -> Option<Room> {
    if !is_root() {
        let all = |spec: &mut Spec| {
            nested(spec);
            change(spec);
        };
        return Some(Room::with(all).await);
    }
    let place = crate::room::directories();
    let mut spec = crate::room::spec(place.path());
    nested(&mut spec);
    let refused = Namespace::new().create(spec).await.err().unwrap();
    assert!(matches!(refused, Error::Spec { .. }), "{refused}");
    None
}

#[tokio::test]
async fn without_being_asked_for_no_namespace_is_made() {
    let room = Room::with(|spec| spec.extras.nested = false).await;
    assert!(succeeds_outside("unshare -Urm true"));
    for script in ["unshare -Ur true", "bwrap --ro-bind / / true"] {
        assert!(!room.sh(script).await.exit.success(), "{script}");
    }
}

#[tokio::test]
async fn what_runs_inside_makes_namespaces_and_sandboxes_of_its_own() {
    let Some(room) = room(|_| {}).await else {
        return;
    };
    let said = room
        .says("unshare -Urmpf sh -c 'mount -t tmpfs none /tmp && mount -t proc none /proc && hostname && id -u && echo $$'")
        .await;
    assert_eq!(said, "skep\n0\n1");
    let bwrap = "bwrap --ro-bind / / --dev /dev --tmpfs /home --unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts --hostname within sh -c 'hostname; ls /home; touch /usr/x 2>/dev/null || echo sealed'";
    assert_eq!(room.says(bwrap).await, "within\nsealed");
    let bwrap = "bwrap --ro-bind / / --proc /proc --unshare-user --unshare-pid sh -c 'ls -d /proc/[0-9]* | wc -l'";
    assert!(room.says(bwrap).await.parse::<u32>().unwrap() < 6);
}

/// Whether a command failed because something was refused to it.
fn is_refused(ran: &Output) -> bool {
    let said = ran.stderr.text();
    !ran.exit.success() && REFUSALS.iter().any(|why| said.contains(why))
}

#[tokio::test]
async fn root_of_a_namespace_within_gets_no_further_than_anybody_inside() {
    let masked = |spec: &mut Spec| spec.masked.push("/usr/share/common-licenses".into());
    let Some(room) = room(masked).await else {
        return;
    };
    let secret = room.directory.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    // What is tried below can be done as such, to what is one's own.
    let own = "cd /tmp && mkdir m && mount -t tmpfs none m && touch m/x && mount -o remount,ro,bind m && umount m && \
        chroot / true && mknod p p && chmod 600 p && nsenter -t $$ -m true && head -c1 /proc/self/stat >/dev/null && \
        date >/dev/null && rm -r m p && id -u";
    for script in [
        format!("unshare -Urm sh -c '{own}'"),
        format!("unshare -Urmpfn sh -c 'mount -t proc none /proc; {own}'"),
    ] {
        assert_eq!(room.says(&script).await, "0");
    }
    let mounts = room.says("cat /proc/mounts").await;
    for place in [
        "/usr",
        "/usr/share/common-licenses",
        "/etc/ssl/certs",
        "/home/agent",
    ] {
        assert!(mounts.contains(&format!(" {place} ")), "{place}: {mounts}");
    }
    let secret = secret.display();
    let mut not_refused = Vec::new();
    for script in [
        // The host's files, whatever is mounted or entered.
        format!("cat {secret}"),
        format!("chroot / cat {secret}"),
        format!("nsenter -t 1 -m cat {secret}"),
        "mkdir -p /tmp/m && mount -t ext4 /dev/vda /tmp/m".to_owned(),
        "mount -t devtmpfs none /tmp".to_owned(),
        "mount -t sysfs none /tmp".to_owned(),
        "mount -t cgroup2 none /tmp".to_owned(),
        "mount -t cgroup -o memory none /tmp".to_owned(),
        "mount -t debugfs none /tmp".to_owned(),
        "mount -t securityfs none /tmp".to_owned(),
        "unshare -C true".to_owned(),
        // What is read-only or hidden stays so.
        "mount -o remount,rw,bind /usr && touch /usr/x".to_owned(),
        "mount -o remount,bind,rw /usr".to_owned(),
        "touch /usr/x".to_owned(),
        "umount /usr".to_owned(),
        "umount -l /usr/share/common-licenses".to_owned(),
        "umount -l /etc/ssl/certs".to_owned(),
        "mount -o remount,rw,bind / && touch /dev/x".to_owned(),
        "mount -o remount,dev,bind /home/agent".to_owned(),
        "chmod 600 /dev/null".to_owned(),
        // Devices, settings and the machine.
        "mknod /tmp/d b 7 0".to_owned(),
        "mknod /tmp/d c 1 1".to_owned(),
        "echo x > /proc/sys/kernel/hostname".to_owned(),
        "echo 1 > /proc/sys/kernel/core_pattern".to_owned(),
        "echo 1 > /proc/sys/vm/drop_caches".to_owned(),
        "echo c > /proc/sysrq-trigger".to_owned(),
        "echo -1000 > /proc/self/oom_score_adj".to_owned(),
        "head -c1 /proc/kcore".to_owned(),
        "head -c1 /proc/kmsg".to_owned(),
        "dmesg".to_owned(),
        "ls /proc/1/root/".to_owned(),
        "cat /proc/1/environ".to_owned(),
        "kill -9 1".to_owned(),
        "swapoff -a && swapon /dev/zram0".to_owned(),
        "date -s 2001-01-01".to_owned(),
    ] {
        let forms = [
            format!("unshare -Urm sh -c '{script}'"),
            // With a list of processes and a network of its own, too.
            format!("unshare -Urmpfn sh -c 'mount -t proc none /proc; {script}'"),
        ];
        let own = ["/proc/1/", "kill -9 1"];
        let of_its_own = own.iter().any(|it| script.contains(it));
        for (form, may_work) in forms.iter().zip([script == "kill -9 1", of_its_own]) {
            let ran = room.sh(form).await;
            if !may_work && !is_refused(&ran) {
                let (out, err) = (ran.stdout.text(), ran.stderr.text());
                not_refused.push(format!("{form}: {}: {out}{err}", ran.exit));
            }
        }
    }
    assert_eq!(not_refused, Vec::<String>::new());
    // All is as it was.
    assert_eq!(
        room.says("echo on; ls /usr/share/common-licenses").await,
        "on"
    );
    assert!(succeeds_outside(": > /dev/null"));
}

#[tokio::test]
async fn a_process_list_made_within_shows_none_of_the_host() {
    let Some(room) = room(|_| {}).await else {
        return;
    };
    let own = std::process::id();
    let script = format!(
        "unshare -Urmpf sh -c 'mount -t proc none /proc && test ! -e /proc/{own}/stat && ls -d /proc/[0-9]* | wc -l'"
    );
    let seen: u32 = room.says(&script).await.parse().unwrap();
    assert!(own > 100 && seen <= 4, "{seen}");
    for setting in [
        "kernel/core_pattern",
        "vm/swappiness",
        "kernel/printk",
        "fs/file-max",
    ] {
        let script = format!(
            "unshare -Urmpf sh -c 'mount -t proc none /proc && cat /proc/sys/{setting} && echo 1 > /proc/sys/{setting}'"
        );
        assert!(!room.sh(&script).await.exit.success(), "{setting}");
    }
}

/// A file and a directory that every machine of the tests has.
const HIDDEN: [&str; 2] = [
    "/usr/share/common-licenses/GPL-3",
    "/usr/share/ca-certificates",
];

/// As with the credentials of a host, which are below `/usr` outside and within.
fn hide(spec: &mut Spec) {
    spec.masked.extend(HIDDEN.map(Into::into));
}

#[tokio::test]
async fn what_is_hidden_is_empty_and_stays_so() {
    let room = Room::with(hide).await;
    let [file, directory] = HIDDEN;
    let said = room.says(&format!("cat {file}; ls -A {directory}")).await;
    assert_eq!(said, "");
    for script in [
        format!("echo x > {file}"),
        format!("rm {file}"),
        format!("chmod 777 {file}"),
        format!("touch {directory}/x"),
        format!("umount {file}"),
    ] {
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
}

#[tokio::test]
async fn what_is_hidden_can_be_hidden_and_mounted_upon_within() {
    let Some(room) = room(hide).await else {
        return;
    };
    let [file, directory] = HIDDEN;
    for script in [
        format!(
            "unshare -Urm sh -c 'mount --bind /etc/hosts {file} && mount -t tmpfs none {directory} && grep -c localhost {file}'"
        ),
        format!(
            "bwrap --ro-bind / / --ro-bind /etc/hosts {file} --tmpfs {directory} --unshare-user sh -c 'grep -c localhost {file}'"
        ),
    ] {
        assert_eq!(room.says(&script).await, "2", "{script}");
    }
    let script = format!(
        "unshare -Urm sh -c 'mount --bind /etc/hosts {file} && umount {file} && cat {file} && umount {file}'"
    );
    let ran = room.sh(&script).await;
    assert!(is_refused(&ran), "{}: {}", ran.exit, ran.stderr.text());
    assert_eq!(ran.stdout.text(), "", "what was hidden stays so");
}

#[tokio::test]
async fn sandboxes_of_skep_are_made_in_a_sandbox_of_skep() {
    let program = std::env::current_exe().unwrap();
    let mount = Mount::read_only(&program, "/opt/test");
    let with_hidden = |spec: &mut Spec| {
        spec.mounts.push(mount);
        hide(spec);
    };
    let Some(room) = room(with_hidden).await else {
        return;
    };
    let tests = [
        "nested::what_is_hidden_is_empty_and_stays_so",
        "seal::a_file_of_the_host_cannot_be_read",
        "seal::there_are_no_capabilities_and_no_way_to_them",
        "seal::nothing_is_written_outside_workspace_home_and_tmp",
        "seal::process_1_cannot_be_looked_into",
        "network::there_is_no_interface_but_the_loopback_and_no_route",
        "ends::nothing_is_left_of_a_destroyed_sandbox",
    ];
    let script = format!("/opt/test --exact --test-threads=1 {}", tests.join(" "));
    let ran = room.sh(&script).await;
    assert!(
        ran.exit.success() && ran.stdout.text().contains("7 passed"),
        "{}\n{}",
        ran.stdout.text(),
        ran.stderr.text()
    );
}

#[tokio::test]
async fn what_was_made_within_ends_with_its_command_and_with_the_sandbox() {
    let Some(room) = room(|_| {}).await else {
        return;
    };
    // All of it is seen before the command ends, and none of it after.
    let left = "cat /proc/[0-9]*/comm | grep -cxE 'sleep|unshare'";
    room.says(&format!(
        "unshare -Urmpf --kill-child sleep 1000 >/dev/null 2>&1 & \
         setsid unshare -Urpf sleep 1000 >/dev/null 2>&1 & \
         until test \"$({left})\" = 4; do :; done; echo begun"
    ))
    .await;
    assert_eq!(room.says(&format!("{left}; true")).await, "0");
    // One that still runs, in a list of processes of its own.
    let long = format!("1{:07}", std::process::id());
    let script = format!("unshare -Urmpf sh -c 'echo begun; sleep {long}; true'");
    let mut process = room
        .sandbox
        .exec(room.command(["/bin/sh", "-c", &script]))
        .await
        .unwrap();
    let mut begun = [0; 6];
    let output = process.stdout.as_mut().unwrap();
    output.read_exact(&mut begun).await.unwrap();
    let seen = || succeeds_outside(&format!("grep -qa '[s]leep {long}' /proc/[0-9]*/cmdline"));
    assert!(seen(), "it runs, and the host sees it");
    room.sandbox.destroy().await.unwrap();
    assert!(!seen(), "it is gone");
}
