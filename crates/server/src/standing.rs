//! Sealed workspaces for people and for other programs, without an agent.
//!
//! - [`Place`] is one: a site at a commit of a repository, and commands in it.
//! - [`hold`] keeps a place for as long as it was asked for, and serves it on a socket: the life of a
//!   process of its own. [`Berth`] is that process's directory.
//! - [`Place::snapshot`], [`Place::undo`] and [`Fork`] are of its files between commands.
//! - [`Held`] is what others do with a place that a process holds; [`list`], [`find`] and [`find_whole`] have them.
//!
//! The holder's lock says that it lives. Its end, however it comes about, ends what runs in the sandbox and
//! frees the locks of directory and workspace. What is written down of the sandbox keeps its files: it is
//! stopped then, until somebody starts it again, destroys it, or its time is over.

mod berth;
mod berths;
mod error;
mod held;
mod hold;
#[cfg(feature = "fuzzing")]
pub mod hostile;
mod keeper;
mod kept;
mod moments;
mod more;
mod patches;
mod place;
mod running;
mod said;
mod serve;
mod shown;
mod talk;

pub use berth::{Alongside, Berth, MOST, Record};
pub use berths::{Damaged, Tally, sweep, tally};
pub use error::{Error, Unable};
pub use held::{Held, Lent, State, find, find_whole, list, list_all, take_whole};
pub use hold::{Of, Order, hold};
pub use keeper::Hearing;
pub use kept::{Standing, Status, Why};
pub use moments::{Fork, ForkOf, Moment, Moments};
pub use more::{Dotfiles, Given, More, Put, Script};
pub use patches::{MOST_PATCHES, keep_patch};
pub use place::{Changed, Place, Wish, fresh_id};
pub use running::{Ends, Nudge, Run, Running};
pub use said::{Said, Tail};
pub use workspace::MOST_ALSO;
