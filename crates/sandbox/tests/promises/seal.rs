//! What cannot be seen or changed from inside.

use std::os::unix::process::CommandExt as _;

use skep_sandbox::Mount;

use crate::room::{COUNT, Room, directories, is_root, succeeds_outside};

#[tokio::test]
async fn a_file_of_the_host_cannot_be_read() {
    let room = Room::new().await;
    let secret = room.directory.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let script = format!("cat {}", secret.display());
    assert!(succeeds_outside(&script));
    assert!(!room.sh(&script).await.exit.success());
}

#[tokio::test]
async fn only_listed_things_are_in_the_root() {
    let room = Room::new().await;
    let allowed = [
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "sbin",
        "tmp",
        "usr",
        "workspace",
    ];
    for name in room.says("ls -A /").await.split_whitespace() {
        assert!(allowed.contains(&name), "{name}");
    }
    assert_eq!(room.says("ls -A /home").await, "agent");
    for path in [
        "/etc/shadow",
        "/etc/ssh",
        "/etc/machine-id",
        "/etc/sudoers",
        "/run",
        "/var",
        "/root",
        "/sys",
    ] {
        assert!(
            !room.sh(&format!("test -e {path}")).await.exit.success(),
            "{path}"
        );
    }
    let mounts = room.says("cat /proc/mounts").await;
    let host = room.directory.path().display().to_string();
    assert!(
        !mounts.contains(&host),
        "the list of mounts shows the host's paths: {mounts}"
    );
}

#[tokio::test]
async fn the_hosts_processes_are_not_there() {
    let room = Room::new().await;
    // In a container the first ones have numbers that are used inside, too.
    let mut held = Vec::new();
    let number = loop {
        let mut one = std::process::Command::new("/bin/cat");
        held.push(one.stdin(std::process::Stdio::piped()).spawn().unwrap());
        match held.last().unwrap().id() {
            0..100 => {}
            number => break number,
        }
    };
    let there = format!("kill -0 {number}");
    assert!(succeeds_outside(&there));
    assert_eq!(room.says(COUNT).await, "3", "1, a minder, a shell");
    assert!(!room.sh(&there).await.exit.success());
    for mut one in held {
        drop(one.stdin.take());
        one.wait().unwrap();
    }
}

#[tokio::test]
async fn process_1_cannot_be_looked_into() {
    let room = Room::new().await;
    for script in [
        "for f in /proc/1/fd/*; do readlink $f && exit 0; done; exit 1",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "readlink /proc/1/exe",
        // To open it is what is refused: at its beginning nobody's memory has anything to read.
        ": < /proc/1/mem",
        ": <> /proc/1/mem",
    ] {
        let own = script.replace("/1/", "/self/");
        assert!(succeeds_outside(&own), "{own}");
        assert!(!room.sh(script).await.exit.success(), "{script}");
    }
    room.sh("kill -9 1; kill -TERM 1; kill -STOP 1").await;
    assert_eq!(room.says("echo on").await, "on");
}

