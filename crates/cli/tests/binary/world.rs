//! A user with a repository, a home, a model on loopback, and the program.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Bound::{Included, Unbounded};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use testkit::models::{Dialect, Job, Script, Scripted, Step};
use testkit::{Home, Podman, Ran, Repo, Snapshot, Started, leaks};

/// How long a command may take before it, and the test, is stopped. Machines that build at the
/// same time are slow.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// The ordinary user, where root runs the tests.
pub const NOBODY: u32 = 65534;
/// What the requests ask; the scripts answer conversations that hold it.
pub const PROMPT: &str = "Mend the answer";

/// A user with a repository, a home and a model.
pub struct World {
    /// The user's repository.
    pub repo: Repo,
    /// The user's home, the data directory of Skep below it.
    pub home: Home,
    /// The model.
    pub model: Scripted,
    /// The key that the model wants: no other test has the same.
    pub key: String,
    /// The engine of containers, where this user has one.
    pub podman: Option<Podman>,
    skep: PathBuf,
    /// How the names of the control groups begin that its processes make.
    groups: Mutex<BTreeSet<String>>,
}

impl World {
    /// The user who runs the tests, with a model that speaks this dialect.
    pub fn new(dialect: Dialect, repo: Repo, script: Script) -> World {
        let skep = PathBuf::from(env!("CARGO_BIN_EXE_skep"));
        World::build(dialect, repo, script, with_toolchains(Home::new()), skep)
    }

    /// An ordinary user: another one where root runs the tests.
    pub fn of_ordinary_user(dialect: Dialect, repo: Repo, script: Script) -> World {
        let (home, skep) = ordinary_home();
        repo.give_to(NOBODY);
        World::build(dialect, repo, script, with_toolchains(home), skep)
    }

    /// The user who runs the tests, with a Podman of the test's own.
    pub fn with_podman(repo: Repo, script: Script) -> World {
        let skep = PathBuf::from(env!("CARGO_BIN_EXE_skep"));
        let podman = Podman::new(Home::new());
        World::contained(podman, repo, script, skep)
    }

    /// The same for an ordinary user: another one where root runs the tests.
    pub fn with_podman_of_ordinary_user(repo: Repo, script: Script) -> World {
        let (home, skep) = ordinary_home();
        repo.give_to(NOBODY);
        World::contained(Podman::new(home), repo, script, skep)
    }

    fn contained(podman: Podman, repo: Repo, script: Script, skep: PathBuf) -> World {
        let home = podman.home().clone();
        World {
            podman: Some(podman),
            ..World::build(Dialect::Chat, repo, script, home, skep)
        }
    }

    fn build(dialect: Dialect, repo: Repo, script: Script, home: Home, skep: PathBuf) -> World {
        let key = unique_key();
        let model = Scripted::with_key(script, &key);
        let home = with_model(home, dialect, &model, &key);
        World {
            repo,
            home,
            model,
            key,
            podman: None,
            skep,
            groups: Mutex::default(),
        }
    }

    /// The repository with one wrong answer and a check that sees it, and a model that mends it
    /// at once.
    pub fn simple() -> World {
        World::new(Dialect::Chat, wrong_answer(), mending())
    }

    /// The same on a machine whose kernel makes no user namespaces.
    pub fn without_namespaces(self) -> World {
        self.wrapped("exec unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"' SKEP \"$@\"")
    }

    /// The same where the data directory is on a file system that no overlay can be on: one that is
    /// an overlay itself.
    pub fn without_overlays(self) -> World {
        let data = self.data();
        for part in ["lower", "upper", "work"] {
            fs::create_dir_all(self.home.root().join(part)).unwrap();
        }
        fs::create_dir_all(&data).unwrap();
        let (root, data) = (
            self.home.root().display().to_string(),
            data.display().to_string(),
        );
        self.wrapped(&format!(
            "exec unshare -Urm sh -c 'mount -t overlay overlay -o \
             userxattr,lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work {data} && \
             exec \"$0\" \"$@\"' SKEP \"$@\""
        ))
    }

    /// Runs `skep` by a script in which `SKEP` stands for it.
    pub fn wrapped(mut self, script: &str) -> World {
        let skep = self.skep.display().to_string();
        let path = self.home.root().join("wrapped-skep");
        fs::write(
            &path,
            format!("#!/bin/sh\n{}\n", script.replace("SKEP", &skep)),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.skep = path;
        self
    }

    /// Sets a variable of the user's environment.
    pub fn env(mut self, name: &str, value: impl Into<std::ffi::OsString>) -> World {
        self.home = self.home.env(name, value);
        self
    }

    /// Runs `skep` in the repository to its end.
    pub fn skep(&self, args: &[&str]) -> Ran {
        self.skep_in(self.repo.path(), args)
    }

    /// Runs `skep` in a directory to its end.
    pub fn skep_in(&self, dir: &Path, args: &[&str]) -> Ran {
        self.known(self.home.start(&self.skep, args, dir))
            .finish(DEADLINE)
    }

    /// Starts `skep` in the repository.
    pub fn start(&self, args: &[&str]) -> Started {
        self.known(self.home.start(&self.skep, args, self.repo.path()))
    }

    /// Starts `skep` in the repository with one more variable in its environment.
    pub fn start_with(&self, args: &[&str], name: &str, value: &str) -> Started {
        let mut command = self.home.command(&self.skep);
        command.args(args).current_dir(self.repo.path());
        command.env(name, value);
        self.known(Started::spawn(command))
    }

    /// Remembers a process, so that what it leaves behind is found when it has gone.
    fn known(&self, started: Started) -> Started {
        // It is there, as a dead one at the least, until it is waited for.
        assert!(self.know(started.pid()), "a child is there");
        started
    }

    /// The same for a process that another one started, if it is still there.
    pub fn know(&self, pid: i32) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return false;
        };
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let start = rest.split(' ').nth(19).unwrap();
        let group = format!("skep-{pid}-{start}-");
        self.groups.lock().unwrap().insert(group);
        true
    }

