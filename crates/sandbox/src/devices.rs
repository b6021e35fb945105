//! Devices of the host that a sandbox may be given, and those that none ever is.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Devices in one sandbox, at most.
pub const MOST: usize = 64;
/// The word for what computes on this machine's graphics processors.
pub const GPU: &str = "gpu";

/// A character device of the host, looked at and found fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    path: PathBuf,
}

impl Device {
    /// Where it is, on the host and inside.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a device is not given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is none that may be.
    #[error("`{}` cannot be given to a sandbox: {why}", name.escape_debug())]
    Refused {
        /// What was asked for.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// It is not there.
    #[error("there is no device `{}` on this machine; {remedy}", name.escape_debug())]
    Missing {
        /// What was asked for.
        name: String,
        /// What to do.
        remedy: &'static str,
    },
    /// This user may not use it.
    #[error(
        "you may not use the device `{}` yourself; become a member of the group that owns it (`ls -l` shows it), and log in again",
        name.escape_debug()
    )]
    Denied {
        /// What was asked for.
        name: String,
    },
    /// It cannot be looked at.
    #[error("the device `{}` cannot be looked at", name.escape_debug())]
    Unreadable {
        /// What was asked for.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// More than may be.
    #[error("more than {MOST} devices are asked for")]
    TooMany,
}

/// Every sandbox has these of the host.
const USUAL: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// What leads out of any seal, by the beginning of its name below `/dev`; a name that ends in `#` wants
/// a digit there, and one without either is the whole name.
const REFUSED: [(&str, &str); 52] = [
    ("tty", OWN),
    ("ptmx", OWN),
    ("shm", OWN),
    ("mem", MEMORY),
    ("kmem", MEMORY),
    ("port", MEMORY),
    ("kmsg", MEMORY),
    ("oldmem", MEMORY),
    ("nvram", MEMORY),
    ("snapshot", MEMORY),
    ("mcelog", MEMORY),
    ("cpu/*", MEMORY),
    ("dax*", MEMORY),
    ("userfaultfd", MEMORY),
    ("console", TERMINAL),
    ("pts/*", TERMINAL),
    ("tty*", TERMINAL),
    ("rfcomm#", TERMINAL),
    ("hvc#", TERMINAL),
    ("vcs*", TERMINAL),
    ("fb#", TERMINAL),
    ("input/*", TERMINAL),
    ("hidraw#", TERMINAL),
    ("uinput", TERMINAL),
    ("uhid", TERMINAL),
    ("userio", TERMINAL),
    ("sg#", DISK),
    ("st#", DISK),
    ("nst#", DISK),
    ("bsg/*", DISK),
    ("nvme*", DISK),
    ("ng#", DISK),
    ("mtd*", DISK),
    ("raw/*", DISK),
    ("raw#", DISK),
    ("mapper/*", DISK),
    ("loop-control", DISK),
    ("btrfs-control", DISK),
    ("autofs", DISK),
    ("cuse", MACHINE),
    ("vfio/*", MACHINE),
    ("iommu", MACHINE),
    ("vhost-*", MACHINE),
    ("vsock", MACHINE),
    ("vga_arbiter", MACHINE),
    ("watchdog*", MACHINE),
    ("rfkill", MACHINE),
    ("ipmi*", MACHINE),
    ("tpm*", MACHINE),
    ("uio*", MACHINE),
    ("xen/*", MACHINE),
    ("mei*", MACHINE),
];
const OWN: &str = "every sandbox has one of its own there, and never the host's; leave it out";
const MEMORY: &str = "it leads to the machine's memory, its ports or its log";
const TERMINAL: &str = "it leads to somebody's screen, keys or terminal";
const DISK: &str = "it leads to the machine's disks";
const MACHINE: &str = "it leads to the machine itself, beyond what one program uses";
/// What the kernel says of a device, at most, in bytes.
const LONGEST_SAID: u64 = 4096;

