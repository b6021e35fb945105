//! A Docker of a test's own: its containers and images are in a [`Home`], and the machine's own are
//! neither seen nor touched. Only root can have one.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Home, Started, leaks};

/// How long it may take to start, to answer and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that serves. Programs in its home find it by `DOCKER_HOST`. It ends when this is dropped.
#[derive(Debug)]
pub struct Docker {
    home: Home,
    daemon: Started,
}

impl Docker {
    /// Starts the daemon, and waits until it serves.
    pub fn start(home: Home) -> Docker {
        let place = home.root().join("docker");
        let address = format!("unix://{}", place.join("socket").display());
        // Its log is where output is read.
        let mut command = home.command("/bin/sh");
        command.args(["-c", "PATH=$PATH:/usr/sbin:/sbin exec dockerd \"$@\" 2>&1"]);
        command.args(["dockerd", "--host", &address]);
        for (option, name) in [
            ("--data-root", "data"),
            ("--exec-root", "run"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(place.join(name));
        }
        command.args([
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--storage-driver=vfs",
            "--exec-opt=native.cgroupdriver=cgroupfs",
        ]);
        let mut daemon = Started::spawn(command);
        daemon.line(PATIENCE, |line| line.contains("API listen on"));
        let home = home.env("DOCKER_HOST", address);
        Docker { home, daemon }
    }

    /// The home of programs that use it.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Runs tests of the program that runs this one; all of them must pass.
    pub fn run_tests<const N: usize>(&self, args: [&str; N], deadline: Duration) {
        self.home.run_tests(args, deadline);
    }

    /// Ends the daemon, and asserts that nothing of it is left: no container, process or mount.
    pub fn assert_nothing_left(mut self) {
        // It removes what has ended a moment after it told so.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let args = ["ps", "--all", "--no-trunc", "--format={{.ID}} {{.Status}}"];
            let ran = self.home.run("docker", args, &self.home.home(), PATIENCE);
            let left = ran.expect_code(0).stdout;
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "still there: {left}");
        }
        self.end();
        leaks::assert_none(self.home.root());
    }

    fn end(&mut self) {
        if !self.daemon.ends_within(Duration::ZERO) {
            self.daemon.signal(Signal::TERM);
        }
        let ended = self.daemon.ends_within(PATIENCE);
        assert!(ended || std::thread::panicking(), "dockerd goes on");
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.end();
    }
}
