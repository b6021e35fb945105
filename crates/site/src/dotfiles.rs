//! A person's own settings for programs, put into the home of their sandbox before anything runs there.
//!
//! They are read as data: no link is followed, what has the name of a credential is left out, and there
//! are bounds. They are written one name at a time below the home's own descriptor, since a setup may
//! have left links there.

use crate::{elsewhere::refused, error::Error, open::blocking, site::Site};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};
use sandbox::{Command, Exit, toolchains};
use std::{
    ffi::{OsStr, OsString},
    io::{Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Files, links and directories, at most.
const MOST: usize = 2_000;
/// Bytes of all files, at most.
const MOST_BYTES: u64 = 16 << 20;
/// Directories in each other, at most.
const DEEPEST: usize = 16;
/// How long their script may take.
const WITHIN: Duration = Duration::from_secs(5 * 60);
/// How much of what it prints is read for its last lines, in bytes.
const PRINTED: usize = 64 << 10;
/// How many of its last lines are kept.
const LAST: usize = 10;
/// What is kept of each of them, in characters.
const WIDEST: usize = 400;
/// Names that are told of what was left out, at most.
const TOLD: usize = 20;
/// The directory below the home that dotfiles with a script are in.
const OWN: &str = ".dotfiles";
/// The scripts that are looked for, at the top; the first that is there is run.
const SCRIPTS: [&str; 6] = [
    "install.sh",
    "install",
    "bootstrap.sh",
    "bootstrap",
    "setup.sh",
    "setup",
];
/// Directories below `.config` that hold credentials of programs.
const PRIVATE: [&str; 9] = [
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".config/gcloud",
    ".config/op",
    ".config/rclone",
    ".config/doctl",
    ".config/github-copilot",
    ".local/share/keyrings",
];

/// Dotfiles as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dotfiles {
    /// Each after the directory that it is in.
    entries: Vec<Entry>,
    /// The script that installs them, with whether it can be executed as it is.
    script: Option<(&'static str, bool)>,
    /// What was not taken because it may be a credential, by its path: the first of them.
    pub left_out: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Directory,
    File { executable: bool, content: Vec<u8> },
    Link(OsString),
}

/// What became of the script that installs dotfiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub script: &'static str,
    /// How it ended.
    pub exit: Exit,
    /// Its last lines where it failed, without the values of secrets.
    pub output: Vec<String>,
}

impl Dotfiles {
    /// Reads a directory. `home` is the user's own, which is never taken.
    ///
    /// # Errors
    /// [`Error::Dotfiles`] when it cannot be read, holds more than may be taken, or is that home or holds it.
    pub fn read(directory: &Path, home: &Path) -> Result<Self, Error> {
        let refused = |what: String| Error::Dotfiles(format!("{}: {what}", directory.display()));
        let of_home = home.canonicalize();
        let real = directory.canonicalize();
        let real = real.map_err(|error| refused(error.to_string()))?;
        if of_home.is_ok_and(|home| home.starts_with(&real)) {
            return Err(refused(
                "it is your home, or holds it; keep dotfiles in a directory of their own".into(),
            ));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(&real, flags, Mode::empty());
        let top = top.map_err(|error| refused(error.to_string()))?;
        let mut reading = Reading {
            read: Self {
                entries: Vec::new(),
                script: None,
                left_out: Vec::new(),
            },
            left: MOST_BYTES,
        };
        reading
            .directory(&top, Path::new(""), DEEPEST)
            .map_err(refused)?;
        let mut read = reading.read;
        read.script = SCRIPTS.into_iter().find_map(|name| {
            read.entries.iter().find_map(|entry| match entry.what {
                What::File { executable, .. } if entry.path == Path::new(name) => {
                    Some((name, executable))
                }
                _ => None,
            })
        });
        if read.script.is_none() {
            read.entries
                .retain(|entry| entry.path.as_os_str().as_bytes().starts_with(b"."));
        }
        Ok(read)
    }

    /// Writes them below a home.
    ///
    /// # Errors
    /// Which of them cannot be written, and why.
    fn write(&self, home: &Path) -> Result<(), String> {
        let failed = |below: &Path, error: Errno| {
            let path = Path::new("~").join(below);
            format!("{} cannot be written: {error}", path.display())
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::open(home, flags, Mode::empty());
        let mut top = top.map_err(|error| failed(Path::new(""), error))?;
        let mut below = Path::new("");
        if self.script.is_some() {
            below = Path::new(OWN);
            let own = enter(top.as_fd(), below.as_os_str());
            top = own.map_err(|error| failed(below, error))?;
        }
        for entry in &self.entries {
            let written = entry.write(&top);
            written.map_err(|error| failed(&below.join(&entry.path), error))?;
        }
        Ok(())
    }
}

impl Entry {
    fn write(&self, top: &OwnedFd) -> rustix::io::Result<()> {
        let mut at = top.try_clone().map_err(|_| Errno::MFILE)?;
        for above in self.path.parent().into_iter().flat_map(Path::components) {
            at = enter(at.as_fd(), above.as_os_str())?;
        }
        let Some(name) = self.path.file_name() else {
            return Ok(());
        };
        match &self.what {
            What::Directory => drop(enter(at.as_fd(), name)?),
            What::Link(target) => {
                remove(at.as_fd(), name)?;
                rustix::fs::symlinkat(target, &at, name)?;
            }
            What::File {
                executable,
                content,
            } => {
                remove(at.as_fd(), name)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&at, name, flags, Mode::from_raw_mode(mode))?;
                let mut file = std::fs::File::from(file);
                let written = file.write_all(content);
                written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            }
        }
        Ok(())
    }
}

/// Opens the directory of this name, which is made unless it is there; what is there and is none goes.
fn enter(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(at, name, flags, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => rustix::fs::unlinkat(at, name, AtFlags::empty())?,
        other => return other,
    }
    rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755))?;
    open()
}

