//! Tries for real what the `container` kind needs, for `skep doctor`.

use std::path::Path;

use super::Container;
use super::find::{self, Choice};
use crate::namespace::probe::{self, failed, io};
use crate::namespace::scratch::Scratch;
use crate::{
    Backend, Beside, Command, Enforcement, Error, Finding, Spec, Workspace, exec_captured,
};

const OUTPUT: usize = 4096;
const ENGINE: &str = "container engine";

pub(super) async fn probe(backend: &Container, place: &Path) -> Vec<Finding> {
    let engine = engine(backend).await;
    let found = engine.ok;
    let mut findings = vec![engine];
    if !found {
        return findings;
    }
    if let Some(images) = images(backend).await {
        let found = images.ok;
        findings.push(images);
        if !found {
            return findings;
        }
    }
    findings.extend(inside(backend, place).await);
    findings.push(probe::overlay(backend, place).await);
    findings.push(probe::landlock());
    findings.push(probe::seccomp());
    findings
}

pub(super) fn found() -> Option<Finding> {
    let way = find::look(&Choice::Found).ok()?;
    Some(Finding {
        name: ENGINE,
        ok: true,
        optional: true,
        detail: format!("{way}; `--sandbox container` uses it"),
        remedy: None,
    })
}

async fn engine(backend: &Container) -> Finding {
    let name = ENGINE;
    match backend.shared.engine().await {
        Ok(engine) => Finding {
            name,
            ok: true,
            optional: false,
            detail: match engine.rootless {
                true => format!("{}, without root", engine.name),
                false => format!("{}, with root's rights", engine.name),
            },
            remedy: None,
        },
        Err(error) => failed(name, false, &error),
    }
}

/// Whether the images of the configuration are there, if it names any: the root's, and the first that is
/// missing.
async fn images(backend: &Container) -> Option<Finding> {
    let options = &backend.shared.options;
    let beside = options.sidecars.iter().map(|sidecar| &sidecar.image);
    let names: Vec<&str> = options
        .image
        .iter()
        .chain(beside)
        .map(String::as_str)
        .collect();
    if names.is_empty() {
        return None;
    }
    let name = "images";
    Some(match backend.images().await {
        Ok(_) => Finding {
            name,
            ok: true,
            optional: false,
            detail: format!("there: {}", names.join(", ")),
            remedy: None,
        },
        Err(error) => failed(name, false, &error),
    })
}

/// Runs a command in a container that has a limit, and says who keeps that.
async fn inside(backend: &Container, place: &Path) -> Vec<Finding> {
    let (name, limits) = ("containers", "limits");
    let tried = async {
        let scratch = Scratch::new(place).map_err(io)?;
        let directory = scratch.directory("plain").map_err(io)?;
        let mut spec = Spec::new(Workspace::Directory(directory));
        spec.limits.memory_bytes = Some(256 << 20);
        let sandbox = backend.create(spec).await?;
        let command = Command::new(["/bin/sh", "-c", "id -u"], sandbox.workspace());
        let output = exec_captured(sandbox.as_ref(), command, OUTPUT).await?;
        let diagnosis = sandbox.diagnose().await;
        let together = together(backend, diagnosis.first_process).await;
        sandbox.destroy().await?;
        let beside = beside(&diagnosis.sidecars);
        let more: Vec<Finding> = beside.into_iter().chain(together).collect();
        Ok::<_, Error>((output, diagnosis.limits_in_force, more))
    };
    let (output, enforcement, more) = match tried.await {
        Ok(found) => found,
        Err(error) => return vec![failed(name, false, &error)],
    };
    let ok = output.exit.success();
    let by_cgroup = enforcement != Enforcement::RlimitsAndWatcher;
    let mut findings = vec![
        Finding {
            name,
            ok,
            optional: false,
            detail: match ok {
                true => "a command runs in one, behind a seal of our own".to_owned(),
                false => format!("a command inside ends with {}", output.exit),
            },
            remedy: (!ok).then(|| "check that /bin/sh runs".to_owned()),
        },
        Finding {
            name: limits,
            ok: by_cgroup,
            optional: true,
            detail: format!("in force: {enforcement}"),
            remedy: (!by_cgroup).then(|| {
                "for limits by the kernel, let the engine use control groups of version 2, or run it with root's rights".to_owned()
            }),
        },
    ];
    findings.extend(more);
    findings
}

/// Whether the limits of what runs beside a sandbox are in force, if anything does: no watcher of ours
/// keeps them.
fn beside(sidecars: &[Beside]) -> Option<Finding> {
    let first = sidecars.first()?;
    let without: Vec<&str> = sidecars
        .iter()
        .filter(|one| one.limits_in_force == Enforcement::None)
        .map(|one| one.name.as_str())
        .collect();
    let ok = without.is_empty();
    Some(Finding {
        name: "limits of sidecars",
        ok,
        optional: true,
        detail: match ok {
            true => format!("in force: {}", first.limits_in_force),
            false => format!("in force: none, for {}", without.join(", ")),
        },
        remedy: (!ok).then(|| {
            "let the engine use control groups of version 2, or run it with root's rights: until then a sidecar may use what the machine has".to_owned()
        }),
    })
}

/// Whether what all containers use together is bounded, if that is asked for: tried with one that runs.
async fn together(backend: &Container, first: Option<u32>) -> Option<Finding> {
    let engine = backend.shared.engine().await.ok()?;
    let bound = backend.shared.bound(&engine).await?;
    let bound = match bound {
        Ok(above) if first.is_some_and(|pid| above.holds(pid)) => Ok(above),
        Ok(_) => Err("the engine puts containers elsewhere"),
        Err(ref why) => Err(why.as_str()),
    };
    Some(Finding {
        name: "limits of all",
        ok: bound.is_ok(),
        optional: true,
        detail: match &bound {
            Ok(above) if above.bounds_processors() => {
                "memory and processor time of all containers together".to_owned()
            }
            Ok(_) => "memory of all containers together, not processor time".to_owned(),
            Err(why) => format!("none: {why}"),
        },
        remedy: bound.is_err().then(|| {
            "for `total_memory` and `total_cpus` use the kind `namespace`, or an engine with root's rights that makes control groups itself (`cgroupfs`)".to_owned()
        }),
    })
}
