//! From a plan to a process 1 that is ready.
//!
//! The owner is a big process and never forks: it spawns the embedded static program from memory as
//! a helper, if none waits already. That makes one clone with all namespaces and exits. The clone's
//! parent is the owner, whom it tells at once who it is: whatever becomes of the helper from there on is
//! no matter.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::ahead::{self, Waiting};
use super::cgroup::Join;
use super::filter;
use super::first::First;
use super::packet;
use super::plan::Plan;
use super::wire;
use crate::{Channel, Error, owner};

/// The static program, compiled by this crate's build script.
pub(crate) static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/skep-init"));

/// How long the inside may take to be ready, and to end.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a helper that waited may take to make what it was given the plan of. A new one is made in less.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Added to the inclination of the host's kernel to end a process when memory is short.
pub(super) const OUT_OF_MEMORY_SCORE: u32 = 300;

/// A process 1 that is ready. Dropped, everything in the sandbox is killed.
pub(crate) struct Inside {
    pub(super) socket: Option<OwnedFd>,
    pub(super) channel: Option<Channel>,
    /// Whether process 1 tells which calls are refused.
    pub(super) calls_named: bool,
    pub(crate) first: First,
}

/// Starts the inside and waits until it is ready. Blocks for some milliseconds.
pub(super) fn start(plan: &Plan, join: Option<&Join>) -> Result<Inside, Error> {
    let plan_file =
        memory_file("skep-plan", plan.bytes()).map_err(Error::io("start the sandbox"))?;
    let begin = |waiting, patience| begin(waiting, plan, plan_file.as_fd(), join, patience);
    // Root may put what it clones into groups that are another user's; what stands for the user inside
    // may not.
    let ahead = !(matches!(join, Some(Join::V2(_))) && rustix::process::geteuid().is_root());
    let make = match ahead {
        true => Waiting::make,
        false => Waiting::without_namespaces,
    };
    let fresh = || make().and_then(|made| begin(made, None));
    let mut begun = match ahead.then(ahead::take).flatten() {
        Some(waiting) => begin(waiting, Some(TAKEN_WITHIN)),
        None => fresh(),
    };
    // It was killed, as when the machine is short of memory, and nothing of the sandbox has begun.
    if let Ok(Begun::Died(helper)) = &begun {
        tracing::debug!(%helper, "a helper has made nothing, and another one is asked");
        begun = fresh();
    }
    if ahead {
        ahead::make_another();
    }
    match begun? {
        Begun::Ready(inside) => Ok(inside),
        Begun::Died(helper) => Err(died(
            format!("the sandbox's first program ({helper})"),
            helper.signal().is_some(),
        )),
    }
}

/// What became of a helper that was given its plan.
enum Begun {
    Ready(Inside),
    /// It ended without a word, and has cloned nothing.
    Died(ExitStatus),
}

fn died(who: String, killed: bool) -> Error {
    let remedy = match killed {
        true => {
            "something killed it, the kernel itself where memory is short: see that enough is free"
        }
        false => "check that the kernel is 5.12 or later",
    };
    Error::Setup {
        step: "run",
        subject: who,
        remedy: remedy.to_owned(),
        source: std::io::ErrorKind::UnexpectedEof.into(),
    }
}

/// Gives a helper its plan, and waits until the inside is ready. A helper that has made nothing within
/// `patience`, because somebody has stopped it, is killed.
fn begin(
    waiting: Waiting,
    plan: &Plan,
    plan_file: BorrowedFd<'_>,
    join: Option<&Join>,
    patience: Option<Duration>,
) -> Result<Begun, Error> {
    let Waiting { socket, mut helper } = waiting;
    // One that has ended does not hear it, and may have said why it did.
    if let Err(error) = send_plan(&socket, plan, plan_file, join) {
        tracing::debug!(%error, "the helper does not hear its plan");
    }
    if let Some(patience) = patience
        && !wait_readable(socket.as_fd(), Instant::now() + patience)?
    {
        tracing::debug!("a helper does not take its plan");
        helper.kill().map_err(Error::io("start the sandbox"))?;
    }
    let first = await_born(&socket, plan);
    // Whatever became of it, nothing is left for it to do.
    let helper = end(&mut helper)?;
    match first {
        Ok(first) => match await_ready(socket, plan, first) {
            Err(Error::Gone) => Err(died("the sandbox's first process".to_owned(), true)),
            inside => inside.map(Begun::Ready),
        },
        Err(Error::Gone) => Ok(Begun::Died(helper)),
        Err(error) => Err(error),
    }
}

