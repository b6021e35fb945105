//! The room `git`: mirrors, references, trees written from entries, and merges without a checkout.
//!
//! It owns the trusted bare [`Mirror`] of a repository, everything that is written into it, and the few, narrow ways
//! in which the user's repository (a [`Source`]) is read and written. It never runs in, nor reads configuration from,
//! a workspace: what an agent wrote arrives here as entries ([`TreeWriter`]), never as a directory.
//!
//! A repository that is given by a URL is fetched into a copy of our own ([`Remote`]), which takes the place of the
//! user's repository.
//!
//! The three main types: [`Source`] (the user's repository), [`Mirror`] (ours), [`TreeWriter`] (a change as data).
//!
//! Everything blocks: callers on an async runtime use a blocking thread. Everything is `Send + Sync`, or made for one
//! thread and `Send`.
//!
//! # Who reads whose configuration
//!
//! Four kinds of access, each with its own rule:
//!
//! 1. **In the mirror**: the `git` program with `--git-dir`, an empty environment, no system or user configuration,
//!    no hooks, no file system monitor, no protocol, no collection of garbage, a deadline, bounded output, in a
//!    process group that is killed as a whole. The mirror's own configuration is written by this crate alone.
//! 2. **Objects of the user's repository** are read as files, without running git there: the program runs *in the
//!    mirror* and sees the user's object directory as an alternate for the length of one call. `git upload-pack`,
//!    which would read that repository's configuration, is never started. So nothing that the repository configures
//!    (`uploadpack.*`, `core.sshCommand`, `core.fsmonitor`, includes, hooks, replace references) has any effect, and
//!    fetching works from a repository of any owner whose files can be read. Objects keep their ids: a repository
//!    whose packs lie about their content can only mislead work on itself, because a mirror serves one repository.
//! 3. **Git as the user, in the user's repository**: only for what needs the user's own settings and is theirs to
//!    ask for: [`Source::uncommitted`] (ignore rules), [`Mirror::snapshot_uncommitted`] (their clean filters;
//!    objects and index go to the mirror), [`Source::apply`] (`skep apply`: their merge, hooks and signature).
//!    The first two run with hooks and the file system monitor off and take no optional lock. Git's own rule about
//!    repositories of other owners (`safe.directory`) decides, see [`Error::NotTrusted`].
//! 4. **Reaching a URL** ([`Remote::fetch`]): git runs in the copy as in the mirror, with one protocol allowed, a few
//!    variables of the user's environment (keys, agents, proxies), and of the user's configuration `credential.*`
//!    alone. The user's `ssh` reads its own configuration.
//!
//! [`Source::publish`] and [`Source::drop_branch`] start no process at all: objects are written as new files, and the
//! one reference is moved with git's own lock files, so no hook can run.

mod apply;
mod checkout;
mod collisions;
mod commit;
mod copies;
mod diff;
mod durable;
mod entry_names;
mod error;
mod history;
#[doc(hidden)]
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod ids;
mod index_edit;
mod index_file;
mod integration;
mod layer;
mod leftovers;
mod locks;
mod mend;
mod merge;
mod merge_apart;
mod mirror;
mod objects;
mod process;
mod program;
mod publish;
mod publishing;
mod references;
mod remote;
mod snapshot;
mod source;
mod status;
mod tree_writer;

pub use apply::{Applied, ApplyMode};
pub use checkout::{BASE_BRANCH, BASE_IDENTITY};
pub use collisions::Collision;
pub use commit::{CommitInfo, NewCommit, Signature};
pub use copies::{Copied, copies};
pub use diff::{FileChange, FileKind, Patch, PathChange};
pub use error::Error;
pub use ids::{CommitId, ObjectId, TreeId};
pub use integration::{IntegrationBranch, Standing};
pub use leftovers::{Leftovers, leftovers};
pub use merge::Merged;
pub use mirror::{Entry, Mirror};
pub use program::{Cancel, Program, Version};
pub use publish::{Dropped, Published};
pub use remote::{Access, Arrived, Bounds, Protocol, Remote, Token, Want, variables};
pub use source::{Head, Source};
pub use status::{StatusEntry, StatusKind};
pub use tree_writer::{TreeWriter, Written};