/// Makes room for a file.
fn remove(at: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

struct Reading {
    read: Dotfiles,
    /// Bytes that may still be read.
    left: u64,
}

impl Reading {
    fn directory(&mut self, at: &OwnedFd, path: &Path, levels: usize) -> Result<(), String> {
        let failed = |path: &Path, error: Errno| format!("{}: {error}", path.display());
        let Some(levels) = levels.checked_sub(1) else {
            return Err(format!("more than {DEEPEST} directories are in each other"));
        };
        let mut names: Vec<OsString> = Vec::new();
        let list = Dir::read_from(at).map_err(|error| failed(path, error))?;
        for entry in list {
            let entry = entry.map_err(|error| failed(path, error))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
            if names.len() > MOST {
                return Err(too_many());
            }
        }
        names.sort_unstable();
        for name in names {
            // Another repository's is none of the person's settings.
            if name == ".git" {
                continue;
            }
            let path = path.join(&name);
            if toolchains::is_credential(&name) || PRIVATE.iter().any(|it| path == Path::new(it)) {
                if self.read.left_out.len() < TOLD {
                    self.read.left_out.push(path.display().to_string());
                }
                continue;
            }
            self.one(at, &name, path, levels)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        at: &OwnedFd,
        name: &OsStr,
        path: PathBuf,
        levels: usize,
    ) -> Result<(), String> {
        let failed = |error: Errno| format!("{}: {error}", path.display());
        let found = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let what = match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(at, name, Vec::new()).map_err(failed)?;
                What::Link(OsStr::from_bytes(target.as_bytes()).to_owned())
            }
            FileType::Directory => What::Directory,
            FileType::RegularFile => {
                let file = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(failed)?;
                let mut content = Vec::new();
                std::fs::File::from(file)
                    .take(self.left.saturating_add(1))
                    .read_to_end(&mut content)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                let left = self.left.checked_sub(content.len() as u64);
                self.left =
                    left.ok_or_else(|| format!("they have more than {} MiB", MOST_BYTES >> 20))?;
                What::File {
                    executable: found.st_mode & 0o100 != 0,
                    content,
                }
            }
            // Pipes, sockets and devices are none.
            _ => return Ok(()),
        };
        if self.read.entries.len() >= MOST {
            return Err(too_many());
        }
        let is_directory = what == What::Directory;
        self.read.entries.push(Entry {
            path: path.clone(),
            what,
        });
        if is_directory {
            let flags = flags | OFlags::DIRECTORY;
            let below = rustix::fs::openat(at, name, flags, Mode::empty()).map_err(failed)?;
            self.directory(&below, &path, levels)?;
        }
        Ok(())
    }
}

fn too_many() -> String {
    format!("they are more than {MOST} files")
}

