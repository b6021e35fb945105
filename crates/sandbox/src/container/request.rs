//! What the engine is asked for: the outer wall of a sandbox.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountType, ResourcesUlimits,
};
use rustix::process::{Resource, getrlimit};

use super::engine::{Engine, NOTHING};
use super::image::Image;
use super::{BESIDE, Options};
use crate::devices::Device;
use crate::namespace::cgroup::Above;
use crate::namespace::plan::Needed;
use crate::namespace::wire::{BEHIND, MEETING, PROGRAM};
use crate::{Error, Limits, Spec, owner};

/// Labels: which sandbox, whose, since which start of the machine, for which data directory.
pub(super) const SANDBOX: &str = "skep.sandbox";
pub(super) const OWNER: &str = "skep.owner";
pub(super) const BOOT: &str = "skep.boot";
pub(super) const DATA: &str = "skep.data";
/// Of a container beside a sandbox's: its name.
pub(super) const SIDECAR: &str = "skep.sidecar";
/// What our program needs to map the user 0 that it is: it gives it up before anything else runs.
const MAP_ROOT: &str = "SETFCAP";
/// Limits per process of our program, which sets tighter ones. An engine may have lowered its own.
const MOST_FILES: u64 = 1 << 20;
const MOST_PROCESSES: u64 = 1 << 15;
/// Directories that are never shown to a container whole, not even to our program in it.
const NEVER: [&str; 6] = ["/", "/home", "/root", "/run", "/tmp", "/var"];

/// A container for `spec`, which shows our program the paths that it needs of the host.
pub(super) fn of(
    engine: &Engine,
    options: &Options,
    image: Option<&Image>,
    spec: &Spec,
    needed: &[Needed],
    meeting: &Path,
) -> Result<ContainerCreateBody, Error> {
    let mut mounts = vec![
        bind(&engine.place.program(), Path::new(PROGRAM), true)?,
        bind(meeting, Path::new(MEETING), true)?,
    ];
    for shown in shown(needed, spec)? {
        mounts.push(bind(&shown.path, &behind(&shown.path), !shown.writable)?);
    }
    let user = rustix::process::geteuid();
    let group = rustix::process::getegid();
    // To one without root's rights, its user is the user 0 of containers.
    let user = match engine.rootless {
        true => "0:0".to_owned(),
        false => format!("{}:{}", user.as_raw(), group.as_raw()),
    };
    let is_0 = user.starts_with("0:");
    Ok(ContainerCreateBody {
        image: Some(image.map_or(NOTHING, |image| &image.id).to_owned()),
        hostname: Some("skep".to_owned()),
        user: Some(user),
        labels: Some(labels(options, meeting)),
        host_config: Some(wall(engine, spec, mounts, is_0)),
        ..ours()
    })
}

/// Who a sandbox's containers belong to; the sandbox is named by the place at which it is met.
pub(super) fn labels(options: &Options, meeting: &Path) -> HashMap<String, String> {
    let owner = owner::this_process();
    // Each sandbox has a place of its own to be met at.
    let number = Path::new(meeting.file_name().unwrap_or_default());
    let labels = [
        (SANDBOX, format!("{owner}-{}", number.display())),
        (OWNER, owner.to_owned()),
        (BOOT, owner::boot()),
        (
            DATA,
            options
                .data
                .as_deref()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
        ),
    ];
    labels
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What all containers have in common: our program is the first one, whatever the image says.
pub(super) fn ours() -> ContainerCreateBody {
    ContainerCreateBody {
        entrypoint: Some(vec![PROGRAM.to_owned()]),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        env: Some(Vec::new()),
        stop_signal: Some("SIGKILL".to_owned()),
        // What an image has for that would run beside the inner wall.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn wall(engine: &Engine, spec: &Spec, mounts: Vec<Mount>, is_0: bool) -> HostConfig {
    HostConfig {
        network_mode: Some("none".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: is_0.then(|| vec![MAP_ROOT.to_owned()]),
        security_opt: Some(options(engine.is_podman)),
        sysctls: with_version_6(engine),
        // The inner wall has a process list of its own, with more hidden; the kernel lets nobody make
        // one who sees only parts of the one that is there.
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(Vec::new()),
        mounts: Some(mounts),
        // The engine's control group forbids devices that it does not know, whoever may open them.
        devices: (!spec.extras.devices.is_empty())
            .then(|| spec.extras.devices.iter().map(device).collect()),
        ..bounded(&spec.limits, BESIDE)
    }
}

/// Docker takes version 6 out of networks that it makes, of the loopback too; programs that listen at
/// `::1` are as welcome as in other kinds.
fn with_version_6(engine: &Engine) -> Option<HashMap<String, String>> {
    const SETTING: &str = "net.ipv6.conf.all.disable_ipv6";
    let has = || Path::new("/proc/sys/net/ipv6").exists();
    (!engine.is_podman && has()).then(|| HashMap::from([(SETTING.to_owned(), "0".to_owned())]))
}

/// Podman does not take rules without a node; the inner wall does not show this one.
fn device(of: &Device) -> DeviceMapping {
    let path = of.path().to_string_lossy().into_owned();
    DeviceMapping {
        path_on_host: Some(path.clone()),
        path_in_container: Some(path),
        cgroup_permissions: Some("rw".to_owned()),
    }
}

/// Has a container's group made below one that bounds all of them.
pub(super) fn below(asked: &mut ContainerCreateBody, above: Option<&Above>) {
    if let (Some(host), Some(above)) = (asked.host_config.as_mut(), above) {
        host.cgroup_parent = Some(above.path().to_owned());
    }
}

/// What bounds a container, and lets nothing of it stay. `beside` processes of ours do not count.
pub(super) fn bounded(limits: &Limits, beside: u64) -> HostConfig {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    HostConfig {
        auto_remove: Some(true),
        // The inside has its own, and of this one nothing would be unmounted if the engine were killed.
        ipc_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        init: Some(false),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        }),
        memory: limits.memory_bytes.map(number),
        memory_swap: limits.memory_bytes.map(number),
        pids_limit: limits.processes.map(|count| number(count + beside)),
        nano_cpus: limits.cpu_milli.map(|milli| number(milli * 1_000_000)),
        // An engine's own default may be more than it may give.
        ulimits: Some(vec![
            ulimit("nofile", Resource::Nofile, MOST_FILES),
            ulimit("nproc", Resource::Nproc, MOST_PROCESSES),
        ]),
        ..HostConfig::default()
    }
}

/// The filters of the engine and the machine make way for ours, which forbid more: they would forbid
/// what it takes to make the inner wall.
fn options(is_podman: bool) -> Vec<String> {
    let mut options = vec!["no-new-privileges", "seccomp=unconfined", "label=disable"];
    if Path::new("/sys/kernel/security/apparmor").exists() {
        options.push("apparmor=unconfined");
    }
    if is_podman {
        options.push("unmask=ALL");
    }
    options.into_iter().map(str::to_owned).collect()
}

/// No more than this process may use itself, and than engines are given by custom.
fn ulimit(name: &str, resource: Resource, most: u64) -> ResourcesUlimits {
    let most = getrlimit(resource).maximum.unwrap_or(most).min(most);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(most),
        hard: Some(most),
    }
}

