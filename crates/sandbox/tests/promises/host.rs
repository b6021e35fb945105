//! The `host` kind: unsealed, and honest about it.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use skep_sandbox::{Backend, Error, Host, Kind, Mount, Workspace};

use crate::room::{Room, directories, is_root, spec, succeeds_outside};

#[tokio::test]
async fn it_says_that_it_is_unsealed() {
    let room = Room::of(&Host, |_| {}).await;
    assert_eq!(room.sandbox.kind(), Kind::Host);
    assert!(!room.sandbox.diagnose().await.sealed);
    assert!(Kind::Host.to_string().contains("unsealed"));
}

#[tokio::test]
async fn commands_run_in_the_workspace_with_only_the_given_environment() {
    let room = Room::of(&Host, |_| {}).await;
    let output = room.sh("pwd; echo out; echo err >&2; exit 5").await;
    assert_eq!(
        output.stdout.text(),
        format!("{}\nout\n", room.host_workspace().display())
    );
    assert_eq!(
        (output.exit.code, output.stderr.text().as_str()),
        (Some(5), "err\n")
    );
    let missing = room.sandbox.exec(room.command(["no-such-program"])).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_timeout_ends_all_that_a_command_started() {
    let room = Room::of(&Host, |_| {}).await;
    let mut command = room.command([
        "/bin/sh",
        "-c",
        "trap '' TERM; (setsid sleep 1000 &); while :; do sleep 1000; done",
    ]);
    command.timeout = Some(Duration::from_millis(200));
    command.grace = Duration::from_millis(200);
    // The output ends only when every process that holds it has.
    let output = room.run(command).await;
    assert!(output.exit.timed_out);
    assert_eq!(output.exit.signal, Some(9));
}

#[tokio::test]
async fn the_channel_is_a_listener_of_the_host() {
    let room = Room::of(&Host, |spec| spec.channel_port = Some(0)).await;
    let channel = room.sandbox.take_channel().unwrap();
    let port = channel.port;
    let outside = std::thread::spawn(move || channel.listener.accept().unwrap().0.write_all(b"hi"));
    let script = format!("cat < /dev/tcp/127.0.0.1/{port}");
    assert_eq!(
        room.run(room.command(["/bin/bash", "-c", &script]))
            .await
            .stdout
            .text(),
        "hi"
    );
    outside.join().unwrap().unwrap();
}

#[tokio::test]
async fn the_channel_is_for_this_user_alone() {
    let room = Room::of(&Host, |spec| spec.channel_port = Some(0)).await;
    let channel = room.sandbox.take_channel().unwrap();
    let guard = channel
        .guard
        .expect("every user of the machine can reach it");
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3", channel.port);
    // As who runs these tests, and where that is root, as somebody else.
    let users = [None, is_root().then_some(65534)];
    for (index, user) in users.into_iter().enumerate() {
        let mut connect = std::process::Command::new("/bin/bash");
        connect.args(["-c", &script]).current_dir("/");
        if let Some(user) = user {
            connect.uid(user).gid(user);
        } else if index > 0 {
            continue;
        }
        let mut connected = connect.spawn().unwrap();
        let (stream, peer) = channel.listener.accept().unwrap();
        assert_eq!(guard.admits(peer), user.is_none());
        drop(stream);
        assert!(connected.wait().unwrap().success());
        assert!(!guard.admits(peer), "what is closed is nobody's");
    }
    let sealed = Room::with(|spec| spec.channel_port = Some(0)).await;
    let channel = sealed.sandbox.take_channel().unwrap();
    assert!(channel.guard.is_none(), "nobody else can reach it");
}

#[tokio::test]
async fn what_leaves_its_session_is_ended_with_its_command_and_with_the_sandbox() {
    let room = Room::of(&Host, |_| {}).await;
    let output = room
        .sh("(setsid sh -c 'echo $$ > pid; exec sleep 1000' &); until test -s pid; do :; done; cat pid")
        .await;
    let pid = output.stdout.text().trim().to_owned();
    let is_there = format!("kill -0 {pid}");
    assert!(
        output.exit.success() && !succeeds_outside(&is_there),
        "{pid}"
    );
    let mut command = room.command([
        "/bin/sh",
        "-c",
        "(setsid sh -c 'echo $$; exec sleep 1000' &)",
    ]);
    command.keep_background = true;
    let pid = room.run(command).await.stdout.text().trim().to_owned();
    let is_there = format!("kill -0 {pid}");
    assert!(succeeds_outside(&is_there), "it was asked to stay");
    room.sandbox.destroy().await.unwrap();
    assert!(!succeeds_outside(&is_there));
}

#[tokio::test]
async fn what_it_cannot_do_it_refuses() {
    let directory = directories();
    let mut with_mount = spec(directory.path());
    with_mount.mounts.push(Mount::same_path("/usr/share"));
    assert!(matches!(
        Host.create(with_mount).await,
        Err(Error::Spec { .. })
    ));
    let mut with_layers = spec(directory.path());
    with_layers.workspace = Workspace::Overlay {
        lowers: vec![],
        upper: "/".into(),
        work: "/".into(),
        volatile: false,
    };
    assert!(matches!(
        Host.create(with_layers).await,
        Err(Error::Spec { .. })
    ));
}
