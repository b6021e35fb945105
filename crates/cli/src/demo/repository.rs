//! The small repositories that the demo works on: real code, real bugs, tests that fail.

use super::script::Script;
use domain::plan::Plan;
use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

/// The language of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Python, with `unittest`.
    Python,
    /// Node, with its own test runner.
    Node,
    /// POSIX shell.
    Shell,
}

/// A file of the repository: its path, and what is in it.
type File = (&'static str, &'static str);

macro_rules! files {
    ($variant:literal, $($path:literal),* $(,)?) => {
        &[
            (".gitignore", include_str!(concat!("../../demo/", $variant, "/repository/gitignore"))),
            $(($path, include_str!(concat!("../../demo/", $variant, "/repository/", $path))),)*
        ]
    };
}

const PYTHON: &[File] = files!(
    "python",
    "README.md",
    "skep.toml",
    "worklog/__init__.py",
    "worklog/__main__.py",
    "worklog/durations.py",
    "worklog/money.py",
    "worklog/report.py",
    "worklog/summary.py",
    "worklog/table.py",
    "tests/__init__.py",
    "tests/test_durations.py",
    "tests/test_money.py",
    "tests/test_report.py",
    "tests/test_summary.py",
    "tests/test_table.py",
);

const NODE: &[File] = files!(
    "node",
    "README.md",
    "package.json",
    "skep.toml",
    "src/durations.js",
    "src/main.js",
    "src/money.js",
    "src/report.js",
    "src/summary.js",
    "src/table.js",
    "test/durations.test.js",
    "test/money.test.js",
    "test/report.test.js",
    "test/summary.test.js",
    "test/table.test.js",
);

const SHELL: &[File] = files!(
    "shell",
    "README.md",
    "skep.toml",
    "worklog",
    "lib/durations.sh",
    "lib/money.sh",
    "lib/report.sh",
    "lib/summary.sh",
    "lib/table.sh",
    "tests/all.sh",
    "tests/check.sh",
    "tests/durations.sh",
    "tests/money.sh",
    "tests/report.sh",
    "tests/summary.sh",
    "tests/table.sh",
);

impl Variant {
    /// Every variant, the first one that works here first.
    pub(crate) const ALL: &'static [Self] = &[Self::Python, Self::Node, Self::Shell];

    /// Its name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Node => "Node",
            Self::Shell => "shell",
        }
    }

    /// The files of the repository.
    pub(crate) const fn files(self) -> &'static [File] {
        match self {
            Self::Python => PYTHON,
            Self::Node => NODE,
            Self::Shell => SHELL,
        }
    }

    /// The command that runs every test.
    pub(crate) const fn tests(self) -> &'static [&'static str] {
        match self {
            // The tests of the first commit run outside of a sandbox: they leave nothing behind.
            Self::Python => &["python3", "-B", "-m", "unittest"],
            Self::Node => &["node", "--test"],
            Self::Shell => &["sh", "tests/all.sh"],
        }
    }

    /// A command that says whether this variant works here: the program may be there and be too
    /// old, or only a shim.
    const fn trial(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["python3", "-c", "import re, unittest"],
            Self::Node => &["node", "-e", "require('node:test')"],
            Self::Shell => &["sh", "-c", "echo | awk '{ print }'"],
        }
    }

    /// The first variant whose tools are on this `PATH` and start.
    pub(crate) async fn found(path: &OsStr) -> Self {
        for &variant in Self::ALL {
            if run(variant.trial(), Path::new("/"), path)
                .await
                .is_ok_and(|ended| ended.status.success())
            {
                return variant;
            }
        }
        Self::Shell
    }

    /// The plan of four jobs.
    ///
    /// # Errors
    /// Never for the plans that are shipped; a test reads them all.
    pub(crate) fn plan(self) -> Result<Plan, domain::plan::Error> {
        Plan::from_toml(match self {
            Self::Python => include_str!("../../demo/python/plan.toml"),
            Self::Node => include_str!("../../demo/node/plan.toml"),
            Self::Shell => include_str!("../../demo/shell/plan.toml"),
        })
    }

    /// What the scripted model answers.
    ///
    /// # Errors
    /// Never for the scripts that are shipped; a test reads them all.
    pub(crate) fn script(self, probe: &str) -> Result<Script, super::script::Error> {
        let text = match self {
            Self::Python => include_str!("../../demo/python/script.toml"),
            Self::Node => include_str!("../../demo/node/script.toml"),
            Self::Shell => include_str!("../../demo/shell/script.toml"),
        };
        Script::read(text, self.plan()?, probe)
    }

    /// Writes the files into a directory.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn write(self, into: &Path) -> io::Result<()> {
        for (path, text) in self.files() {
            let path: PathBuf = into.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        Ok(())
    }
}

/// How long a command of the demo may take outside of a sandbox.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs a command of the demo's own outside of a sandbox, with nothing of the environment but
/// `PATH`.
///
/// # Errors
/// When it cannot be started, or takes too long.
pub(crate) async fn run(
    command: &[&str],
    directory: &Path,
    path: &OsStr,
) -> io::Result<std::process::Output> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("there is no command"))?;
    let running = tokio::process::Command::new(found_program(program, path))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(DEADLINE, running).await.map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("`{program}` takes too long"),
        )
    })?
}

