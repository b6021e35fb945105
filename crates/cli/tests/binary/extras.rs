//! What a person's sandbox gets beyond what every one has: secrets, devices, dotfiles.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::models::{Dialect, Job, Script, Step};
use testkit::{Ran, Repo};

use crate::world::{DEADLINE, PROMPT, World, wrong_answer};

/// What is to be found nowhere.
const VALUE: &str = "open-sesame-of-the-binary";

fn world() -> World {
    World::simple().env("SKEP", env!("CARGO_BIN_EXE_skep"))
}

fn json(world: &World, args: &[&str]) -> Value {
    let ran = world.skep(&[&["sandbox", "--json"], args].concat());
    ran.expect_code(0).json_lines().remove(0)
}

fn exec(world: &World, name: &str, script: &str) -> Ran {
    world.skep(&["sandbox", "exec", name, "--", "sh", "-c", script])
}

/// Every file below a directory in which the value is.
fn holding(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        let path = entry.path();
        if kind.is_dir() {
            found.extend(holding(&path));
        } else if kind.is_file()
            && let Ok(bytes) = fs::read(&path)
            && bytes.windows(VALUE.len()).any(|it| it == VALUE.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A device that this user may use and that no sandbox has of itself.
fn device() -> &'static str {
    let known = ["/dev/kvm", "/dev/net/tun", "/dev/fuse", "/dev/hwrng"];
    let mut known = known.into_iter();
    known
        .find(|path| {
            fs::File::options()
                .read(true)
                .write(true)
                .open(path)
                .is_ok()
        })
        .expect("a device that these tests may use: `modprobe tun`, and `chmod 666 /dev/net/tun`")
}

#[test]
fn a_shell_has_the_secrets_and_devices_that_are_asked_for_and_says_which() {
    let world = world().env("OTHER", format!("{VALUE}-2"));
    let file = world.home.file("token.txt", format!("{VALUE}-1\n"));
    let (token, device) = (format!("token={}", file.display()), device());
    let script = format!(
        "cat /run/skep/secrets/token; cat /run/skep/secrets/other; echo; test -c {device} && \
         ! env | grep -q {VALUE} && echo 42 > answer.txt"
    );
    let asked = [
        "--secret",
        &token,
        "--secret",
        "other=env:OTHER",
        "--device",
        device,
    ];
    let ran = world.skep(&[&["shell"], &asked[..], &["--", "sh", "-c", &script]].concat());
    let ran = ran.expect_code(0);
    assert_eq!(ran.stdout, format!("{VALUE}-1\n{VALUE}-2\n"));
    for said in [
        "with the secret /run/skep/secrets/token".to_owned(),
        "with the secret /run/skep/secrets/other".to_owned(),
        format!("with the device {device}"),
    ] {
        assert!(ran.stderr.contains(&said), "{said}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
    assert_eq!(holding(&world.data()), Vec::<String>::new());
    let shown = world.skep(&[&["shell", "--json"], &asked[..], &["--", "true"]].concat());
    let shown: Value = serde_json::from_str(shown.expect_code(0).stderr.trim()).unwrap();
    assert_eq!(shown["secrets"], serde_json::json!(["token", "other"]));
    assert_eq!(shown["devices"], serde_json::json!([device]));
    let plain = world.skep(&["shell", "--", "sh", "-c", &format!("ls /run {device}")]);
    assert!(!plain.expect_code(2).stderr.contains("with the"));
    world.assert_nothing_left();
}

// docs/bad-input.md: A device that leads out of any seal (`--device /dev/mem`)
// docs/bad-input.md: A device that the sandbox makes itself (`--device /dev/tty`), or a directory (`--device /dev/dri`)
// docs/bad-input.md: A device that is not there, or that you may not use yourself
// docs/bad-input.md: A secret without a source (`skep shell --secret NAME`), or that is too long, by itself or with others
#[test]
fn what_cannot_be_given_is_refused_before_anything_is_made() {
    let world = world();
    for (args, code, said) in [
        (&["--device", "/dev/mem"][..], 2, "memory"),
        (&["--device", "/dev/loop-control"], 2, "disks"),
        (&["--device", "/dev/tty"], 2, "of its own"),
        (&["--device", "/dev/ptmx"], 2, "of its own"),
        (&["--device", "/dev/pts"], 2, "directory"),
        (&["--device", "/etc/passwd"], 2, "below /dev"),
        (&["--device", "/dev/no-such"], 4, "modprobe"),
        (&["--secret", "token"], 2, "the input is the command's"),
        (&["--secret", "a/b=env:HOME"], 2, "name of a secret"),
        (&["--secret", "x=env:NOT_SET_AT_ALL"], 2, "is not set"),
        (&["--secret", "x=no-such-file"], 2, "no-such-file"),
        (
            &["--secret", "x=env:HOME", "--secret", "x=env:HOME"],
            2,
            "two secrets",
        ),
        (&["--dotfiles", "no-such-directory"], 2, "no-such-directory"),
    ] {
        let ran = world.skep(&[&["shell"], args, &["--", "true"]].concat());
        let ran = ran.expect_code(code);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    let large = world.home.file("large", vec![b'x'; (64 << 10) + 1]);
    let large = format!("x={}", large.display());
    let ran = world.skep(&["sandbox", "create", "--secret", &large]);
    let said = ran.expect_code(2).stderr;
    assert!(said.contains("more than 65536 bytes"), "{said}");
    // Each as long as one may be, and too many of them.
    world.home.file("long", vec![b'x'; 64 << 10]);
    let long = world.home.root().join("long").display().to_string();
    let long: Vec<String> = (0..5).map(|n| format!("--secret=x{n}={long}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    for command in [&["sandbox", "create"][..], &["sandbox", "--json", "create"]] {
        let ran = world.skep(&[command, &long[..]].concat()).expect_code(2);
        let said = ran.stderr;
        assert!(said.contains("more than 262144 bytes together"), "{said}");
    }
    let fits = world.skep(&[&["shell"], &long[..4], &["--", "true"]].concat());
    fits.expect_code(0);
    world.home.file(
        "config/skep/config.toml",
        "[sandbox]\ndevices = ['/etc/shadow']\n",
    );
    let said = world.skep(&["shell", "--", "true"]).expect_code(2).stderr;
    assert!(said.contains("write a path below /dev"), "{said}");
}

#[test]
fn a_holder_has_nothing_of_the_environment_but_what_it_reads() {
    const HUSH: &str = "hush-hush-of-the-shell";
    let mut world = world();
    for name in [
        "DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "GH_TOKEN",
        "SKEP_API_KEY",
        "https_proxy",
    ] {
        world = world.env(name, HUSH);
    }
    let make = ["sandbox", "create", "--for", "10m", "--name", "one"];
    world.skep(&make).expect_code(0);
    let all_hold = || {
        for one in json(&world, &["list"])["sandboxes"].as_array().unwrap() {
            let place = format!("/proc/{}/environ", one["pid"]);
            let seen = fs::read(place).unwrap();
            let seen = String::from_utf8_lossy(&seen).into_owned();
            assert!(!seen.contains(HUSH) && !seen.contains(&world.key), "{seen}");
            for name in ["HOME", "PATH", "SKEP_CONFIG", "XDG_RUNTIME_DIR", "LC_ALL"] {
                let is_there = |it: &str| it.split_once('=').is_some_and(|it| it.0 == name);
                assert!(seen.split('\0').any(is_there), "{name}: {seen}");
            }
        }
    };
    all_hold();
    let fork = ["sandbox", "fork", "one", "--for", "10m"];
    world.skep(&fork).expect_code(0);
    world.skep(&["sandbox", "stop", "one"]).expect_code(0);
    world.skep(&["sandbox", "start", "one"]).expect_code(0);
    all_hold();
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn a_standing_sandbox_is_handed_its_secrets_and_a_fork_has_none_of_them() {
    let world = world().env("TOKEN", format!("{VALUE}-env"));
    let make = format!(
        "printf {VALUE}-in | \"$SKEP\" sandbox create --for 10m --name one --secret in --secret token=env:TOKEN"
    );
    let made = world.home.start("sh", ["-c", &make], world.repo.path());
    let made = made.finish(DEADLINE).expect_code(0);
    assert!(
        made.stderr.contains("with the secret /run/skep/secrets/in"),
        "{}",
        made.stderr
    );
    let read = "cat /run/skep/secrets/in /run/skep/secrets/token";
    let ran = exec(&world, "one", read).expect_code(0);
    assert_eq!(ran.stdout, format!("{VALUE}-in{VALUE}-env"));
    let list = json(&world, &["list"]);
    let one = &list["sandboxes"][0];
    assert_eq!(one["secrets"], serde_json::json!(["in", "token"]));
    // Whoever holds it has them in no argument, variable, record or log.
    let holder = Path::new("/proc").join(one["pid"].to_string());
    for name in ["cmdline", "environ"] {
        let seen = fs::read(holder.join(name)).unwrap();
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(!seen.is_empty() && !seen.contains(VALUE), "{seen}");
    }
    world.skep(&["sandbox", "snapshot", "one"]).expect_code(0);
    assert_eq!(holding(&world.data()), Vec::<String>::new());
    let inspected = world.skep(&["sandbox", "inspect", "one"]).expect_code(0);
    assert!(
        inspected.stdout.contains("/run/skep/secrets/token") && !inspected.stdout.contains(VALUE),
        "{}",
        inspected.stdout
    );
    world
        .skep(&["sandbox", "fork", "one", "--name", "two"])
        .expect_code(0);
    exec(&world, "two", "test ! -e /run").expect_code(0);
    let asked = ["--secret", "token=env:TOKEN"];
    let forked = [&["sandbox", "fork", "one", "--name", "three"], &asked[..]].concat();
    world.skep(&forked).expect_code(0);
    let ran = exec(
        &world,
        "three",
        "ls /run/skep/secrets; cat /run/skep/secrets/token",
    );
    assert_eq!(ran.expect_code(0).stdout, format!("token\n{VALUE}-env"));
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    world.assert_nothing_left();
}

#[test]
fn devices_of_the_configuration_are_in_every_sandbox_but_that_of_a_setup() {
    let device = device();
    let repo = Repo::new();
    repo.file("answer.txt", "41\n");
    repo.file(
        "skep.toml",
        format!(
            "[setup]\ncommand = \"test ! -e {device} && touch set-up\"\n\
             [[check]]\nname = \"sees\"\ncommand = \"test -c {device}\"\n"
        ),
    );
    repo.commit("A wrong answer");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(format!(
                "test -c {device} && test -e set-up && echo 42 > answer.txt"
            )))
            .step(Step::say("The answer is right.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    let none = world.skep(&["shell", "--", "test", "-e", device]);
    none.expect_code(1);
    world.home.file(
        "config/skep/config.toml",
        format!("[sandbox]\ndevices = ['{device}']\n"),
    );
    let ran = world.skep(&["shell", "--", "test", "-c", device]);
    assert!(
        ran.expect_code(0)
            .stderr
            .contains(&format!("with the device {device}"))
    );
    let ran = world
        .skep(&["run", "--plan", "none", PROMPT])
        .expect_code(0);
    assert!(
        ran.stderr.contains(&format!("with the devices {device}")),
        "{}",
        ran.stderr
    );
    assert_eq!(world.integrated("answer.txt"), "42\n");
    world.home.file(
        "config/skep/config.toml",
        "[sandbox]\ndevices = ['/dev/no-such-device']\n",
    );
    let ran = world.skep(&["shell", "--", "true"]).expect_code(4);
    assert!(ran.stderr.contains("/dev/no-such-device"), "{}", ran.stderr);
    world.assert_nothing_left();
}

// docs/bad-input.md: Namespaces within a sandbox of root's, or of a container
#[test]
fn namespaces_can_be_made_in_a_sandbox_only_where_that_is_asked_for_and_never_by_root() {
    let within = "unshare -Urm sh -c 'mount -t tmpfs none /tmp && id -u'";
    let script = Script::new();
    let world = World::of_ordinary_user(Dialect::Chat, wrong_answer(), script);
    let ran = world.skep(&["shell", "--", "sh", "-c", within]);
    assert_ne!(ran.code(), Some(0));
    let ran = world.skep(&["shell", "--nested", "--", "sh", "-c", within]);
    let ran = ran.expect_code(0);
    assert_eq!(ran.stdout, "0\n");
    assert!(ran.stderr.contains("more of the kernel"), "{}", ran.stderr);
    let made = json(
        &world,
        &["create", "--for", "10m", "--name", "one", "--nested"],
    );
    assert_eq!(made["nested"], true);
    world
        .skep(&["sandbox", "fork", "one", "--name", "two"])
        .expect_code(0);
    for name in ["one", "two"] {
        assert_eq!(exec(&world, name, within).expect_code(0).stdout, "0\n");
    }
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    world
        .home
        .file("config/skep/config.toml", "[sandbox]\nnested = true\n");
    let ran = world.skep(&["shell", "--", "sh", "-c", within]);
    assert_eq!(ran.expect_code(0).stdout, "0\n");
    world.assert_nothing_left();
    if rustix::process::geteuid().is_root() {
        let world = World::simple();
        let ran = world.skep(&["shell", "--nested", "--", "true"]);
        let said = ran.expect_code(4).stderr;
        assert!(said.contains("run it as an ordinary user"), "{said}");
        world.assert_nothing_left();
    }
}

// docs/bad-input.md: Dotfiles with credentials, links, or a script that fails
// docs/bad-input.md: A home as dotfiles (`--dotfiles ~`)
#[test]
fn dotfiles_are_in_the_home_before_the_first_command_and_their_script_may_fail() {
    let world = world();
    world.home.file("dots/.profile", "echo loaded\n");
    world.home.file("dots/.netrc", VALUE);
    world.home.file("dots/notes", "not taken\n");
    std::os::unix::fs::symlink("/etc/shadow", world.home.root().join("dots/.link")).unwrap();
    let dots = world.home.root().join("dots").display().to_string();
    let look = "cat ~/.profile; readlink ~/.link; ls -A ~ | grep -c -e notes -e netrc";
    let ran = world.skep(&["shell", "--dotfiles", &dots, "--", "sh", "-c", look]);
    let ran = ran.expect_code(1);
    assert_eq!(ran.stdout, "echo loaded\n/etc/shadow\n0\n");
    assert!(
        ran.stderr.contains("may be a credential: .netrc"),
        "{}",
        ran.stderr
    );

    // A repository, by the configuration; its script is run inside, from where it lies.
    let repo = Repo::new();
    repo.executable(
        "install.sh",
        "#!/bin/sh\ncp gitconfig ~/.gitconfig && pwd > ~/where\necho why: $(cat /run/skep/secrets/token)\nexit 3\n",
    );
    repo.file("gitconfig", "[user]\n\tname = Ann\n");
    repo.commit("Dotfiles");
    let url = format!("file://{}", repo.path().display());
    world.home.file(
        "config/skep/config.toml",
        format!("[shell]\ndotfiles = '{url}'\n"),
    );
    let token = world.home.file("token.txt", VALUE).display().to_string();
    let token = format!("--secret=token={token}");
    for command in [
        &["sandbox", "create", "--for", "10m", "--name", "one", &token][..],
        &["shell", &token, "--", "true"],
    ] {
        let ran = world.skep(command).expect_code(0);
        for said in [
            "`install.sh` of the dotfiles failed: ",
            "`--no-dotfiles`\n  why: [hidden]\n",
        ] {
            assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
        }
    }
    let look = "cat ~/where; git config --global user.name";
    let ran = exec(&world, "one", look).expect_code(0);
    assert_eq!(ran.stdout, "/home/agent/.dotfiles\nAnn\n");
    let put = json(&world, &["inspect", "one"])["dotfiles"].clone();
    assert_eq!(put["script"]["exit"]["code"], 3);
    assert_eq!(
        put["script"]["output"],
        serde_json::json!(["why: [hidden]"])
    );
    world
        .skep(&["sandbox", "fork", "one", "--name", "two"])
        .expect_code(0);
    exec(&world, "two", "test -e ~/.gitconfig").expect_code(0);
    let ran = world.skep(&[
        "shell",
        "--no-dotfiles",
        "--",
        "test",
        "-e",
        "/home/agent/where",
    ]);
    ran.expect_code(1);
    world.skep(&["sandbox", "destroy", "--all"]).expect_code(0);
    let own = world.home.home().display().to_string();
    let ran = world.skep(&["shell", "--dotfiles", &own, "--", "true"]);
    let said = ran.expect_code(2).stderr;
    assert!(said.contains("it is your home"), "{said}");
    world.assert_nothing_left();
}
