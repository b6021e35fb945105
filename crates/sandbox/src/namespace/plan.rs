//! The plan that process 1 carries out: bytes for it, and words for people.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::wire;

/// A list of steps, in the form that process 1 reads.
#[derive(Default)]
pub(crate) struct Plan {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    /// Where the host's root is, below the one that process 1 begins with.
    behind: &'static str,
    needed: Vec<Needed>,
}

/// A path of the host that the plan's steps lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) path: PathBuf,
    /// Whether anything is written there.
    pub(crate) writable: bool,
}

/// What a step does, for the message if it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) code: u32,
    pub(crate) what: &'static str,
    pub(crate) subject: String,
}

/// The attributes of a mount, as the kernel numbers them (`MOUNT_ATTR_*`).
pub(crate) mod attribute {
    pub(crate) const READ_ONLY: u32 = 1;
    pub(crate) const NO_SETUID: u32 = 2;
    pub(crate) const NO_DEVICES: u32 = 4;
    pub(crate) const NO_EXEC: u32 = 8;
    /// What every mount of the host has.
    pub(crate) const HOST: u32 = READ_ONLY | NO_SETUID | NO_DEVICES;
}

impl Plan {
    /// For a process 1 that begins where parts of the host lie below `directory`.
    pub(crate) fn behind(directory: &'static str) -> Self {
        Self {
            behind: directory,
            ..Self::default()
        }
    }