/// The program on this `PATH`, rather than on the one of the process.
fn found_program(program: &str, path: &OsStr) -> PathBuf {
    std::env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| PathBuf::from(program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::script::{Answer, Conversation, Message, Tool};
    use domain::{policy::Policy, scope::Globs};

    fn host_path() -> std::ffi::OsString {
        std::env::var_os("PATH").unwrap()
    }

    fn policy(variant: Variant) -> Policy {
        let text = variant
            .files()
            .iter()
            .find(|(path, _)| *path == "skep.toml")
            .unwrap()
            .1;
        Policy::parse(text.as_bytes()).unwrap()
    }

    /// Does to the directory what the script says in these rounds of a job.
    fn work(variant: Variant, job: usize, rounds: &[&str], directory: &Path) {
        let script = variant.script("true").unwrap();
        let prompt = variant.plan().unwrap().jobs[job].prompt.clone();
        let mut conversation = Conversation(vec![Message::User(prompt)]);
        for (round, findings) in rounds.iter().enumerate() {
            if round > 0 {
                conversation.0.push(Message::User((*findings).into()));
            }
            loop {
                match script.answer(&conversation).unwrap() {
                    Answer::Finish(_) => break,
                    Answer::Call { tool, .. } => apply(&tool, directory),
                }
                conversation.0.push(Message::Assistant);
                assert!(conversation.0.len() < 40, "the script does not end");
            }
            conversation.0.push(Message::Assistant);
        }
    }

    fn apply(tool: &Tool, directory: &Path) {
        match tool {
            Tool::Shell(_) => {}
            Tool::Replace { path, old, new } => {
                let path = directory.join(path);
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(text.matches(old.as_str()).count(), 1, "{old} in {text}");
                std::fs::write(path, text.replace(old.as_str(), new)).unwrap();
            }
            Tool::Write { path, content } => {
                std::fs::write(directory.join(path), content).unwrap();
            }
        }
    }

    async fn check(policy: &Policy, name: &str, directory: &Path) -> (bool, String) {
        let check = policy.checks.iter().find(|c| c.name == name).unwrap();
        let command = ["sh", "-c", check.command.as_str()];
        let ended = run(&command, directory, &host_path()).await.unwrap();
        let mut output = String::from_utf8_lossy(&ended.stdout).into_owned();
        output.push_str(&String::from_utf8_lossy(&ended.stderr));
        (ended.status.success(), output)
    }

    async fn story_of(variant: Variant) {
        let ended = run(variant.trial(), Path::new("/"), &host_path()).await;
        assert!(
            ended.is_ok_and(|ended| ended.status.success()),
            "this test needs {}: install python3, node 18 or newer, or a POSIX shell with awk",
            variant.name()
        );
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        variant.write(at).unwrap();
        let policy = policy(variant);
        let first = run(variant.tests(), at, &host_path()).await.unwrap();
        assert!(
            !first.status.success(),
            "the tests pass at the first commit"
        );

        work(variant, 0, &[""], at);
        let (passed, findings) = check(&policy, "durations", at).await;
        assert!(!passed, "the first change passes: {findings}");
        variant.write(at).unwrap();
        work(variant, 0, &["", &findings], at);
        for (job, name) in [(0, "durations"), (1, "money"), (2, "table")] {
            if job > 0 {
                work(variant, job, &[""], at);
            }
            for name in [name, "report", "syntax"] {
                let (passed, output) = check(&policy, name, at).await;
                assert!(passed, "{name}: {output}");
            }
        }
        assert!(!check(&policy, "everything", at).await.0);
        work(variant, 3, &[""], at);
        let (passed, output) = check(&policy, "everything", at).await;
        assert!(passed, "{output}");
        let last = run(variant.tests(), at, &host_path()).await.unwrap();
        assert!(last.status.success());
    }

    #[tokio::test]
    async fn the_python_repository_is_mended_by_its_script() {
        story_of(Variant::Python).await;
    }

    #[tokio::test]
    async fn the_node_repository_is_mended_by_its_script() {
        story_of(Variant::Node).await;
    }

    #[tokio::test]
    async fn the_shell_repository_is_mended_by_its_script() {
        story_of(Variant::Shell).await;
    }

    #[tokio::test]
    async fn each_of_two_jobs_that_share_a_file_passes_its_checks_alone() {
        for &variant in Variant::ALL {
            for (job, name) in [(1, "money"), (2, "table")] {
                let dir = tempfile::tempdir().unwrap();
                variant.write(dir.path()).unwrap();
                work(variant, job, &[""], dir.path());
                for name in [name, "report"] {
                    let (passed, output) = check(&policy(variant), name, dir.path()).await;
                    assert!(passed, "{}, {name}: {output}", variant.name());
                }
            }
        }
    }

    #[test]
    fn the_jobs_write_only_what_their_plan_allows() {
        for &variant in Variant::ALL {
            let script = variant.script("true").unwrap();
            for job in variant.plan().unwrap().jobs {
                let allowed = Globs::new(&job.scope.write).unwrap();
                for path in script.paths(&job.name) {
                    assert!(allowed.matches(path.as_bytes()), "{}: {path}", job.name);
                }
            }
        }
    }

    #[test]
    fn without_python_and_node_the_shell_is_enough() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().as_os_str();
        assert_eq!(runtime.block_on(Variant::found(empty)), Variant::Shell);
    }
}
