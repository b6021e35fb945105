//! What a sandbox sees: from a specification to a plan.
//!
//! The root is empty and in memory. Into it come `/usr` with its links, listed parts of `/etc`, a
//! process list of its own, a handful of devices, the private home and tmp, the mounts of the
//! specification, and the workspace. Nothing is there because it was not taken away.

mod host;
mod image;
mod layers;
mod places;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

pub(crate) use self::layers::switch;
use self::layers::{Found, find};
use self::places::{Places, real};
use super::plan::{Plan, attribute};
use super::wire;
use crate::devices::Device;
use crate::extras::SECRETS;
use crate::{AGENT_HOME, Error, Secret, Spec, Tmp, WORKSPACE_PARENT, Workspace};

/// The user inside, as files say it.
const PASSWD: &str = "root:x:0:0:root:/:/usr/sbin/nologin\n\
     agent:x:1000:1000:agent:/home/agent:/bin/sh\n\
     nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n";
pub(crate) const HOSTS: &str = "127.0.0.1 localhost skep\n::1 localhost\n";
const NSSWITCH: &str =
    "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n";
pub(super) const HOSTNAME: &str = "skep";
/// Files of `/etc` that are ours in every sandbox.
const FILES: [(&str, &str); 6] = [
    ("passwd", PASSWD),
    ("group", GROUP),
    ("hosts", HOSTS),
    ("nsswitch.conf", NSSWITCH),
    ("resolv.conf", ""),
    ("hostname", "skep\n"),
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Parts of `/proc` that speak of the whole machine and that nobody inside needs. All of `/proc` is
/// read-only besides: the owner may be root outside, and its files would be writable to it.
const MASKED_PROC: [&str; 24] = [
    "acpi",
    "asound",
    "bus",
    "config.gz",
    "driver",
    "dynamic_debug",
    "fs",
    "irq",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "mtrr",
    "sched_debug",
    "scsi",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];
/// Paths of the host that a specification may not mount, whole.
const NEVER_WHOLE: [&str; 15] = [
    "/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/proc", "/root", "/run", "/srv",
    "/sys", "/var", "/var/run", "/var/lib",
];
/// Paths inside that a specification may not mount over.
const RESERVED: [&str; 4] = ["/proc", "/dev", "/sys", "/run/skep"];

/// What a directory in memory takes, at most.
const MEMORY_BYTES: u64 = 1 << 30;

/// Files and directories in one of them, at most: the kernel keeps each in memory of its own, however
/// empty it is.
const MEMORY_FILES: u64 = 100_000;

/// The mounts of a plan, in the making.
struct Layout {
    plan: Plan,
    /// Directories of the root that exist already.
    made: BTreeSet<PathBuf>,
    /// Where directories of the host really are.
    places: Places,
    /// What one directory in memory takes, at most: the watcher does not see what lies there.
    memory_bytes: u64,
}

/// Whose programs and settings the root has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// The host's.
    Host,
    /// Those of the image in whose root process 1 begins.
    Image,
}

/// The plan's part about files: everything up to the point from which nothing of the host can be
/// reached any more, and the mounts on top.
pub(crate) fn files(spec: &Spec, plan: Plan, root: Root) -> Result<Plan, Error> {
    let workspaces = spec.workspaces()?;
    check(spec)?;
    spec.extras.check()?;
    let mut layout = Layout {
        plan,
        made: BTreeSet::from([PathBuf::from("/")]),
        places: Places::default(),
        memory_bytes: spec.limits.memory_bytes.unwrap_or(u64::MAX),
    };
    layout.plan.hostname(HOSTNAME);
    layout.proc(spec.extras.nested);
    layout.devices(&spec.extras.devices);
    layout.secrets(&spec.extras.secrets);
    match root {
        Root::Host => {
            layout.host();
        }
        Root::Image => layout.image(),
    }
    layout.private(spec)?;
    for (place, workspace) in &workspaces {
        layout.workspace(workspace, place)?;
    }
    for mount in &spec.mounts {
        let writable = if mount.writable {
            0
        } else {
            attribute::READ_ONLY
        };
        let attributes = writable | attribute::NO_SETUID | attribute::NO_DEVICES;
        layout
            .plan
            .stash(&real("a mount", &mount.source)?, attributes);
    }
    layout.plan.detach();
    // From here on no path, and no link that an agent left in its home, leads to the host.
    for mount in &spec.mounts {
        layout.parents(&mount.target);
        layout.plan.attach(&mount.target);
    }
    spec.masked.iter().for_each(|path| layout.plan.mask(path));
    layout.plan.end_masks();
    layout.plan.read_only(Path::new("/"));
    Ok(layout.plan)
}

