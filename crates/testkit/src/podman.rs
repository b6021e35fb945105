//! A Podman of a test's own: its containers, images and locks are in a [`Home`], and the machine's own
//! are neither seen nor touched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Home, Ran, Started, leaks};

/// How long a question to it may take, and how long its processes may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings for a machine of any kind: no systemd is asked, no lock is shared. crun refuses control
/// groups of version 1.
const SETTINGS: &str = "[engine]\nlock_type = \"file\"\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n";

/// Programs in its home have this Podman. Dropped, it waits for what it started.
#[derive(Debug)]
pub struct Podman {
    home: Home,
}

impl Podman {
    /// Nothing is started: a program in this home does that. Files of images lie in directories as
    /// they are, which works on any machine.
    pub fn new(home: Home) -> Podman {
        Podman::with(home, "vfs")
    }

    /// The same over overlays, as people have it.
    pub fn over_overlays(home: Home) -> Podman {
        Podman::with(home, "overlay")
    }

    fn with(home: Home, driver: &str) -> Podman {
        let root = home.root().to_owned();
        let place = |name: &str| root.join(name).display().to_string();
        let settings = format!("{SETTINGS}tmp_dir = \"{}\"\n", place("podman/tmp"));
        let storage = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n\
             [storage.options.overlay]\nskip_mount_home = \"true\"\n",
            place("podman/root"),
            place("podman/run"),
        );
        let settings = home.file("podman/containers.conf", settings);
        let storage = home.file("podman/storage.conf", storage);
        let home = home
            .env("CONTAINERS_CONF", settings)
            .env("CONTAINERS_STORAGE_CONF", storage);
        Podman { home }
    }

    /// The home of programs that use it.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its containers, also those that have ended: one line for each.
    pub fn containers(&self) -> Vec<String> {
        let args = [
            "ps",
            "--all",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Status}}",
        ];
        let ran = self.home.run("podman", args, &self.home.home(), PATIENCE);
        let ran = ran.expect_code(0);
        ran.stdout.lines().map(str::to_owned).collect()
    }

    /// The program that runs this test, in its home, where another user can reach it too.
    pub fn this_program(&self) -> Command {
        self.home.this_program()
    }

    /// Runs tests of the program that runs this one; all of them must pass.
    pub fn run_tests<const N: usize>(&self, args: [&str; N], deadline: Duration) {
        self.home.run_tests(args, deadline);
    }

    /// Runs the program that runs this to its end, without arguments.
    pub fn run_this_program(&self, deadline: Duration) -> Ran {
        Started::spawn(self.home.this_program()).finish(deadline)
    }

    /// Runs the program that runs this test in a container with these options: it has this machine's
    /// programs, and a directory for temporary files.
    pub fn run_inside<const N: usize>(
        &self,
        options: &[&str],
        args: [&str; N],
        deadline: Duration,
    ) -> Ran {
        let root = self.root().join("inside");
        for directory in ["usr", "etc", "proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir_all(root.join(directory)).expect("a directory of its root");
        }
        let open = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(root.join("tmp"), open).expect("its mode");
        for link in ["bin", "lib", "lib64", "sbin"] {
            drop(symlink(Path::new("usr").join(link), root.join(link)));
        }
        let program = self.home.this_program();
        let program = Path::new(program.get_program()).display();
        let mut command = self.home.command("podman");
        command
            .args([
                "run",
                "--rm",
                "--volume=/usr:/usr:ro",
                "--volume=/etc:/etc:ro",
            ])
            .arg(format!("--volume={program}:/run/this-program:ro"))
            .arg(format!("--volume={}:/tmp", root.join("tmp").display()))
            // Its own defaults can be more than this process may have.
            .args(["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"])
            .args(options)
            .arg("--rootfs")
            .arg(&root)
            .arg("/run/this-program")
            .args(args);
        Started::spawn(command).finish(deadline)
    }

    /// Waits until no process of it is left but one that waits for nothing: the service ends some
    /// seconds after its last user.
    pub fn wait_until_quiet(&self) {
        loop {
            let pauses = pauses();
            let all = leaks::processes_of(self.home.root());
            let Some(one) = all.iter().find(|it| !pauses.contains(&it.pid)) else {
                return;
            };
            assert!(one.ends_within(PATIENCE), "it goes on: {one:?}");
        }
    }

    /// Its pods and volumes.
    fn others(&self) -> String {
        let lists = [["pod", "ps", "--quiet"], ["volume", "ls", "--quiet"]];
        lists
            .map(|args| {
                let ran = self.home.run("podman", args, &self.home.home(), PATIENCE);
                ran.expect_code(0).stdout
            })
            .concat()
    }

    /// What its containers would have left in the file system, by their ids: as many have been made
    /// as its log of events tells.
    fn traces(&self) -> Vec<PathBuf> {
        let log = self.root().join("podman/tmp/events/events.log");
        let log = fs::read_to_string(log).unwrap_or_default();
        let ids: BTreeSet<String> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|event| event["Type"] == "container")
            .filter_map(|event| Some(event["ID"].as_str()?.to_owned()))
            .collect();
        let mut found = Vec::new();
        let places = [self.root().to_owned(), "/sys/fs/cgroup".into()];
        // What the runtime of root keeps of each; that of others does so in the home.
        let kept = ["/run/runc", "/run/crun"].map(Path::new).into_iter();
        let kept = kept.flat_map(|place| ids.iter().map(|id| place.join(id)));
        found.extend(kept.filter(|path| path.exists()));
        let mut queue = Vec::from(places);
        while let Some(dir) = queue.pop() {
            // What has gone meanwhile is not left.
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if ids.iter().any(|id| name.contains(id.as_str())) {
                    found.push(entry.path());
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    queue.push(entry.path());
                }
            }
        }
        found
    }

    /// Asserts that nothing of it is left: no container, pod or volume, no directory or control group
    /// of one, no process, no mount.
    pub fn assert_nothing_left(&self) {
        self.wait_until_quiet();
        assert_eq!(self.containers(), Vec::<String>::new());
        assert_eq!(self.others(), "");
        assert_eq!(self.traces(), Vec::<PathBuf>::new());
        self.end_pause();
        leaks::assert_none(self.home.root());
    }

    /// Without root, Podman leaves a process that holds its user's namespace, for whoever comes next.
    fn end_pause(&self) {
        let pauses = pauses();
        for process in leaks::processes_of(self.home.root()) {
            if !pauses.contains(&process.pid) {
                continue;
            }
            let pid = Pid::from_raw(process.pid).expect("a process");
            if let Err(error) = kill_process(pid, Signal::KILL) {
                assert_eq!(error, rustix::io::Errno::SRCH, "it ends by itself");
            }
        }
    }

    /// The directory that holds all of it.
    pub fn root(&self) -> &Path {
        self.home.root()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wait_until_quiet();
        }
        self.end_pause();
    }
}

fn pauses() -> Vec<i32> {
    let all = leaks::processes_holding("_PODMAN_PAUSE=1");
    all.into_iter().map(|process| process.pid).collect()
}