/// The same by those of the kernel's numbers that never change, so that another name hides nothing: the
/// major, and of it the first and the last minor. Of others the kernel itself is asked for the name.
const REFUSED_NUMBERS: [(u32, u32, u32, &str); 31] = [
    (1, 1, 2, MEMORY),
    (1, 4, 4, MEMORY),
    (1, 6, 6, MEMORY),
    (1, 10, 1 << 20, MEMORY),
    (2, 0, 1 << 20, TERMINAL),
    (3, 0, 1 << 20, TERMINAL),
    (4, 0, 1 << 20, TERMINAL),
    (5, 0, 1 << 20, TERMINAL),
    (7, 0, 1 << 20, TERMINAL),
    (13, 0, 1 << 20, TERMINAL),
    (29, 0, 1 << 20, TERMINAL),
    (9, 0, 1 << 20, DISK),
    (21, 0, 1 << 20, DISK),
    (90, 0, 1 << 20, DISK),
    (162, 0, 1 << 20, DISK),
    (128, 0, 1 << 20, TERMINAL),
    (136, 0, 1 << 20, TERMINAL),
    (166, 0, 1 << 20, TERMINAL),
    (188, 0, 1 << 20, TERMINAL),
    (204, 0, 1 << 20, TERMINAL),
    (202, 0, 1 << 20, MEMORY),
    (203, 0, 1 << 20, MEMORY),
    (10, 130, 130, MACHINE),
    (10, 144, 144, MEMORY),
    (10, 184, 184, MEMORY),
    (10, 203, 203, MACHINE),
    (10, 223, 223, TERMINAL),
    (10, 227, 227, MEMORY),
    (10, 231, 231, MEMORY),
    (10, 234, 238, DISK),
    (10, 239, 242, MACHINE),
];

/// Looks for each device that is asked for: a path below `/dev`, or [`GPU`]. What every sandbox has
/// of the host anyway is left out, and nothing comes twice.
///
/// # Errors
/// The first that cannot be given.
pub fn find(asked: &[String]) -> Result<Vec<Device>, Error> {
    let mut all: Vec<Device> = Vec::new();
    for name in asked {
        let found = match name.as_str() {
            GPU => gpus()?,
            path => one(path)?.into_iter().collect(),
        };
        for device in found {
            if !all.contains(&device) {
                all.push(device);
            }
        }
        if all.len() > MOST {
            return Err(Error::TooMany);
        }
    }
    Ok(all)
}

/// Whether a word can be a device at all, wherever it is read: a configuration may be another
/// machine's too.
pub fn is_word(word: &str) -> bool {
    word == GPU || name_of(word).is_some()
}

/// The name of a path below `/dev`.
fn name_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/dev/")?;
    let plain = name.len() <= 255
        && !name.contains('\0')
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    plain.then_some(name)
}

fn one(path: &str) -> Result<Option<Device>, Error> {
    let refuse = |why| Error::Refused {
        name: path.to_owned(),
        why,
    };
    let name = name_of(path).ok_or_else(|| refuse("a device is named by its path below /dev"))?;
    if USUAL.contains(&name) {
        return Ok(None);
    }
    if let Some(why) = refused_name(name) {
        return Err(refuse(why));
    }
    let unreadable = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::Missing {
            name: path.to_owned(),
            remedy: "load the driver that makes it (`modprobe`), or leave it out",
        },
        _ => Error::Unreadable {
            name: path.to_owned(),
            source,
        },
    };
    let found = fs::symlink_metadata(path).map_err(unreadable)?;
    let real = fs::canonicalize(path).map_err(unreadable)?;
    if real != Path::new(path) {
        return Err(refuse("it is a link; name what it leads to"));
    }
    if found.file_type().is_block_device() {
        return Err(refuse(DISK));
    }
    if found.is_dir() {
        return Err(refuse(
            "it is a directory, and no device; name what is in it",
        ));
    }
    if !found.file_type().is_char_device() {
        return Err(refuse("it is no device"));
    }
    let number = found.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let mut numbers = REFUSED_NUMBERS.iter();
    let listed =
        numbers.find(|(of, first, last, _)| *of == major && (*first..=*last).contains(&minor));
    if let Some((.., why)) = listed {
        return Err(refuse(why));
    }
    let named = kernels_name(major, minor).map_err(unreadable)?;
    if let Some(why) = named.as_deref().and_then(refused_name) {
        return Err(refuse(why));
    }
    if access(path, Access::READ_OK).is_err() && access(path, Access::WRITE_OK).is_err() {
        return Err(Error::Denied {
            name: path.to_owned(),
        });
    }
    Ok(Some(Device { path: real }))
}

/// Why a device of this name is not given.
fn refused_name(name: &str) -> Option<&'static str> {
    let mut known = REFUSED.iter();
    let found = known.find(|(known, _)| is_like(name, known));
    found.map(|(_, why)| *why)
}

/// The name below `/dev` that the kernel has for a number; none where it has none, or `/sys` is not there.
fn kernels_name(major: u32, minor: u32) -> std::io::Result<Option<String>> {
    let path = format!("/sys/dev/char/{major}:{minor}/uevent");
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut said = String::new();
    file.take(LONGEST_SAID).read_to_string(&mut said)?;
    let mut lines = said.lines();
    let name = lines.find_map(|line| line.strip_prefix("DEVNAME="));
    Ok(name.map(str::to_owned))
}