/// Refuses what no sandbox may hold.
fn check(spec: &Spec) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Spec { what });
    if spec.mounts.len() > wire::MOST_STASHED as usize {
        return refuse(format!("it has more than {} mounts", wire::MOST_STASHED));
    }
    for mount in &spec.mounts {
        let (source, target) = (&mount.source, &mount.target);
        if !is_plain(source) || !is_plain(target) {
            return refuse(format!(
                "the mount of {} at {} is not between absolute paths without `..`",
                source.display(),
                target.display()
            ));
        }
        let real = std::fs::canonicalize(source).unwrap_or_else(|_| source.clone());
        if [source, &real]
            .iter()
            .any(|path| NEVER_WHOLE.iter().any(|never| *path == Path::new(never)))
        {
            return refuse(format!(
                "{} may not be mounted whole; name the directories in it that are needed",
                source.display()
            ));
        }
        let over = RESERVED.iter().any(|reserved| target.starts_with(reserved));
        if over || target == Path::new("/") || target == Path::new(WORKSPACE_PARENT) {
            return refuse(format!("nothing may be mounted at {}", target.display()));
        }
    }
    match spec.masked.iter().find(|path| !is_plain(path)) {
        Some(path) => refuse(format!(
            "the masked path {} is not absolute and plain",
            path.display()
        )),
        None => Ok(()),
    }
}

/// Whether a path is absolute and has no part that means another place.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && !path.as_os_str().as_encoded_bytes().contains(&0)
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

impl Layout {
    /// Makes the directories above `path`.
    fn parents(&mut self, path: &Path) {
        let mut missing: Vec<_> = path.ancestors().skip(1).map(Path::to_path_buf).collect();
        missing.reverse();
        for parent in missing {
            if self.made.insert(parent.clone()) {
                self.plan.directory(&parent, 0o755);
            }
        }
    }

    /// The options of a directory in memory.
    fn in_memory(&self, bytes: u64, mode: &str) -> String {
        let bytes = bytes.min(self.memory_bytes);
        format!("size={bytes},nr_inodes={MEMORY_FILES},mode={mode}")
    }

    /// Makes what masks are made of in a directory over which something is mounted next: nobody sees it
    /// there, and it keeps its name. Upon what has none nothing can be mounted, so that whoever makes a
    /// sandbox inside could not hide the same path again.
    fn masks(&mut self, place: &Path) {
        let (file, directory) = (place.join("nothing"), place.join("empty"));
        self.plan.file(&file, 0o444, "");
        self.plan.directory(&directory, 0o555);
        self.plan.masks(&file, &directory);
    }

    /// Who makes namespaces writes who is whom in them there, and is given a list of their own by the
    /// kernel only while all of this one is seen. The owner is not root then, whom it would let write more.
    fn proc(&mut self, nested: bool) {
        let proc = Path::new("/proc");
        self.plan.directory(proc, 0o555);
        self.masks(proc);
        self.plan.proc(proc);
        if !nested {
            self.plan.hide(proc, &MASKED_PROC);
            self.plan.read_only(proc);
        }
    }

    fn devices(&mut self, more: &[Device]) {
        let dev = Path::new("/dev");
        // A part of the root, which is read-only when it is finished.
        self.plan.directory(dev, 0o755);
        // What is read-only is the node: a device is opened for writing all the same, but not even its
        // owner changes its rights or its times, which are the host's.
        let as_it_is = attribute::READ_ONLY | attribute::NO_SETUID | attribute::NO_EXEC;
        for name in DEVICES {
            let path = dev.join(name);
            self.plan.bind(&path, &path, as_it_is, false);
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, target) in links {
            self.plan.symlink(Path::new(target), &dev.join(name));
        }
        self.plan.directory(&dev.join("pts"), 0o755);
        self.plan.devpts(&dev.join("pts"));
        self.plan.directory(&dev.join("shm"), 0o1777);
        let options = self.in_memory(MEMORY_BYTES, "1777");
        let flags = attribute::NO_SETUID | attribute::NO_DEVICES;
        self.plan.tmpfs(&dev.join("shm"), &options, flags);
        self.made.insert(dev.into());
        for device in more {
            let path = device.path();
            self.parents(path);
            self.plan.bind(path, path, as_it_is, false);
        }
    }

