//! What the engine is asked for: a container beside a sandbox's.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig};

use crate::Error;
use crate::container::engine::Engine;
use crate::container::image::Image;
use crate::container::request::{self, SIDECAR};
use crate::container::sidecar::Sidecar;
use crate::namespace::wire::{MEETING, PROGRAM};

/// Directories that programs write to wherever they run. They are in memory.
const WRITABLE: [&str; 4] = ["/dev/shm", "/run", "/tmp", "/var/tmp"];
/// Our processes in it that are not the sidecar's: the first one, and a minder.
pub(super) const OURS: u64 = 2;

/// A container in the network `network`, whose first process is ours.
pub(super) fn of(
    engine: &Engine,
    mut labels: HashMap<String, String>,
    sidecar: &Sidecar,
    image: &Image,
    network: String,
    meeting: &Path,
) -> Result<ContainerCreateBody, Error> {
    let place = &engine.place;
    let mounts = [
        (place.program(), PROGRAM),
        (meeting.to_owned(), MEETING),
        (place.hosts(), "/etc/hosts"),
        (place.no_servers(), "/etc/resolv.conf"),
    ];
    let mounts = mounts
        .into_iter()
        .map(|(source, target)| request::bind(&source, Path::new(target), true))
        .collect::<Result<_, _>>()?;
    let limits = &sidecar.limits;
    let size = limits
        .memory_bytes
        .map(|bytes| format!(",size={bytes}"))
        .unwrap_or_default();
    let volumes = image.config.volumes.iter().flatten();
    let places = WRITABLE
        .iter()
        .map(|place| (*place).to_owned())
        .chain(volumes.cloned())
        .chain(
            sidecar
                .writable
                .iter()
                .map(|path| path.display().to_string()),
        );
    let tmpfs: HashMap<_, _> = places
        .map(|place| (place, format!("rw,nosuid,nodev,exec,mode=1777{size}")))
        .collect();
    let host_config = HostConfig {
        network_mode: Some(network),
        cap_drop: Some(vec!["ALL".to_owned()]),
        // The engine's own filter of calls stays. A label would keep our program out.
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            "label=disable".to_owned(),
        ]),
        mounts: Some(mounts),
        tmpfs: Some(tmpfs),
        ..request::bounded(limits, OURS)
    };
    labels.insert(SIDECAR.to_owned(), sidecar.name.clone());
    Ok(ContainerCreateBody {
        image: Some(image.id.clone()),
        user: sidecar.user.clone(),
        labels: Some(labels),
        host_config: Some(host_config),
        ..request::ours()
    })
}
