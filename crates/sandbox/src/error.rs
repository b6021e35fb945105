//! What can go wrong between the owner and its sandbox.

use std::path::PathBuf;

/// A failure to create a sandbox, or to run something in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses new namespaces to this user.
    #[error("cannot make a sandbox: the kernel refuses {what}; {remedy}")]
    NamespacesRefused {
        /// What was refused.
        what: String,
        /// What the person can do about it.
        remedy: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// An overlay cannot be mounted inside a user namespace here.
    #[error("cannot mount the workspace as an overlay: {remedy}")]
    OverlayRefused {
        /// What the person can do about it.
        remedy: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The engine of containers is missing, does not answer, or refuses.
    #[error("cannot make a container: {what}; {}", trouble.remedy())]
    Engine {
        /// The class, which has the remedy.
        trouble: crate::Trouble,
        /// What was seen.
        what: String,
    },
    /// The engine of containers does not have the image.
    #[error(
        "cannot make a container: {engine} has no image {image}; get it with `{program} pull {image}`: nothing is downloaded for a job"
    )]
    ImageMissing {
        /// Its name and version.
        engine: String,
        /// The image, as it was asked for.
        image: String,
        /// The engine's own program.
        program: &'static str,
    },
    /// Containers beside the sandbox's are not ready.
    #[error("{}", told(.0))]
    Sidecars(Vec<Unready>),
    /// A step of the set-up inside failed.
    #[error("cannot set up the sandbox: {step} {subject}; {remedy}")]
    Setup {
        /// The step, in plain words.
        step: &'static str,
        /// The path or name that it was about.
        subject: String,
        /// What the person can do about it.
        remedy: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The specification cannot be met by this kind of sandbox.
    #[error("cannot make a sandbox: {what}")]
    Spec {
        /// What is wrong with it and what is allowed.
        what: String,
    },
    /// A device that was asked for cannot be given.
    #[error("cannot make a sandbox: {0}")]
    Device(#[from] crate::devices::Error),
    /// The program that was asked for does not exist inside.
    #[error("the program {} is not in the sandbox; check its name, PATH, and the toolchains that are mounted", program.display())]
    NotFound {
        /// The first word of the command.
        program: PathBuf,
    },
    /// The command's working directory cannot be entered.
    #[error("the working directory {} cannot be entered inside the sandbox", dir.display())]
    WorkingDirectory {
        /// The directory, as seen inside.
        dir: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The program exists and could not be started.
    #[error("the program {} cannot be started inside the sandbox", program.display())]
    CannotStart {
        /// The first word of the command.
        program: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// No terminal can be made inside.
    #[error("the sandbox has no terminal to give; run the command without one")]
    NoTerminal {
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// No further process may be started: the sandbox's limit is reached.
    #[error("the sandbox has reached its limit of processes; stop some, or raise the limit")]
    TooManyProcesses,
    /// The command has no words, a word with a zero byte, or is too large.
    #[error("the command cannot be passed to the sandbox: {what}")]
    InvalidCommand {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Nothing inside takes connections there.
    #[error(
        "nothing listens on port {port} of the sandbox; start its server inside, on 127.0.0.1, [::1] or all addresses"
    )]
    NobodyListens {
        /// The port.
        port: u16,
    },
    /// Something is there and takes no connection.
    #[error("no connection to port {port} of the sandbox can be made; look at what listens there")]
    NotConnected {
        /// The port.
        port: u16,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// There are as many connections to it as may be.
    #[error(
        "there are {} connections to the sandbox already, which is as many as it takes at once; close some",
        crate::MOST_CONNECTIONS
    )]
    TooManyConnections,
    /// The sandbox ended while something was still asked of it.
    #[error("the sandbox has ended")]
    Gone,
    /// A limit struck, and nothing runs in the sandbox any more.
    #[error("nothing runs in the sandbox any more: its {limit} was reached")]
    Struck {
        /// Which.
        limit: crate::Limit,
    },
    /// Something still runs where nothing may.
    #[error(
        "the workspace's layers cannot be changed while anything runs in the sandbox (processes: {processes}); end that first"
    )]
    Busy {
        /// How many commands, or processes that a command left running.
        processes: usize,
    },
    /// This sandbox cannot change its workspace's layers.
    #[error("the workspace's layers cannot be changed in a sandbox of the kind {kind}: {why}")]
    CannotSwitch {
        /// Its kind.
        kind: crate::Kind,
        /// Why not.
        why: &'static str,
    },
    /// Something inside cannot be copied, or nothing can be copied to there.
    #[error("cannot {doing} {path:?} in the sandbox")]
    Carry {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The path, as seen inside.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// What copies inside was ended.
    #[error("the copy was ended in the sandbox: {exit}")]
    CarryEnded {
        /// How.
        exit: crate::Exit,
    },
    /// What was to be copied cannot be read or written outside.
    #[error(transparent)]
    Archive(#[from] crate::archive::Error),
    /// The sandbox did not answer in time.
    #[error(
        "the sandbox did not answer within {seconds} seconds while {doing}; destroy it and create a new one"
    )]
    Silent {
        /// How long was waited.
        seconds: u64,
        /// What was being done.
        doing: &'static str,
    },
    /// A system call on the trusted side failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// A container beside a sandbox's that does not become ready.
#[derive(Debug)]
pub struct Unready {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// What was waited for, or went wrong.
    pub what: String,
    /// Whether it still runs, or how its command ended.
    pub state: String,
    /// The class of what went wrong: [`crate::Trouble::remedy_beside`] says what to do.
    pub trouble: crate::Trouble,
    /// Its last lines, at most 50, without the values of its variables.
    pub output: Vec<String>,
}

impl std::fmt::Display for Unready {
    /// In one line, without what it printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            image,
            what,
            state,
            ..
        } = self;
        let remedy = self.trouble.remedy_beside();
        let printed = match self.output.as_slice() {
            [] => "; it has printed nothing",
            // Its lines follow below.
            _ => "",
        };
        write!(
            f,
            "the sidecar {name} ({image}) is not ready: {what}; it is {state}; {remedy}{printed}"
        )
    }
}

/// All of them. What a line belongs to stands above it, further to the left.
fn told(all: &[Unready]) -> String {
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    let (mut text, indent) = match all {
        [one] => (one.to_string(), "  "),
        _ => {
            let (count, names) = (names.len(), names.join(", "));
            (format!("{count} sidecars are not ready: {names}"), "    ")
        }
    };
    for one in all {
        if all.len() > 1 {
            text.push_str(&format!("\n  {one}"));
        }
        for line in &one.output {
            text.push_str(&format!("\n{indent}{line}"));
        }
    }
    text
}

impl Error {
    /// What keeps an engine of containers from making one.
    pub(crate) fn engine(trouble: crate::Trouble, what: String) -> Self {
        Self::Engine { trouble, what }
    }

    /// One container beside a sandbox's is not ready.
    pub(crate) fn of_sidecar(unready: Unready) -> Self {
        Self::Sidecars(vec![unready])
    }

    /// All that failed at once of containers beside a sandbox's. What is no single one's trouble, such
    /// as an engine that does not answer, explains the rest.
    pub(crate) fn of_sidecars(failed: Vec<Self>) -> Self {
        let mut all = Vec::new();
        for error in failed {
            match error {
                Self::Sidecars(some) => all.extend(some),
                other => return other,
            }
        }
        Self::Sidecars(all)
    }

    /// Wraps an answer of the kernel with what was being done, as an infinitive.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