/// Whether a name is what a line of the list means.
fn is_like(name: &str, known: &str) -> bool {
    if let Some(begin) = known.strip_suffix('*') {
        return name.starts_with(begin);
    }
    match known.strip_suffix('#') {
        Some(begin) => name
            .strip_prefix(begin)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())),
        None => name == known,
    }
}

/// What computes: not the nodes that also rule screens.
fn gpus() -> Result<Vec<Device>, Error> {
    const PLACES: [(&str, &[&str]); 3] = [
        (
            "/dev",
            &[
                "kfd",
                "nvidia#",
                "nvidiactl",
                "nvidia-uvm",
                "nvidia-uvm-tools",
            ],
        ),
        ("/dev/dri", &["renderD#"]),
        ("/dev/nvidia-caps", &["nvidia-cap#"]),
    ];
    let mut names = Vec::new();
    for (place, known) in PLACES {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if known.iter().any(|known| is_like(&name, known)) {
                names.push(format!("{place}/{name}"));
            }
        }
    }
    names.sort_unstable();
    if names.is_empty() {
        return Err(Error::Missing {
            name: GPU.to_owned(),
            remedy: "install the driver that makes /dev/dri/renderD*, /dev/kfd or /dev/nvidia*",
        });
    }
    let found: Result<Vec<_>, _> = names.iter().map(|name| one(name)).collect();
    Ok(found?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str) -> bool {
        matches!(find(&[path.to_owned()]), Err(Error::Refused { .. }))
    }

    // docs/bad-input.md: A device that leads out of any seal (`--device /dev/mem`)
    #[test]
    fn what_leads_out_of_a_seal_is_refused_whether_it_is_there_or_not() {
        for name in [
            "mem",
            "kmem",
            "port",
            "kmsg",
            "console",
            "tty0",
            "tty63",
            "ttyS0",
            "ttyAMA0",
            "ttyUSB0",
            "ttyACM1",
            "rfcomm0",
            "uio0",
            "xen/privcmd",
            "st0",
            "nst0",
            "dax0.0",
            "mei0",
            "tpm0",
            "vcs",
            "vcsa1",
            "pts/0",
            "input/event0",
            "uinput",
            "fb0",
            "loop-control",
            "mapper/control",
            "nvme0",
            "sg0",
            "cpu/0/msr",
            "vfio/vfio",
            "vhost-vsock",
            "vsock",
            "userfaultfd",
            "watchdog0",
            "tpmrm0",
            "btrfs-control",
            "autofs",
            "hidraw0",
            "snapshot",
        ] {
            assert!(refused(&format!("/dev/{name}")), "{name}");
        }
    }

    #[test]
    fn the_kernel_is_asked_for_the_name_of_a_number() {
        assert_eq!(kernels_name(1, 3).unwrap().as_deref(), Some("null"));
        assert_eq!(kernels_name(4095, 1_000_000).unwrap(), None);
        assert_eq!(refused_name("null"), None);
    }

    #[test]
    fn only_a_plain_path_of_a_character_device_of_dev_is_one() {
        for path in [
            "",
            "kvm",
            "/etc/passwd",
            "/dev",
            "/dev/",
            "/dev/../etc/passwd",
            "/dev/./kvm",
            "/dev//kvm",
            "/dev/stdin",
            "/dev/fd/0",
            "/dev/shm/x/../../null",
        ] {
            assert!(refused(path), "{path}");
        }
        for block in fs::read_dir("/dev").unwrap().flatten() {
            if block.file_type().unwrap().is_block_device() {
                assert!(refused(block.path().to_str().unwrap()), "{block:?}");
            }
        }
    }

    // docs/bad-input.md: A device that the sandbox makes itself (`--device /dev/tty`), or a directory (`--device /dev/dri`)
    #[test]
    fn what_a_sandbox_makes_itself_and_a_directory_are_refused_and_not_left_out() {
        let said = |path: &str| match find(&[path.to_owned()]) {
            Err(Error::Refused { why, .. }) => why,
            other => panic!("{path}: {other:?}"),
        };
        for own in ["/dev/tty", "/dev/ptmx", "/dev/shm"] {
            assert!(said(own).contains("of its own"), "{own}: {}", said(own));
        }
        assert!(said("/dev/console").contains("terminal"));
        assert!(said("/dev/pts").contains("directory"));
    }

    #[test]
    fn what_every_sandbox_has_is_no_extra_and_what_is_missing_says_what_to_do() {
        assert_eq!(
            find(&["/dev/null".to_owned(), "/dev/zero".to_owned()]).unwrap(),
            []
        );
        let missing = find(&["/dev/no-such-device".to_owned()]).unwrap_err();
        assert!(matches!(missing, Error::Missing { .. }));
        assert!(missing.to_string().contains("modprobe"), "{missing}");
    }
}