    /// Has the request done that the script knows; the events of it.
    pub fn run(&self) -> Told {
        let ran = self.skep(&["run", "--json", "--plan", "none", PROMPT]);
        Told::of(ran.expect_code(0))
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.home.data().join("skep")
    }

    /// A file of the integration branch, as text.
    pub fn integrated(&self, path: &str) -> String {
        let bytes = self.repo.read_at("skep/integration", path);
        let bytes = bytes.unwrap_or_else(|| panic!("{path} is not on skep/integration"));
        String::from_utf8(bytes).unwrap()
    }

    /// Asserts that the key is in no file below the home or the repository, in no object of git,
    /// in nothing that was printed, and in nothing that the model was told.
    #[track_caller]
    pub fn assert_no_secret(&self, printed: &[&Ran]) {
        self.assert_nowhere(&self.key, printed);
    }

    /// The same for any other secret.
    #[track_caller]
    pub fn assert_nowhere(&self, secret: &str, printed: &[&Ran]) {
        // Programs that a test has put into the home are as they were built.
        let mut places: Vec<PathBuf> = entries(self.home.root())
            .into_iter()
            .filter(|it| it != "skep" && it != "claude")
            .map(|it| self.home.root().join(it))
            .collect();
        places.push(self.repo.path().to_owned());
        for dir in places {
            assert_eq!(leaks::paths_holding(&dir, secret), Vec::<PathBuf>::new());
            for git_dir in git_dirs(&dir) {
                let objects = leaks::git_objects_holding(&git_dir, secret);
                assert_eq!(objects, Vec::<String>::new(), "in {}", git_dir.display());
            }
        }
        for ran in printed {
            assert!(!ran.stdout.contains(secret), "printed: {}", ran.stdout);
            assert!(!ran.stderr.contains(secret), "printed: {}", ran.stderr);
        }
        for request in self.model.requests() {
            let body = String::from_utf8_lossy(&request.body);
            assert!(!body.contains(secret), "the model was told: {body}");
        }
    }

    /// Asserts that no process, mount, control group, container or workspace of this user is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        if let Some(podman) = &self.podman {
            podman.assert_nothing_left();
        }
        leaks::assert_none(&self.data());
        for place in ["workspaces", "layers", "run"] {
            let left = entries(&self.data().join(place));
            let is_kept = |it: &&String| !it.starts_with('.') && *it != "open.lock";
            let left: Vec<_> = left.iter().filter(is_kept).collect();
            assert!(left.is_empty(), "left in {place}: {left:?}");
        }
        assert_eq!(entries(&self.home.root().join("tmp")), Vec::<String>::new());
        let groups = self.groups.lock().unwrap();
        assert_no_cgroup(|name| {
            let mut after = groups.range::<str, _>((Unbounded, Included(name)));
            after.next_back().is_some_and(|it| name.starts_with(it))
        });
    }
}

/// The names in a directory; none when there is no such directory.
pub fn entries(dir: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = list
        .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Asserts that a process has left no control group behind.
#[track_caller]
pub fn assert_no_cgroup_of(pid: i32) {
    let prefix = format!("skep-{pid}-");
    assert_no_cgroup(|name| name.starts_with(&prefix));
}

#[track_caller]
fn assert_no_cgroup(is_of: impl Fn(&str) -> bool) {
    let mut queue = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = queue.pop() {
        let Ok(list) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in list.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!is_of(&name), "left: {:?}", entry.path());
            if entry.file_type().is_ok_and(|it| it.is_dir()) {
                queue.push(entry.path());
            }
        }
    }
}

/// The git directories below a directory.
fn git_dirs(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![top.to_owned()];
    while let Some(dir) = queue.pop() {
        if dir.join("objects").is_dir() && dir.join("HEAD").exists() {
            found.push(dir);
            continue;
        }
        let Ok(list) = fs::read_dir(&dir) else {
            continue;
        };
        queue.extend(
            list.filter_map(Result::ok)
                .filter(|it| it.file_type().is_ok_and(|it| it.is_dir()))
                .map(|it| it.path()),
        );
    }
    found
}

