//! Images that tests make themselves: some programs of this machine with what they load, and files.
//! Nothing is downloaded.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Docker, Home, Podman};

/// How long the engine may take to read one.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where programs are in it; the other usual places are links to this one.
const BIN: &str = "usr/bin";

/// A tree of files in the making, and what is said of it.
#[derive(Debug)]
pub struct Image {
    tree: TempDir,
    changes: Vec<String>,
}

impl Image {
    /// With these programs of this machine, each at `/usr/bin/NAME`.
    pub fn of<const N: usize>(programs: [&str; N]) -> Image {
        let tree = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let image = Image {
            tree,
            changes: Vec::new(),
        };
        for place in [BIN, "usr/lib", "usr/lib64", "etc"] {
            fs::create_dir_all(image.tree.path().join(place)).expect("a directory of the image");
        }
        for (link, target) in [
            ("bin", BIN),
            ("sbin", BIN),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            symlink(target, image.tree.path().join(link)).expect("a link of the image");
        }
        let mut loaded = BTreeSet::new();
        for name in programs {
            let program = program(name);
            image.copy(&program, &PathBuf::from(BIN).join(name));
            loaded.extend(loads(&program));
        }
        for library in loaded {
            let inside = library.strip_prefix("/").expect("an absolute path");
            image.copy(&library, inside);
        }
        image
    }

    /// With a file.
    pub fn file(self, path: &str, content: &str) -> Image {
        let path = self.tree.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory of the image");
        fs::write(&path, content).expect("a file of the image");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        self
    }

    /// With an instruction, as a `Dockerfile` has it.
    pub fn change(mut self, instruction: &str) -> Image {
        self.changes.push(format!("--change={instruction}"));
        self
    }

    /// Gives it to a Podman, under this name.
    pub fn import(self, podman: &Podman, name: &str) {
        self.give(podman.home(), "podman", name);
    }

    /// Gives it to a Docker, under this name.
    pub fn import_to_docker(self, docker: &Docker, name: &str) {
        self.give(docker.home(), "docker", name);
    }

    fn give(self, home: &Home, program: &str, name: &str) {
        let archive = home.root().join("image.tar");
        let done = Command::new("tar")
            .args(["--owner=0", "--group=0", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(self.tree.path())
            .arg(".")
            .status()
            .expect("tar");
        assert!(done.success(), "{done}");
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o644)).expect("its mode");
        let last = [archive.display().to_string(), name.to_owned()];
        let args = ["import".to_owned()].into_iter().chain(self.changes);
        home.run(program, args.chain(last), &home.home(), PATIENCE)
            .expect_code(0);
        fs::remove_file(&archive).expect("the archive");
    }

    fn copy(&self, from: &Path, to: &Path) {
        let to = self.tree.path().join(to);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory of the image");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|place| place.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed"))
}

/// What the loader of this machine loads for a program.
fn loads(program: &Path) -> Vec<PathBuf> {
    let told = Command::new("ldd").arg(program).output().expect("ldd");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let words = told.split_whitespace();
    words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}
