//! Sandboxes in containers that are stopped, by whom or by what however, and started again.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Docker, Home, Image, Podman, Ran, Repo, leaks};

use crate::world::{DEADLINE, NOBODY, ordinary_home};

/// The image of what is beside a sandbox.
const BESIDE: &str = "localhost/skep-beside:latest";
const PROGRAMS: [&str; 2] = ["perl", "sh"];
/// Serves one word for each connection.
const SERVE: &str = "socket(S,2,1,0)||die; setsockopt(S,1,2,1); bind(S,pack(q(S n C4 x8),2,7435,127,0,0,1))||die; \
    listen(S,9); while(accept(C,S)){print C qq(served\\n); close C}";
const ASK: &str = "exec 3<>/dev/tcp/127.0.0.1/7435; cat <&3";

/// A user with an engine, and a repository.
struct Desk {
    home: Home,
    repo: Repo,
    skep: std::path::PathBuf,
}

impl Desk {
    /// Whose sandboxes are containers with a server beside each.
    fn of(home: &Home, skep: &Path) -> Desk {
        let config = format!(
            "[sandbox]\nkind = 'container'\n[[sandbox.sidecar]]\nname = 'db'\nimage = '{BESIDE}'\n\
            command = ['perl', '-e', '{SERVE}']\nready = {{ port = 7435 }}\n"
        );
        home.file("config/skep/config.toml", config);
        let repo = Repo::new();
        repo.file("kept.txt", "kept\n");
        repo.commit("Begin");
        if home.user().is_some() {
            repo.give_to(NOBODY);
        }
        Desk {
            home: home.clone(),
            repo,
            skep: skep.to_owned(),
        }
    }

    fn skep(&self, args: &[&str]) -> Ran {
        let args = [&["sandbox"], args].concat();
        self.home.run(&self.skep, args, self.repo.path(), DEADLINE)
    }

    fn sh(&self, script: &str) -> String {
        let ran = self.skep(&["exec", "try", "--", "bash", "-c", script]);
        ran.expect_code(0).stdout
    }

    fn listed(&self) -> Value {
        let told = self.skep(&["list", "--json"]).expect_code(0);
        told.json_lines().remove(0)["sandboxes"][0].clone()
    }

    /// It is stopped, and says why.
    fn is_stopped(&self, why: &str) {
        let now = self.listed();
        assert_eq!(
            (&now["status"], &now["why"]),
            (&"stopped".into(), &why.into())
        );
    }

    /// It is started with all that was written in it and beside it, and something more is written.
    fn starts_with(&self, round: &str, before: &str) {
        self.skep(&["start", "try"]).expect_code(0);
        let seen = self.sh("cat one ~/note /tmp/note; git status --short");
        assert_eq!(seen, format!("{before}{before}{before}?? one\n"), "{round}");
        self.works(round);
    }

    /// What is beside it answers, and what is written is kept.
    fn works(&self, round: &str) {
        assert_eq!(self.sh(ASK), "served\n", "{round}");
        let shown = self.skep(&["inspect", "try", "--json"]).expect_code(0);
        let shown = shown.json_lines().remove(0);
        assert_eq!(shown["state"]["sidecars"][0]["health"]["ready"], true);
        assert!(shown["state"]["stats"]["disk_bytes"].as_u64() > Some(0));
        self.sh(&format!("echo {round} | tee one ~/note > /tmp/note"));
    }

    /// Made and written to, with a snapshot before the last that was written.
    fn create(&self) {
        self.skep(&["create", "--name", "try", "--for", "20m"])
            .expect_code(0);
        assert_eq!(self.listed()["kind"], "container");
        self.works("begun");
        self.skep(&["snapshot", "try"]).expect_code(0);
        self.works("made");
    }