/// A home of an ordinary user, and the program where that user can run it: a build directory
/// below root's home is closed to others.
pub fn ordinary_home() -> (Home, PathBuf) {
    let home = Home::new().as_user(NOBODY);
    let skep = home.root().join("skep");
    let built = Path::new(env!("CARGO_BIN_EXE_skep"));
    if fs::hard_link(built, &skep).is_err() {
        fs::copy(built, &skep).unwrap();
    }
    fs::set_permissions(&skep, fs::Permissions::from_mode(0o755)).unwrap();
    (home, skep)
}

/// Names the toolchains that are below the home of who runs the tests: this home is another.
fn with_toolchains(home: Home) -> Home {
    let real = PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    let mut home = home.with_rust();
    for (name, place) in [("PYENV_ROOT", ".pyenv"), ("NVM_DIR", ".nvm")] {
        let path = std::env::var_os(name).map_or_else(|| real.join(place), PathBuf::from);
        if path.is_dir() && home.user().is_none() {
            home = home.env(name, path);
        }
    }
    home
}

/// Lets the programs of a home call this model.
pub fn with_model(home: Home, dialect: Dialect, model: &Scripted, key: &str) -> Home {
    match dialect {
        Dialect::Chat => home
            .env("OPENAI_API_KEY", key)
            .env("OPENAI_BASE_URL", model.openai_base_url()),
        Dialect::Messages => home
            .env("ANTHROPIC_API_KEY", key)
            .env("ANTHROPIC_BASE_URL", model.anthropic_base_url()),
    }
}

/// A key that looks like one and that nothing else on the machine holds.
fn unique_key() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!(
        "sk-canary-{:08x}{:016x}{:04x}",
        std::process::id(),
        now.unwrap().as_nanos() as u64,
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A repository whose only check wants another answer than the one that is there.
pub fn wrong_answer() -> Repo {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").file("other.txt", "kept\n");
    repo.file(
        "skep.toml",
        "[[check]]\nname = \"answer\"\ncommand = \"grep -qx 42 answer.txt\"\n",
    );
    repo.commit("A wrong answer");
    repo
}

/// A model that mends it at once.
pub fn mending() -> Script {
    Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell("echo 42 > answer.txt"))
            .step(Step::say("The answer is 42.")),
    )
}

/// What `skep run --json` told.
pub struct Told {
    /// The events, in their order.
    pub events: Vec<Value>,
    /// How it ended.
    pub ran: Ran,
}

impl Told {
    /// Reads the events; every line must be one.
    pub fn of(ran: Ran) -> Told {
        let events = ran.json_lines();
        assert!(!events.is_empty(), "no events\n{}", ran.stderr);
        Told { events, ran }
    }

    /// The payloads of a type of event.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events
            .iter()
            .filter(move |it| it["type"] == kind)
            .map(|it| &it["payload"])
    }

    fn id(&self, kind: &str, field: &str) -> String {
        let payload = self.all(kind).next();
        let payload = payload.unwrap_or_else(|| panic!("no {kind} in {}", self.ran.stdout));
        payload[field].as_str().unwrap().to_owned()
    }

    /// The request.
    pub fn request(&self) -> String {
        self.id("request_submitted", "request")
    }

    /// The first attempt.
    pub fn attempt(&self) -> String {
        self.id("attempt_started", "attempt")
    }

    /// The first job.
    pub fn job(&self) -> String {
        self.id("attempt_started", "job")
    }

    /// The first change.
    pub fn change(&self) -> String {
        self.id("change_made", "change")
    }

    /// What the check of this name came to, in order, each time it ran.
    pub fn verdicts(&self, check: &str) -> Vec<String> {
        self.all("checked")
            .map(|it| &it["evidence"])
            .filter(|it| it["check"] == check)
            .map(|it| it["verdict"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Runs a program in a directory as it is outside; whether it succeeded, and what it said.
pub fn outside(dir: &Path, argv: &[&str]) -> (bool, String) {
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{} is needed for this test: {error}", argv[0]));
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// The integration branch checked out in a directory of its own, to run its tests outside.
pub fn checkout(repo: &Repo, into: &Path) {
    let path = into.to_str().unwrap();
    let archive = into.with_extension("tar");
    let archive_path = archive.to_str().unwrap();
    repo.git(&["archive", "--output", archive_path, "skep/integration"]);
    fs::create_dir_all(into).unwrap();
    let (unpacked, said) = outside(into, &["tar", "-xf", archive_path, "-C", path]);
    assert!(unpacked, "{said}");
    fs::remove_file(archive).unwrap();
}

/// The repository as it is, to compare with later.
pub fn before(repo: &Repo) -> Snapshot {
    // git writes the index again when it finds times that it does not know: once is enough.
    repo.git(&["status", "--porcelain"]);
    repo.snapshot()
}