fn behind(path: &Path) -> PathBuf {
    Path::new(BEHIND).join(path.strip_prefix("/").unwrap_or(path))
}

pub(super) fn bind(source: &Path, target: &Path, read_only: bool) -> Result<Mount, Error> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| Error::Spec {
            what: format!(
                "a container can only be shown paths in UTF-8, and {} is none",
                path.display()
            ),
        })
    };
    Ok(Mount {
        target: Some(text(target)?),
        source: Some(text(source)?),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    })
}

/// The fewest directories that show all that is needed, each before what lies below it.
fn shown(needed: &[Needed], spec: &Spec) -> Result<Vec<Needed>, Error> {
    let mut all: Vec<Needed> = needed
        .iter()
        .filter(|needed| needed.path.exists())
        .cloned()
        .collect();
    for (_, workspace) in spec.workspaces()? {
        if let crate::Workspace::Overlay { upper, work, .. } = workspace {
            all.push(both(upper, work)?);
        }
    }
    all.sort_by(|one, other| {
        let order = one.path.cmp(&other.path);
        order.then(other.writable.cmp(&one.writable))
    });
    let mut kept: Vec<Needed> = Vec::new();
    for next in all {
        let covered = kept
            .iter()
            .any(|above| next.path.starts_with(&above.path) && (above.writable || !next.writable));
        if !covered {
            kept.push(next);
        }
    }
    Ok(kept)
}

/// The directory that holds both: the kernel takes no two directories of different mounts for an
/// overlay that is written.
fn both(upper: &Path, work: &Path) -> Result<Needed, Error> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (upper, work) = (real(upper), real(work));
    let above = upper
        .ancestors()
        .find(|above| work.starts_with(above))
        .filter(|above| NEVER.iter().all(|never| *above != Path::new(never)));
    let path = above.ok_or_else(|| Error::Spec {
        what: format!(
            "in a container, the workspace's upper layer {} and {} must lie in one directory of their own",
            upper.display(),
            work.display()
        ),
    })?;
    Ok(Needed {
        path: path.to_owned(),
        writable: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(path: &str, writable: bool) -> Needed {
        Needed {
            path: path.into(),
            writable,
        }
    }

    #[test]
    fn what_is_shown_already_is_not_shown_again_unless_it_is_written() {
        let spec = Spec::new(crate::Workspace::Directory("/usr".into()));
        let all = [
            needed("/usr/share", false),
            needed("/usr", false),
            needed("/usr/lib", true),
            needed("/no/such/path", false),
            needed("/etc", true),
            needed("/etc", false),
        ];
        let kept = shown(&all, &spec).unwrap();
        let expected = [
            needed("/etc", true),
            needed("/usr", false),
            needed("/usr/lib", true),
        ];
        assert_eq!(kept, expected);
    }

    #[test]
    fn layers_that_share_no_directory_of_their_own_are_refused() {
        let good = both(Path::new("/no/place/upper"), Path::new("/no/place/work"));
        assert_eq!(good.unwrap(), needed("/no/place", true));
        assert!(both(Path::new("/no/upper"), Path::new("/other/work")).is_err());
        assert!(both(Path::new("/tmp/no-upper"), Path::new("/tmp/no-work")).is_err());
    }
}
