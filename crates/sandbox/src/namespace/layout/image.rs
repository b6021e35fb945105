//! A root that is an image's. Process 1 begins in it, with the host's parts below a directory of their
//! own: what is in the image appears entry by entry, and what is every sandbox's own lies beside it.

use std::path::Path;

use super::super::plan::attribute;
use super::super::wire;
use super::{FILES, Layout};
use crate::WORKSPACE_PARENT;

/// What is not taken from an image's root: what is made here, and what the engine puts into it.
const NOT_OF_ROOT: [&str; 8] = [
    ".dockerenv",
    "dev",
    "etc",
    "home",
    "proc",
    "run",
    "sys",
    "tmp",
];
/// The name of the private home.
const HOME: &str = "agent";

impl Layout {
    /// All that the image has, but homes and settings, which have their own in them.
    pub(super) fn image(&mut self) {
        let own = [
            WORKSPACE_PARENT,
            wire::OLD_ROOT,
            wire::MEETING,
            wire::BEHIND,
            wire::PROGRAM,
        ];
        let own = own.map(|path| path.trim_start_matches('/'));
        let left_out: Vec<&str> = NOT_OF_ROOT.into_iter().chain(own).collect();
        self.plan
            .spread(Path::new("/"), Path::new("/"), attribute::HOST, &left_out);
        let etc = Path::new("/etc");
        self.parents(&etc.join("passwd"));
        self.own_files(etc);
        let left_out: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        self.plan.spread(etc, etc, attribute::HOST, &left_out);
        let homes = Path::new("/home");
        self.parents(&homes.join(HOME));
        self.plan.spread(homes, homes, attribute::HOST, &[HOME]);
    }
}
