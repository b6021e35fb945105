//! Other layers in the place of a workspace, while its sandbox lives.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};

use super::plan::Plan;
use super::{packet, start, wire};
use crate::Error;

/// How long the helper may take.
const WITHIN: Duration = Duration::from_secs(20);

/// What became of a switch that was not carried out.
pub(super) enum Failed {
    /// The workspace is as it was.
    Unchanged(Error),
    /// Nobody knows which layers the workspace has: the sandbox must end.
    Unknown(Error),
}

/// Has the helper carry out the plan in the mount namespace `inside`. Blocks for some milliseconds.
pub(super) fn switch(plan: &Plan, inside: &OwnedFd) -> Result<(), Failed> {
    let failed = |source: std::io::Error| {
        Failed::Unchanged(Error::Io {
            doing: "change the workspace's layers",
            source,
        })
    };
    let file = start::memory_file("skep-layers", plan.bytes()).map_err(failed)?;
    let (ours, theirs) = start::socket_pair().map_err(Failed::Unchanged)?;
    let bytes = u32::try_from(plan.bytes().len()).unwrap_or(u32::MAX);
    let descriptors = [file.as_fd(), inside.as_fd()];
    packet::send(
        &ours,
        &[wire::SWITCH, bytes],
        &descriptors,
        SendFlags::empty(),
    )
    .map_err(failed)?;
    let mut helper = start::spawn(theirs).map_err(Failed::Unchanged)?;
    let told = hear(&ours);
    if matches!(told, Err(Failed::Unknown(_)))
        && let Err(error) = helper.kill()
    {
        tracing::debug!(%error, "the helper has ended already");
    }
    if let Err(error) = helper.wait() {
        tracing::warn!(%error, "the end of a helper was not heard of");
    }
    told
}

/// The helper's one message.
fn hear(socket: &OwnedFd) -> Result<(), Failed> {
    let silent = Error::Silent {
        seconds: WITHIN.as_secs(),
        doing: "changing the workspace's layers",
    };
    match start::wait_readable(socket.as_fd(), Instant::now() + WITHIN) {
        Ok(true) => {}
        Ok(false) => return Err(Failed::Unknown(silent)),
        Err(error) => return Err(Failed::Unknown(error)),
    }
    let packet = packet::receive(socket, RecvFlags::empty())
        .map_err(|error| Failed::Unknown(Error::io("hear from the helper")(error)))?;
    let Some(packet) = packet else {
        return Err(Failed::Unknown(Error::Gone));
    };
    match packet.words {
        [wire::SWITCHED, ..] => Ok(()),
        [wire::FAILED, stage, errno, ..] => {
            let source = std::io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
            Err(match stage {
                wire::STAGE_LAYERS => Failed::Unchanged(start::overlay_refused(source)),
                wire::STAGE_ENTER => Failed::Unchanged(Error::Io {
                    doing: "enter the sandbox from outside",
                    source,
                }),
                wire::STAGE_PLACE => Failed::Unchanged(Error::Io {
                    doing: "put the workspace's new layers in place",
                    source,
                }),
                _ => Failed::Unknown(Error::Io {
                    doing: "put the workspace's new layers in place",
                    source,
                }),
            })
        }
        _ => Err(Failed::Unknown(Error::Gone)),
    }
}