impl Site {
    /// Puts dotfiles into the home, in which nothing may have run but the setup, and runs their script,
    /// if they have one, inside. That it fails is no error.
    ///
    /// # Errors
    /// When they cannot be written, as where the home is not on this machine, or the script cannot be
    /// waited for.
    pub async fn put_dotfiles(&self, dotfiles: Dotfiles) -> Result<Option<Installed>, Error> {
        if !self.sites.abilities().local_files {
            return Err(refused("dotfiles cannot be put into its home"));
        }
        let home = {
            let files = self.files()?;
            crate::site::held(&files).home()
        };
        let script = dotfiles.script;
        blocking(move || dotfiles.write(&home).map_err(Error::Dotfiles)).await?;
        let Some((script, executable)) = script else {
            return Ok(None);
        };
        let sandbox = self.sandbox()?;
        let run = match executable {
            true => vec![format!("./{script}")],
            false => vec!["sh".to_owned(), script.to_owned()],
        };
        let command = Command::new(run, sandbox.home().join(OWN))
            .with_env(self.environment().iter().cloned())
            .with_timeout(WITHIN);
        let exit = match sandbox::exec_captured(sandbox, command, PRINTED).await {
            Ok(output) => output.exit,
            // No such interpreter: as a shell would say it.
            Err(sandbox::Error::NotFound { .. } | sandbox::Error::CannotStart { .. }) => Exit {
                code: Some(127),
                signal: None,
                timed_out: false,
                limit: None,
                refused: None,
            },
            Err(error) => return Err(error.into()),
        };
        let mut output = Vec::new();
        if !exit.success() {
            // Nothing else has run, and secrets are out of what the sandbox remembers.
            let mut last = sandbox.diagnose().await.last.output;
            output = last.split_off(last.len().saturating_sub(LAST));
        }
        for line in &mut output {
            *line = line.chars().take(WIDEST).collect();
        }
        Ok(Some(Installed {
            script,
            exit,
            output,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    // docs/bad-input.md: Dotfiles with credentials, links, or a script that fails
    #[test]
    fn dotfiles_are_taken_without_credentials_and_no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let (from, home) = (place.path().join("from"), place.path().join("home"));
        for directory in [".config/gh", ".config/nvim", ".ssh", ".git", "notes"] {
            fs::create_dir_all(from.join(directory)).unwrap();
        }
        fs::create_dir(&home).unwrap();
        for (name, text) in [
            (".vimrc", "set nu"),
            (".netrc", "secret"),
            (".ssh/id_x", "secret"),
            (".config/gh/hosts.yml", "secret"),
            (".config/nvim/init.lua", "x"),
            (".git/config", "x"),
            ("notes/x", "x"),
        ] {
            fs::write(from.join(name), text).unwrap();
        }
        fs::write(place.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink("../outside", from.join(".link")).unwrap();
        let read = Dotfiles::read(&from, Path::new("/no/home")).unwrap();
        assert_eq!(read.left_out, [".config/gh", ".netrc", ".ssh"]);
        // What a setup left in the home leads nowhere.
        let elsewhere = place.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, home.join(".config")).unwrap();
        std::os::unix::fs::symlink(place.path().join("outside"), home.join(".vimrc")).unwrap();
        read.write(&home).unwrap();
        let mut names: Vec<_> = fs::read_dir(&home)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort_unstable();
        assert_eq!(names, [".config", ".link", ".vimrc"]);
        assert_eq!(fs::read_to_string(home.join(".vimrc")).unwrap(), "set nu");
        assert_eq!(
            fs::read_link(home.join(".link")).unwrap(),
            Path::new("../outside")
        );
        assert!(home.join(".config/nvim/init.lua").is_file());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        let outside = fs::read_to_string(place.path().join("outside")).unwrap();
        assert_eq!(outside, "secret");
    }

    #[test]
    fn dotfiles_with_a_script_lie_in_a_directory_of_their_own_from_which_it_installs_them() {
        let place = tempfile::tempdir().unwrap();
        let (from, home) = (place.path().join("from"), place.path().join("home"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&home).unwrap();
        fs::write(from.join("install.sh"), "true").unwrap();
        fs::write(from.join("vimrc"), "x").unwrap();
        let read = Dotfiles::read(&from, Path::new("/no/home")).unwrap();
        assert_eq!(read.script, Some(("install.sh", false)));
        read.write(&home).unwrap();
        assert!(home.join(".dotfiles/vimrc").is_file());
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let (from, home) = (place.path().join("from"), place.path().join("home"));
        fs::create_dir_all(from.join(".config")).unwrap();
        // Where a setup left a directory.
        fs::create_dir_all(home.join(".config/settings")).unwrap();
        fs::create_dir_all(home.join(".dotfiles/.config/settings")).unwrap();
        fs::write(from.join(".config/settings"), "x").unwrap();
        let read = || Dotfiles::read(&from, Path::new("/no/home")).unwrap();
        let said = read().write(&home).unwrap_err();
        assert!(
            said.starts_with("~/.config/settings cannot be written: "),
            "{said}"
        );
        fs::write(from.join("install"), "true").unwrap();
        let said = read().write(&home).unwrap_err();
        assert!(said.starts_with("~/.dotfiles/.config/settings "), "{said}");
    }

    // docs/bad-input.md: A home as dotfiles (`--dotfiles ~`)
    #[test]
    fn a_home_is_no_directory_of_dotfiles_and_there_are_bounds() {
        let place = tempfile::tempdir().unwrap();
        let home = place.path().join("home");
        fs::create_dir(&home).unwrap();
        for directory in [home.as_path(), place.path(), Path::new("/")] {
            let refused = Dotfiles::read(directory, &home).unwrap_err().to_string();
            assert!(refused.contains("it is your home"), "{refused}");
        }
        let from = place.path().join("from");
        fs::create_dir_all(from.join(format!(".x/{}", "d/".repeat(DEEPEST)))).unwrap();
        let deep = Dotfiles::read(&from, &home).unwrap_err().to_string();
        assert!(deep.contains("in each other"), "{deep}");
        fs::remove_dir_all(from.join(".x")).unwrap();
        let large = fs::File::create(from.join(".large")).unwrap();
        large.set_len(MOST_BYTES + 1).unwrap();
        let large = Dotfiles::read(&from, &home).unwrap_err().to_string();
        assert!(large.contains("more than 16 MiB"), "{large}");
        fs::remove_file(from.join(".large")).unwrap();
        for name in 0..=MOST {
            fs::write(from.join(format!(".{name}x")), "").unwrap();
        }
        let many = Dotfiles::read(&from, &home).unwrap_err().to_string();
        assert!(many.contains("more than 2000 files"), "{many}");
    }
}