    /// Written before anything runs, and by nobody afterwards.
    fn secrets(&mut self, secrets: &[Secret]) {
        if secrets.is_empty() {
            return;
        }
        let place = Path::new(SECRETS);
        self.parents(place);
        self.made.insert(place.into());
        self.plan.directory(place, 0o500);
        self.plan.unswapped(place);
        for one in secrets {
            self.plan.file(&one.inside(), 0o400, one.value());
        }
        self.plan.read_only(place);
    }

    fn own_files(&mut self, etc: &Path) {
        for (name, content) in FILES {
            self.plan.file(&etc.join(name), 0o644, content);
        }
    }

    fn private(&mut self, spec: &Spec) -> Result<(), Error> {
        let flags = attribute::NO_SETUID | attribute::NO_DEVICES;
        let (tmp, home) = (Path::new("/tmp"), Path::new(AGENT_HOME));
        self.made.insert(tmp.into());
        self.plan.directory(tmp, 0o1777);
        match &spec.tmp {
            Tmp::Memory { bytes } => {
                let options = self.in_memory(*bytes, "1777");
                self.plan.tmpfs(tmp, &options, flags);
            }
            Tmp::Directory(path) => {
                let path = self.places.real("the directory for /tmp", path)?;
                self.plan.bind(&path, tmp, flags, false);
            }
        }
        self.parents(home);
        self.made.insert(home.into());
        self.plan.directory(home, 0o755);
        match &spec.home {
            None => {
                let options = self.in_memory(MEMORY_BYTES, "0755");
                self.plan.tmpfs(home, &options, flags);
            }
            Some(path) => {
                let path = self.places.real("the home", path)?;
                self.plan.bind(&path, home, flags, false);
            }
        }
        Ok(())
    }

    fn workspace(&mut self, workspace: &Workspace, target: &Path) -> Result<(), Error> {
        self.parents(target);
        self.made.insert(target.into());
        let flags = attribute::NO_SETUID | attribute::NO_DEVICES;
        match workspace {
            Workspace::Own => {
                return Err(Error::Spec {
                    what: "a workspace of its own is for kinds whose files are on another machine"
                        .to_owned(),
                });
            }
            Workspace::Directory(path) => {
                self.plan
                    .bind(&real("the workspace", path)?, target, flags, false);
            }
            Workspace::Overlay {
                lowers,
                upper,
                work,
                volatile,
            } => {
                let Found {
                    lowers,
                    upper,
                    work,
                } = find(&mut self.places, lowers, upper, work)?;
                self.plan.overlay(target, &upper, &work, &lowers, *volatile);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mount;

    fn refused(mount: Mount) -> bool {
        let mut spec = Spec::new(Workspace::Directory("/usr".into()));
        spec.mounts = vec![mount];
        matches!(
            files(&spec, Plan::default(), Root::Host),
            Err(Error::Spec { .. })
        )
    }

    #[test]
    fn the_hosts_own_directories_are_never_mounted_whole() {
        for path in NEVER_WHOLE {
            assert!(refused(Mount::read_only(path, "/opt/x")), "{path}");
        }
        assert!(refused(Mount::read_only("/usr/../root", "/opt/x")));
        assert!(!refused(Mount::read_only("/usr/share", "/opt/x")));
    }

    #[test]
    fn nothing_is_mounted_over_the_process_list_or_devices() {
        for target in [
            "/proc",
            "/proc/sys",
            "/dev",
            "/sys/fs",
            "/",
            "/workspace",
            "relative",
        ] {
            assert!(refused(Mount::read_only("/usr/share", target)), "{target}");
        }
    }

    #[test]
    fn a_workspaces_name_is_one_component() {
        let mut spec = Spec::new(Workspace::Directory("/usr".into()));
        for name in ["", ".", "..", "a/b", "/a"] {
            spec.workspace_name = name.to_owned();
            assert!(files(&spec, Plan::default(), Root::Host).is_err(), "{name}");
        }
    }
}