#[tokio::test]
async fn nothing_is_written_outside_workspace_home_and_tmp() {
    let tools = tempfile::tempdir().unwrap();
    let room = Room::with(|spec| spec.mounts.push(Mount::same_path(tools.path()))).await;
    let name = format!("skep-test-{}", std::process::id());
    // Root may write in the first two wherever it is, everybody in the last.
    for directory in [
        "/", "/dev", "/usr", "/usr/bin", "/etc", "/bin", "/home", "/var/tmp",
    ] {
        let script = format!("touch {directory}/{name}");
        let may = succeeds_outside(&format!("test -w {directory}"));
        let can = succeeds_outside(&format!("{script} && rm {directory}/{name}"));
        assert_eq!(may, can, "{script}");
        let everywhere = is_root() && ["/", "/dev"].contains(&directory);
        assert!(may || !everywhere, "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    // Everybody may write in what is one's own, and not through a mount of it.
    for place in [tools.path(), room.directory.path()] {
        let script = format!("touch {}/{name}", place.display());
        assert!(succeeds_outside(&script), "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    for directory in ["/proc", "/workspace"] {
        let script = format!("touch {directory}/{name}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    for directory in ["/workspace/repo", "/home/agent", "/tmp", "/dev/shm"] {
        room.says(&format!("cd {directory} && mkdir -p a/b && echo x > a/b/c && mv a/b/c a/d && rm -r a && touch x && chmod 755 x")).await;
    }
    assert!(room.host_workspace().join("x").exists());
    assert!(room.directory.path().join("home/x").exists());
    for path in ["/usr", "/usr/bin/env", "/etc/ssl/certs"] {
        // The same mode, so that the host stays as it is.
        let script = format!("chmod $(stat -c %a {path}) {path}");
        let may = succeeds_outside(&format!("test -O {path} -a -w {path}"));
        assert_eq!(succeeds_outside(&script), may, "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
}

#[tokio::test]
async fn no_setting_of_the_kernel_can_be_changed() {
    let room = Room::new().await;
    let settings = [
        "kernel/hostname",
        "kernel/core_pattern",
        "vm/drop_caches",
        "vm/swappiness",
        "kernel/modprobe",
        "net/ipv4/ip_forward",
        "fs/file-max",
    ];
    for setting in settings {
        let path = format!("/proc/sys/{setting}");
        // Opened only, so that the host stays as it is.
        let script = format!(": >> {path}");
        // A kernel without modules has no `modprobe`.
        let may = is_root() && std::path::Path::new(&path).exists();
        assert_eq!(succeeds_outside(&script), may, "{script}");
        assert!(!room.sh(&script).await.exit.success(), "{script}");
    }
    // Every file of /proc that is not about a process, opened for writing.
    let opened = room.says(
        "for f in $(find /proc -path '/proc/[0-9]*' -prune -o -path /proc/self -prune -o -path /proc/thread-self -prune -o -type f -print 2>/dev/null); do (: >> $f) 2>/dev/null && echo $f; done; true",
    ).await;
    // Whoever may make namespaces can have a list of processes that shows all, and so can see this one.
    if crate::nested::is_asked_for() {
        // Everybody may open these: the first are asked to wake somebody, and the last is refused when it
        // is written.
        let of_own = |path: &&str| {
            !path.starts_with("/proc/pressure/") && *path != "/proc/sys/kernel/ns_last_pid"
        };
        let written = "echo 300 > /proc/sys/kernel/ns_last_pid";
        assert!(!room.sh(written).await.exit.success());
        assert_eq!(opened.lines().filter(of_own).collect::<Vec<_>>(), [""; 0]);
        return;
    }
    assert_eq!(opened, "");
    assert_eq!(room.says("cat /proc/kcore /proc/kmsg /proc/keys /proc/timer_list /proc/kallsyms 2>/dev/null | wc -c").await, "0");
}

#[tokio::test]
async fn there_are_no_capabilities_and_no_way_to_them() {
    let room = Room::new().await;
    let status = room.says("cat /proc/self/status").await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{set}"
        );
    }
    assert!(status.contains("NoNewPrivs:\t1"));
    assert!(status.contains("Seccomp:\t2"));
    assert_eq!(
        room.says("id -u; id -g; hostname").await,
        "1000\n1000\nskep"
    );
    assert_eq!(room.says("id -un; echo ~").await, "agent\n/home/agent");
}

#[tokio::test]
async fn a_program_that_changes_its_user_does_not() {
    let place = crate::users::open_directory();
    let own = place.path().join("id");
    let copy = |to: &std::path::Path| format!("cp /usr/bin/id {0} && chmod 6755 {0}", to.display());
    assert!(succeeds_outside(&copy(&own)));
    // Root's, where root runs the tests or has left it for who does.
    let of_root = crate::users::program_of_root().or_else(|| is_root().then(|| own.clone()));
    let nosuid = rustix::fs::StatVfsMountFlags::NOSUID;
    if let Some(program) = &of_root
        // Podman gives its containers no other `/tmp`.
        && !rustix::fs::statvfs(program).unwrap().f_flag.contains(nosuid)
    {
        let mut command = std::process::Command::new(program);
        if is_root() {
            command.uid(65534).gid(65534);
        }
        let said = command.arg("-u").current_dir("/").output().unwrap();
        assert_eq!(said.stdout, b"0\n", "outside it does");
    }
    let programs: Vec<_> = of_root.into_iter().chain([own]).collect();
    let room = Room::with(|spec| {
        spec.mounts.extend(programs.iter().map(Mount::same_path));
    })
    .await;
    for program in &programs {
        let script = format!("{} -u", program.display());
        assert_eq!(room.says(&script).await, "1000");
    }
    // One that is made inside is the owner's own; what it changes to is the user that the owner is
    // outside.
    room.says(&copy("id".as_ref())).await;
    assert_eq!(room.says("./id -u").await, "1000");
    let mounts = room.says("cat /proc/mounts").await;
    for line in mounts.lines() {
        assert!(line.contains("nosuid"), "{line}");
    }
}

#[tokio::test]
async fn a_mount_appears_at_its_path_read_only_and_without_what_is_masked() {
    let tools = directories();
    let bin = tools.path().join("workspace");
    std::fs::write(bin.join("tool"), "#!/bin/sh\necho tool\n").unwrap();
    std::fs::write(bin.join("credentials"), "secret").unwrap();
    std::fs::create_dir(bin.join("registry")).unwrap();
    std::fs::write(bin.join("registry/token"), "secret").unwrap();
    assert!(succeeds_outside(&format!(
        "chmod 755 {0}/tool && grep secret {0}/credentials",
        bin.display()
    )));
    let room = Room::with(|spec| {
        spec.mounts.push(Mount::same_path(&bin));
        spec.mounts.push(Mount::read_only(&bin, "/root/.tools/x"));
        spec.mounts.push(Mount::read_only(
            bin.join("tool"),
            "/home/agent/.local/bin/tool",
        ));
        spec.masked.extend([
            bin.join("credentials"),
            bin.join("registry"),
            "/no/such/file".into(),
        ]);
    })
    .await;
    let path = bin.display();
    assert_eq!(room.says(&format!("{path}/tool")).await, "tool");
    assert_eq!(
        room.says("/root/.tools/x/tool; ls -A /root; /home/agent/.local/bin/tool")
            .await,
        "tool\n.tools\ntool"
    );
    assert_eq!(
        room.says(&format!("cat {path}/credentials; ls -A {path}/registry"))
            .await,
        ""
    );
    for script in [
        "touch /root/.tools/x/y",
        "touch /root/y",
        "rm /home/agent/.local/bin/tool",
    ] {
        assert!(!room.sh(script).await.exit.success(), "{script}");
    }
    assert!(
        !room
            .sh(&format!(
                "umount {path}/credentials || echo x > {path}/credentials"
            ))
            .await
            .exit
            .success()
    );
}

#[tokio::test]
async fn a_link_that_an_agent_left_in_its_home_leads_nowhere() {
    let room_directory = directories();
    let victim = room_directory.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let home = room_directory.path().join("home");
    let hosts = format!("/.host{}", victim.display());
    std::os::unix::fs::symlink(hosts, home.join("cache")).unwrap();
    let mut spec = crate::room::spec(room_directory.path());
    spec.mounts
        .push(Mount::read_only("/usr/share", "/home/agent/cache/made"));
    // Whether it is refused or not, nothing is made outside.
    let outcome = crate::contained::kind().create(spec).await;
    assert!(outcome.is_err());
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
}

#[tokio::test]
async fn the_pseudo_terminals_are_its_own() {
    let room = Room::new().await;
    assert_eq!(
        room.says("ls /dev/pts; ls -l /dev/ptmx | grep -c pts/ptmx")
            .await,
        "ptmx\n1"
    );
    assert_eq!(
        room.says("script -qec 'echo in a terminal' /dev/null | tr -d '\\r'")
            .await,
        "in a terminal"
    );
}

#[tokio::test]
async fn no_device_can_be_made_even_where_writing_is_allowed() {
    let room = Room::new().await;
    // The one device that the kernel lets everybody make; only the rules on paths forbid it.
    let outside = format!("mknod {}/device c 0 0", room.directory.path().display());
    assert!(succeeds_outside(&outside));
    let inside = room.sh("mknod device c 0 0").await;
    let ruled = room.sandbox.diagnose().await.landlock_abi.is_some();
    assert_eq!(inside.exit.success(), !ruled, "{}", inside.stderr.text());
}

#[tokio::test]
async fn a_signal_that_the_owner_ignores_works_inside() {
    let room = Room::new().await;
    let output = room.sh("kill -PIPE $$").await;
    assert_eq!(output.exit.signal, Some(13), "test programs ignore it");
}
