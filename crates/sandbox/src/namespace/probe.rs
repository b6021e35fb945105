//! Tries for real what the `namespace` kind needs, for `skep doctor`.

use std::path::Path;

use super::scratch::Scratch;
use super::{Namespace, landlock, start};
use crate::{
    Backend, Command, Enforcement, Error, Finding, OVERLAY, Spec, Workspace, exec_captured,
};

const OUTPUT: usize = 4096;

pub(super) async fn probe(backend: &Namespace, place: &Path) -> Vec<Finding> {
    let mut findings = vec![
        user_namespaces(backend, place).await,
        overlay(backend, place).await,
    ];
    findings.push(landlock());
    findings.push(seccomp());
    findings.push(limits(backend, place).await);
    findings
}

pub(crate) fn landlock() -> Finding {
    let abi = landlock::abi();
    Finding {
        name: "Landlock",
        ok: abi.is_some(),
        optional: true,
        detail: abi.map_or("not there".to_owned(), |abi| format!("version {abi} of its interface")),
        remedy: abi.is_none().then(|| {
            "boot a kernel (5.13 or later) with `landlock` among lsm=; without it read-only mounts alone keep writes inside".to_owned()
        }),
    }
}

pub(crate) fn seccomp() -> Finding {
    let seccomp = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let filters = seccomp
        .as_ref()
        .is_ok_and(|actions| actions.contains("errno"));
    Finding {
        name: "seccomp filters",
        ok: filters,
        optional: false,
        detail: if filters {
            "system calls can be filtered"
        } else {
            "not there"
        }
        .to_owned(),
        remedy: (!filters).then(|| "boot a kernel with CONFIG_SECCOMP_FILTER".to_owned()),
    }
}

pub(crate) fn failed(name: &'static str, optional: bool, error: &Error) -> Finding {
    let remedy = match error {
        Error::NamespacesRefused { remedy, .. }
        | Error::OverlayRefused { remedy, .. }
        | Error::Setup { remedy, .. } => remedy.clone(),
        Error::ImageMissing { program, image, .. } => format!("`{program} pull {image}`"),
        Error::Sidecars(all) => {
            let first = all.first().map(|one| one.trouble);
            let trouble = first.unwrap_or(crate::Trouble::SidecarNotReady);
            trouble.remedy_beside().to_owned()
        }
        Error::Engine { trouble, .. } => trouble.remedy().to_owned(),
        _ => start::namespaces_remedy(),
    };
    let cause = std::error::Error::source(error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    let said = error.to_string();
    // The remedy has a place of its own, and is said once.
    let said = said.strip_suffix(&format!("; {remedy}")).unwrap_or(&said);
    Finding {
        name,
        ok: false,
        optional,
        detail: format!("{said}{cause}"),
        remedy: Some(remedy),
    }
}

pub(crate) fn io(error: std::io::Error) -> Error {
    Error::Io {
        doing: "make a directory for the probe",
        source: error,
    }
}

async fn user_namespaces(backend: &Namespace, place: &Path) -> Finding {
    let name = "user namespaces";
    let tried = async {
        let scratch = Scratch::new(place).map_err(io)?;
        let spec = Spec::new(Workspace::Directory(
            scratch.directory("plain").map_err(io)?,
        ));
        let sandbox = backend.create(spec).await?;
        let command = Command::new(["/bin/sh", "-c", "id -u"], sandbox.workspace());
        let output = exec_captured(sandbox.as_ref(), command, OUTPUT).await?;
        sandbox.destroy().await?;
        Ok::<_, Error>(output)
    };
    match tried.await {
        Ok(output) => Finding {
            name,
            ok: output.exit.success(),
            optional: false,
            detail: match output.exit.success() {
                true => {
                    "a command runs in user, mount, pid, ipc, uts, network and cgroup namespaces"
                        .to_owned()
                }
                false => format!(
                    "a command inside ends with {}: {}",
                    output.exit,
                    output.stderr.text()
                ),
            },
            remedy: (!output.exit.success()).then(|| "check that /bin/sh runs".to_owned()),
        },
        Err(error) => failed(name, false, &error),
    }
}

pub(crate) async fn overlay(backend: &dyn Backend, place: &Path) -> Finding {
    let name = OVERLAY;
    let tried = async {
        let scratch = Scratch::new(place).map_err(io)?;
        let [lower, upper, work] = [
            scratch.directory("lower"),
            scratch.directory("upper"),
            scratch.directory("work"),
        ];
        let (lower, upper, work) = (lower.map_err(io)?, upper.map_err(io)?, work.map_err(io)?);
        std::fs::write(lower.join("file"), "below").map_err(io)?;
        let workspace = Workspace::Overlay {
            lowers: vec![lower.clone()],
            upper: upper.clone(),
            work,
            volatile: true,
        };
        let sandbox = backend.create(Spec::new(workspace)).await?;
        let command = Command::new(["/bin/sh", "-c", "echo above > file"], sandbox.workspace());
        let output = exec_captured(sandbox.as_ref(), command, OUTPUT).await?;
        sandbox.destroy().await?;
        let kept = std::fs::read_to_string(lower.join("file")).is_ok_and(|text| text == "below");
        let written =
            std::fs::read_to_string(upper.join("file")).is_ok_and(|text| text == "above\n");
        Ok::<_, Error>(output.exit.success() && kept && written)
    };
    match tried.await {
        Ok(ok) => Finding {
            name,
            ok,
            optional: true,
            detail: if ok {
                "writes land in the upper layer"
            } else {
                "writes do not land in the upper layer"
            }
            .to_owned(),
            remedy: (!ok).then(|| "workspaces are plain copies instead".to_owned()),
        },
        Err(error) => failed(name, true, &error),
    }
}

async fn limits(backend: &Namespace, place: &Path) -> Finding {
    let name = "limits";
    let tried = async {
        let scratch = Scratch::new(place).map_err(io)?;
        let mut spec = Spec::new(Workspace::Directory(
            scratch.directory("plain").map_err(io)?,
        ));
        spec.limits.memory_bytes = Some(256 << 20);
        let sandbox = backend.create(spec).await?;
        let enforcement = sandbox.diagnose().await.limits_in_force;
        sandbox.destroy().await?;
        Ok::<_, Error>(enforcement)
    };
    match tried.await {
        Ok(enforcement) => {
            let by_cgroup = matches!(enforcement, Enforcement::CgroupV1 | Enforcement::CgroupV2);
            Finding {
                name,
                ok: by_cgroup,
                optional: true,
                detail: match (by_cgroup, backend.bounds_processors()) {
                    (true, true) => format!("in force: {enforcement}, of processor time too"),
                    (true, false) => format!("in force: {enforcement}, not of processor time"),
                    (false, _) => format!("in force: {enforcement}"),
                },
                remedy: (!by_cgroup).then(|| {
                    "for limits by the kernel, start skep where control groups are delegated: `systemd-run --user --scope -p Delegate=yes skep …`".to_owned()
                }),
            }
        }
        Err(error) => failed(name, true, &error),
    }
}