    /// Its first process is killed: it says so, and what to do, and that helps.
    fn says_how_it_ended(&self, before: &str) {
        let inspect = || {
            let shown = self.skep(&["inspect", "try", "--json"]).expect_code(0);
            shown.json_lines().remove(0)["state"].clone()
        };
        let first = i32::try_from(inspect()["first_process"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
        let end = Instant::now() + DEADLINE;
        let mut state = inspect();
        while state["alive"] == true {
            assert!(Instant::now() < end, "{state}");
            state = inspect();
        }
        let ended = &state["ended"];
        assert_eq!(ended["exit"]["signal"], 9, "{ended}");
        assert_eq!(ended["trouble"], "ended");
        assert_eq!(state["processes"], Value::Null, "{state}");
        assert!(
            ended["remedy"]
                .as_str()
                .unwrap()
                .contains("`skep sandbox start`")
        );
        self.skep(&["stop", "try"]).expect_code(0);
        self.is_stopped("asked");
        self.starts_with("first", before);
    }

    /// The snapshot is there, too, and nothing is when it is destroyed.
    fn ends(&self) {
        self.skep(&["undo", "try", "s1"]).expect_code(0);
        assert_eq!(
            self.sh("cat one ~/note"),
            "begun\n".to_owned() + &self.last()
        );
        self.skep(&["destroy", "try"]).expect_code(0);
        let gc = self
            .home
            .run(&self.skep, ["gc"], self.repo.path(), DEADLINE);
        gc.expect_code(0);
        let data = self.home.data().join("skep");
        leaks::assert_none(&data);
        for place in ["workspaces", "layers"] {
            let left = fs::read_dir(data.join(place)).into_iter().flatten();
            let left: Vec<_> = left.flatten().map(|it| it.file_name()).collect();
            let left = left
                .iter()
                .filter(|it| !it.to_string_lossy().starts_with('.'));
            assert_eq!(left.count(), 0, "in {place}");
        }
    }

    fn last(&self) -> String {
        self.sh("cat /tmp/note")
    }
}

/// Ends processes of the engine, and whoever holds the sandbox if that is wanted, and waits for that.
fn kill(home: &Home, whom: &[&str]) {
    let mut all = leaks::processes_of(home.root());
    all.retain(|process| whom.iter().any(|it| process.command.contains(it)));
    assert!(all.len() >= whom.len(), "{whom:?}: {all:?}");
    for process in &all {
        // One may have taken another along.
        kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).ok();
    }
    for process in &all {
        assert!(process.ends_within(DEADLINE), "{process:?}");
    }
}

const HOLDER: &str = " sandbox hold ";
const ENGINE: &str = " system service ";
const WATCHER: &str = "conmon";

fn lives_on(podman: &Podman, skep: &Path) {
    Image::of(PROGRAMS).import(podman, BESIDE);
    let desk = Desk::of(podman.home(), skep);
    desk.create();
    desk.skep(&["stop", "try"]).expect_code(0);
    desk.is_stopped("asked");
    podman.assert_nothing_left();
    desk.starts_with("asked", "made\n");

    kill(podman.home(), &[HOLDER]);
    desk.is_stopped("killed");
    podman.assert_nothing_left();
    desk.starts_with("killed", "asked\n");

    // The sandbox goes on without its engine, and another one takes it away.
    kill(podman.home(), &[ENGINE]);
    desk.works("without");
    desk.skep(&["stop", "try"]).expect_code(0);
    desk.is_stopped("asked");
    podman.assert_nothing_left();
    desk.starts_with("engine", "without\n");

    // All of them at once: the next start clears away what nobody could.
    kill(podman.home(), &[WATCHER, ENGINE, HOLDER]);
    desk.is_stopped("killed");
    desk.starts_with("all", "engine\n");
    assert_eq!(podman.containers().len(), 2, "those of before are gone");
    desk.says_how_it_ended("all\n");
    desk.ends();
    podman.assert_nothing_left();
}

#[test]
fn a_container_is_stopped_or_killed_and_started_with_its_files_its_home_and_its_sidecars() {
    let podman = Podman::new(Home::new());
    lives_on(&podman, Path::new(env!("CARGO_BIN_EXE_skep")));
}

#[test]
fn a_container_of_an_ordinary_user_is_stopped_or_killed_and_started_too() {
    let (home, skep) = ordinary_home();
    lives_on(&Podman::new(home), &skep);
}

#[test]
fn a_container_of_docker_is_stopped_or_killed_and_started_too() {
    let docker = Docker::start(Home::new());
    Image::of(PROGRAMS).import_to_docker(&docker, BESIDE);
    let desk = Desk::of(docker.home(), Path::new(env!("CARGO_BIN_EXE_skep")));
    desk.create();
    desk.skep(&["stop", "try"]).expect_code(0);
    desk.is_stopped("asked");
    assert_eq!(containers(&docker), "");
    desk.starts_with("asked", "made\n");
    kill(docker.home(), &[HOLDER]);
    desk.is_stopped("killed");
    desk.starts_with("killed", "asked\n");
    assert_eq!(containers(&docker).lines().count(), 2);
    desk.says_how_it_ended("killed\n");
    desk.ends();
    docker.assert_nothing_left();
}

/// The containers of a Docker, one line for each.
fn containers(docker: &Docker) -> String {
    let home = docker.home();
    let ran = home.run("docker", ["ps", "--all", "--quiet"], &home.home(), DEADLINE);
    ran.expect_code(0).stdout
}