/// Kills a program of ours that has nothing left to do, and waits until it has ended.
pub(super) fn end(child: &mut Child) -> Result<ExitStatus, Error> {
    child.kill().map_err(Error::io("end the sandbox"))?;
    reap(child)
}

/// Waits for the end of a program of ours that is about to end, within bounds. May be called again.
pub(super) fn reap(child: &mut Child) -> Result<ExitStatus, Error> {
    let failed = || Error::io("end the sandbox");
    if let Some(status) = child.try_wait().map_err(failed())? {
        return Ok(status);
    }
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(child),
        rustix::process::PidfdFlags::empty(),
    )
    .map_err(|error| failed()(error.into()))?;
    if wait_readable(pidfd.as_fd(), Instant::now() + GONE_WITHIN)? {
        return child.wait().map_err(failed());
    }
    Err(Error::Silent {
        seconds: GONE_WITHIN.as_secs(),
        doing: "ending",
    })
}

pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| Error::io("start the sandbox")(error.into()))
}

/// Starts the static program outside, with `theirs` to hear its task from.
pub(super) fn spawn(theirs: OwnedFd) -> Result<Child, Error> {
    let program = program()?;
    Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::Setup {
            step: "execute",
            subject: "the sandbox's first program".to_owned(),
            remedy: "allow executing from memory (sysctl vm.memfd_noexec=0) or from the temporary directory".to_owned(),
            source,
        })
}

/// The helper of the kind `host`: our program without any namespace, an ordinary process that starts
/// commands and ends them when this process does, however that comes about.
pub(crate) struct Helper {
    child: Child,
}