    /// The paths of the host that it leads to so far.
    pub(crate) fn needed(&self) -> &[Needed] {
        &self.needed
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn step(&self, index: u32) -> Option<&Step> {
        self.steps.get(usize::try_from(index).ok()?)
    }

    fn begin(&mut self, code: u32, what: &'static str, subject: impl Into<String>) {
        self.steps.push(Step {
            code,
            what,
            subject: subject.into(),
        });
        self.word(code);
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    fn long(&mut self, long: u64) {
        self.bytes.extend_from_slice(&long.to_le_bytes());
    }

    fn text(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        self.word(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
    }

    fn path(&mut self, path: &Path) {
        self.text(path.as_os_str().as_bytes());
    }

    /// A path of the host, as process 1 sees it while it carries out the plan.
    fn host_path(&mut self, path: &Path, writable: bool) {
        self.needed.push(Needed {
            path: path.to_owned(),
            writable,
        });
        let mut seen = wire::OLD_ROOT.as_bytes().to_vec();
        seen.extend_from_slice(self.behind.as_bytes());
        seen.extend_from_slice(path.as_os_str().as_bytes());
        self.text(seen);
    }

    pub(crate) fn directory(&mut self, path: &Path, mode: u32) {
        self.begin(
            wire::STEP_DIRECTORY,
            "make the directory",
            path.display().to_string(),
        );
        self.path(path);
        self.word(mode);
    }

    pub(crate) fn symlink(&mut self, target: &Path, path: &Path) {
        self.begin(
            wire::STEP_SYMLINK,
            "make the link",
            path.display().to_string(),
        );
        self.path(target);
        self.path(path);
    }

    pub(crate) fn file(&mut self, path: &Path, mode: u32, content: impl AsRef<[u8]>) {
        self.begin(
            wire::STEP_FILE,
            "write the file",
            path.display().to_string(),
        );
        self.path(path);
        self.word(mode);
        self.text(content);
    }

    pub(crate) fn tmpfs(&mut self, path: &Path, options: &str, attributes: u32) {
        self.begin(
            wire::STEP_TMPFS,
            "mount memory at",
            path.display().to_string(),
        );
        self.path(path);
        self.text(options);
        self.word(attributes);
    }

    /// Memory that is never swapped, and has no bound but what is written there by this plan.
    pub(crate) fn unswapped(&mut self, path: &Path) {
        self.begin(
            wire::STEP_UNSWAPPED,
            "mount memory at",
            path.display().to_string(),
        );
        self.path(path);
    }

    pub(crate) fn bind(&mut self, source: &Path, target: &Path, attributes: u32, optional: bool) {
        self.begin(
            wire::STEP_BIND,
            "mount the host's",
            source.display().to_string(),
        );
        self.host_path(source, attributes & attribute::READ_ONLY == 0);
        self.path(target);
        self.word(attributes);
        self.word(if optional { wire::BIND_OPTIONAL } else { 0 });
    }

    /// Keeps a mount aside until [`Plan::attach`], which takes them in the same order.
    pub(crate) fn stash(&mut self, source: &Path, attributes: u32) {
        self.begin(
            wire::STEP_STASH,
            "mount the host's",
            source.display().to_string(),
        );
        self.host_path(source, attributes & attribute::READ_ONLY == 0);
        self.word(attributes);
        self.word(0);
    }

    pub(crate) fn attach(&mut self, target: &Path) {
        self.begin(wire::STEP_ATTACH, "mount at", target.display().to_string());
        self.path(target);
    }

    pub(crate) fn proc(&mut self, path: &Path) {
        self.begin(
            wire::STEP_PROC,
            "mount a process list at",
            path.display().to_string(),
        );
        self.path(path);
    }

    pub(crate) fn devpts(&mut self, path: &Path) {
        self.begin(
            wire::STEP_DEVPTS,
            "mount terminals at",
            path.display().to_string(),
        );
        self.path(path);
    }

    /// What masks are made of until [`Plan::end_masks`]: an empty file and an empty directory, which are
    /// found again when something is mounted over them.
    pub(crate) fn masks(&mut self, file: &Path, directory: &Path) {
        self.begin(
            wire::STEP_MASKS,
            "keep for masks",
            file.display().to_string(),
        );
        self.path(file);
        self.path(directory);
    }

    pub(crate) fn mask(&mut self, path: &Path) {
        self.begin(wire::STEP_MASK, "hide", path.display().to_string());
        self.path(path);
    }

    /// Hides paths that the kernel made below `parent`, where they are there.
    pub(crate) fn hide(&mut self, parent: &Path, names: &[&str]) {
        self.begin(
            wire::STEP_HIDE,
            "hide parts of",
            parent.display().to_string(),
        );
        self.word(u32::try_from(names.len()).unwrap_or(u32::MAX));
        for name in names {
            self.path(&parent.join(name));
        }
    }

    /// Makes all that is in a directory of the image in which process 1 begins appear in `target`.
    pub(crate) fn spread(&mut self, of: &Path, target: &Path, attributes: u32, left_out: &[&str]) {
        self.begin(
            wire::STEP_SPREAD,
            "mount the image's",
            of.display().to_string(),
        );
        let mut seen = wire::OLD_ROOT.as_bytes().to_vec();
        seen.extend_from_slice(of.as_os_str().as_bytes());
        self.text(seen);
        // The fresh root needs no slash before the names in it.
        match target == Path::new("/") {
            true => self.text(""),
            false => self.path(target),
        }
        self.word(attributes);
        self.word(u32::try_from(left_out.len()).unwrap_or(u32::MAX));
        left_out.iter().for_each(|name| self.text(name));
    }

    pub(crate) fn overlay(
        &mut self,
        target: &Path,
        upper: &Path,
        work: &Path,
        lowers: &[impl AsRef<Path>],
        volatile: bool,
    ) {
        self.begin(
            wire::STEP_OVERLAY,
            "mount the workspace's layers at",
            target.display().to_string(),
        );
        self.path(target);
        self.host_path(upper, true);
        self.host_path(work, true);
        self.overlay_options(volatile, lowers.len());
        for lower in lowers {
            self.host_path(lower.as_ref(), false);
        }
    }

    fn overlay_options(&mut self, volatile: bool, lowers: usize) {
        self.word(if volatile { wire::OVERLAY_VOLATILE } else { 0 });
        self.word(u32::try_from(lowers).unwrap_or(u32::MAX));
    }

    /// Begins what a switch of layers needs, of so many workspaces; there are no steps in it.
    pub(crate) fn begin_switch(&mut self, workspaces: usize) {
        self.word(u32::try_from(workspaces).unwrap_or(u32::MAX));
    }

    /// What it needs for one of them. The helper sees the host's paths as they are.
    pub(crate) fn switch(
        &mut self,
        target: &Path,
        upper: &Path,
        work: &Path,
        lowers: &[impl AsRef<Path>],
        volatile: bool,
    ) {
        for path in [target, upper, work] {
            self.path(path);
        }
        self.overlay_options(volatile, lowers.len());
        for lower in lowers {
            self.path(lower.as_ref());
        }
    }

    pub(crate) fn read_only(&mut self, path: &Path) {
        self.begin(
            wire::STEP_READ_ONLY,
            "make read-only",
            path.display().to_string(),
        );
        self.path(path);
    }

    pub(crate) fn hostname(&mut self, name: &str) {
        self.begin(wire::STEP_HOSTNAME, "set the host name", name);
        self.text(name);
    }

    pub(crate) fn loopback(&mut self) {
        self.begin(
            wire::STEP_LOOPBACK,
            "bring up the loopback of",
            "the sandbox's network",
        );
    }

    pub(crate) fn listen(&mut self, port: u16) {
        self.begin(wire::STEP_LISTEN, "listen on port", port.to_string());
        self.word(u32::from(port));
    }

    pub(crate) fn rlimit(&mut self, resource: u32, name: &'static str, value: u64) {
        self.begin(wire::STEP_RLIMIT, "limit", name);
        self.word(resource);
        self.long(value);
    }

    /// `rules` are paths with the rights that are allowed below them.
    pub(crate) fn landlock(
        &mut self,
        handled: u64,
        scoped: u64,
        attribute_bytes: u32,
        rules: &[(&Path, u64)],
    ) {
        self.begin(
            wire::STEP_LANDLOCK,
            "enforce",
            "the rules on paths (Landlock)",
        );
        self.long(handled);
        self.long(scoped);
        self.word(attribute_bytes);
        self.word(u32::try_from(rules.len()).unwrap_or(u32::MAX));
        for (path, rights) in rules {
            self.path(path);
            self.long(*rights);
        }
    }

    /// Two filters that refuse the same calls, of which the first asks about some, or is empty.
    pub(crate) fn seccomp(&mut self, asking: &[u8], plain: &[u8]) {
        self.begin(
            wire::STEP_SECCOMP,
            "drop capabilities and enforce",
            "the filter of system calls",
        );
        self.text(asking);
        self.text(plain);
    }

    /// `places` are the directories that are in memory (`PLACE_…`).
    pub(crate) fn watch(&mut self, bytes: Option<u64>, processes: Option<u64>, places: u32) {
        self.begin(wire::STEP_WATCH, "watch", "memory and processes");
        self.long(bytes.unwrap_or(u64::MAX));
        self.long(processes.unwrap_or(u64::MAX));
        self.word(places);
    }

    pub(crate) fn detach(&mut self) {
        self.begin(wire::STEP_DETACH, "detach", "the host's root");
    }

    pub(crate) fn end_masks(&mut self) {
        self.begin(wire::STEP_END_MASKS, "let go of", "what masks are made of");
    }
}