impl Helper {
    /// Starts it, and waits until it is ready. Blocks for a millisecond or two.
    pub(crate) fn start() -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) = socket_pair()?;
        let words = [wire::UNSEALED, OUT_OF_MEMORY_SCORE];
        packet::send(&ours, &words, &[], SendFlags::empty())
            .map_err(Error::io("start the sandbox"))?;
        let helper = Self {
            child: spawn(theirs)?,
        };
        if !wait_readable(ours.as_fd(), Instant::now() + READY_WITHIN)? {
            return Err(Error::Silent {
                seconds: READY_WITHIN.as_secs(),
                doing: "starting",
            });
        }
        let packet = packet::receive(&ours, RecvFlags::empty())
            .map_err(Error::io("hear from the sandbox"))?;
        match packet.map(|packet| packet.words) {
            Some([wire::READY, ..]) => Ok((helper, ours)),
            _ => Err(Error::Setup {
                step: "run",
                subject: "the sandbox's first program".to_owned(),
                remedy: "check that the kernel is 5.12 or later".to_owned(),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended what it started, and itself, because the conversation has ended. May
    /// be called again.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        reap(&mut self.child).map(drop)
    }
}

/// Has the first process of a container serve that, and waits until it does. Blocks.
pub(crate) fn serve_beside(socket: &OwnedFd) -> Result<(), Error> {
    let starting = || Error::io("start the container");
    let filters = filter::filters(false);
    let both = [filters.asking.as_slice(), &filters.plain].concat();
    let [bytes, asking] = [&both, &filters.asking].map(|it| u32::try_from(it.len()));
    let (bytes, asking) = (bytes.unwrap_or(u32::MAX), asking.unwrap_or(u32::MAX));
    let file = memory_file("skep-filter", &both).map_err(starting())?;
    let words = [wire::BESIDE, OUT_OF_MEMORY_SCORE, bytes, asking];
    packet::send(socket, &words, &[file.as_fd()], SendFlags::empty()).map_err(starting())?;
    if !wait_readable(socket.as_fd(), Instant::now() + READY_WITHIN)? {
        return Err(Error::Silent {
            seconds: READY_WITHIN.as_secs(),
            doing: "starting",
        });
    }
    let packet = packet::receive(socket, RecvFlags::empty())
        .map_err(Error::io("hear from the container"))?;
    match packet.map(|packet| packet.words) {
        Some([wire::READY, ..]) => Ok(()),
        _ => Err(Error::Gone),
    }
}

pub(crate) fn send_plan(
    ours: &OwnedFd,
    plan: &Plan,
    plan_file: BorrowedFd<'_>,
    join: Option<&Join>,
) -> std::io::Result<()> {
    let mut descriptors = vec![plan_file];
    let (v1, v2) = match join {
        None => (0, 0),
        Some(Join::V1(files)) => {
            descriptors.extend(files.iter().map(OwnedFd::as_fd));
            (files.len(), 0)
        }
        Some(Join::V2(directory)) => {
            descriptors.push(directory.as_fd());
            (0, 1)
        }
    };
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let words = [
        wire::PLAN,
        number(v1),
        v2,
        OUT_OF_MEMORY_SCORE,
        number(plan.bytes().len()),
    ];
    packet::send(ours, &words, &descriptors, SendFlags::empty())
}

/// Hears who the first process of an inside is.
pub(crate) fn await_born(socket: &OwnedFd, plan: &Plan) -> Result<First, Error> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let packet = hear(socket, plan, deadline)?;
        if let ([wire::BORN, ..], Some(pidfd)) = (packet.words, packet.descriptor) {
            let pid = owner::number_here(&pidfd).unwrap_or(0);
            return Ok(First::new(pid, pidfd));
        }
    }
}

/// Waits until an inside is ready.
pub(crate) fn await_ready(socket: OwnedFd, plan: &Plan, first: First) -> Result<Inside, Error> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let packet = hear(&socket, plan, deadline)?;
        if let [wire::READY, port, told, ..] = packet.words {
            let port = u16::try_from(port).unwrap_or(0);
            let channel = packet.descriptor.map(|fd| Channel {
                listener: TcpListener::from(fd),
                port,
                guard: None,
            });
            return Ok(Inside {
                socket: Some(socket),
                channel,
                calls_named: told != 0,
                first,
            });
        }
    }
}

/// The next message of what sets an inside up, unless it says what failed.
fn hear(socket: &OwnedFd, plan: &Plan, deadline: Instant) -> Result<packet::Packet, Error> {
    if !wait_readable(socket.as_fd(), deadline)? {
        return Err(Error::Silent {
            seconds: READY_WITHIN.as_secs(),
            doing: "starting",
        });
    }
    let packet = match packet::receive(socket, RecvFlags::empty()) {
        // It was killed before it heard its plan.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        other => other.map_err(Error::io("hear from the sandbox"))?,
    };
    let packet = packet.ok_or(Error::Gone)?;
    match packet.words {
        [wire::FAILED, stage, errno, step, ..] => Err(explain(plan, stage, errno, step)),
        _ => Ok(packet),
    }
}

/// Waits until `fd` has something to read or its other end is gone; false if time runs out.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> Result<bool, Error> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = rustix::event::Timespec::try_from(left).ok();
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], time.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("wait for the sandbox")(error.into())),
        }
    }
}

/// The embedded program in a sealed file in memory, made once.
fn program() -> Result<BorrowedFd<'static>, Error> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(file) = FILE.get() {
        return Ok(file.as_fd());
    }
    let file = sealed_program().or_else(|error| {
        tracing::debug!(%error, "no program can be executed from memory; a private file is used");
        private_program()
    });
    let file = file.map_err(Error::io("prepare the sandbox's first program"))?;
    Ok(FILE.get_or_init(|| file).as_fd())
}

fn sealed_program() -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag and need none.
    let file = match rustix::fs::memfd_create("skep-init", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("skep-init", flags),
        other => other,
    }?;
    let mut file = std::fs::File::from(file);
    file.write_all(PROGRAM)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Where the kernel forbids executing from memory: a file without a name, opened for reading.
fn private_program() -> std::io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::XUSR)?;
    let mut file = std::fs::File::from(file);
    file.write_all(PROGRAM)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let reader = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(reader)
}

/// A file in memory with `content`, from which it can be mapped.
pub(crate) fn memory_file(name: &str, content: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}

/// Says what failed inside, and what a person can do about it.
fn explain(plan: &Plan, stage: u32, errno: u32, step: u32) -> Error {
    let source = std::io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
    match stage {
        wire::STAGE_CLONE => Error::NamespacesRefused {
            what: "new namespaces".to_owned(),
            remedy: namespaces_remedy(),
            source,
        },
        wire::STAGE_IDS => Error::NamespacesRefused {
            what: "to map a user into a new namespace".to_owned(),
            remedy: namespaces_remedy(),
            source,
        },
        wire::STAGE_ROOT => Error::NamespacesRefused {
            what: "mounts in a new namespace".to_owned(),
            remedy: namespaces_remedy(),
            source,
        },
        wire::STAGE_CGROUP => Error::Setup {
            step: "join",
            subject: "the sandbox's control group".to_owned(),
            remedy: "check the rights on the control groups of this user".to_owned(),
            source,
        },
        wire::STAGE_STEP => match plan.step(step) {
            Some(step) if step.code == wire::STEP_OVERLAY => overlay_refused(source),
            Some(step) => Error::Setup {
                step: step.what,
                subject: step.subject.clone(),
                remedy: step_remedy(step.code).to_owned(),
                source,
            },
            None => Error::Io {
                doing: "carry out the plan of the sandbox",
                source,
            },
        },
        _ => Error::Io {
            doing: "seal the sandbox",
            source,
        },
    }
}

pub(super) fn overlay_refused(source: std::io::Error) -> Error {
    Error::OverlayRefused {
        remedy: "overlays in a user namespace need Linux 5.11 and a file system with extended attributes (ext4, xfs, btrfs, tmpfs) that is not itself an overlay; otherwise use a plain copy of the files".to_owned(),
        source,
    }
}

/// What a container must be given so that there can be sandboxes in it.
const UNMASK: &str = "inside a container, run it with an unmasked /proc (Podman: `--security-opt=unmask=ALL`; Docker: `--security-opt=systempaths=unconfined`)";

fn step_remedy(code: u32) -> &'static str {
    match code {
        wire::STEP_PROC => UNMASK,
        wire::STEP_BIND | wire::STEP_STASH => {
            "check that the path exists and that you may read it; Linux 5.12 or later is needed"
        }
        wire::STEP_SPREAD => {
            "an image has ordinary directories at `/`, `/etc` and `/home`, with at most 4,096 entries each"
        }
        wire::STEP_ATTACH => "its parent must be there or in a place that can be written inside",
        wire::STEP_SECCOMP => "the kernel must have CONFIG_SECCOMP_FILTER",
        wire::STEP_LISTEN => "choose another port, or 0",
        _ => "see `skep doctor`",
    }
}

/// Which setting of this machine forbids namespaces, as far as can be seen.
pub(super) fn namespaces_remedy() -> String {
    let setting = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let mut remedies = Vec::new();
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        remedies.push("set the sysctl kernel.unprivileged_userns_clone=1");
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        remedies.push(
            "give skep an AppArmor profile with `userns,`, or set the sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        );
    }
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        remedies.push("set the sysctl user.max_user_namespaces to some thousands");
    }
    if remedies.is_empty() {
        remedies.push(
            "allow user namespaces to this user (inside a container its engine's seccomp or AppArmor profile forbids them), or name the sandbox kind `host`",
        );
    }
    remedies.join("; ")
}
