//! A machine that fails: something is gone for a while from where a run needs it.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use super::row::{assert_killed, go_on, killed_at, stopped};
use super::scenario::Stage;
use crate::world::{DEADLINE, World};

/// What is gone, and from when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// No workspace can be made any more, from where the run is stopped.
    Workspaces(&'static str),
    /// No blob can be read any more, from where the run is stopped.
    Blobs(&'static str),
    /// A person drops the integrated work while the run is stopped here.
    Work(&'static str),
}

impl Loss {
    /// Whether what is gone comes back, so that all ends as if it had never been gone.
    pub fn is_made_good(self) -> bool {
        !matches!(self, Loss::Work(_))
    }

    /// A run that is killed at each of the earlier points, then stopped, and killed at the last
    /// point, if there is one, which the loss leads to. Afterwards all is there again.
    #[track_caller]
    pub fn strike(self, stage: &Stage, earlier: &[&str], last: Option<&str>) {
        let world = &stage.world;
        let mut args: Vec<&str> = stage.args.iter().map(String::as_str).collect();
        for point in earlier {
            let ran = killed_at(world, &args, point).finish(DEADLINE);
            assert_killed(&ran, point);
            args = vec!["resume", "--json"];
        }
        let at = match self {
            Loss::Workspaces(at) | Loss::Blobs(at) | Loss::Work(at) => at,
        };
        let points: Vec<&str> = std::iter::once(at).chain(last).collect();
        let running = killed_at(world, &args, &points.join(";"));
        if let Some(meanwhile) = &stage.meanwhile {
            meanwhile.happen(world, DEADLINE);
        }
        let running = stopped(running, at);
        let gone = self.place(world).map(|place| {
            let aside = place.with_extension("aside");
            fs::rename(&place, &aside).unwrap();
            // A file cannot be made into a directory again by who needs one.
            fs::write(&place, "").unwrap();
            (place, aside)
        });
        if gone.is_none() {
            world.skep(&["drop"]).expect_code(0);
        }
        running.signal(Signal::CONT);
        let ran = running.finish(DEADLINE);
        if let Some(last) = last {
            assert_killed(&ran, last);
        }
        if let Some((place, aside)) = gone {
            fs::remove_file(&place).unwrap();
            fs::rename(aside, place).unwrap();
        }
        go_on(world);
    }

    fn place(self, world: &World) -> Option<PathBuf> {
        match self {
            Loss::Workspaces(_) => Some(world.data().join("workspaces")),
            Loss::Blobs(_) => Some(world.data().join("blobs")),
            Loss::Work(_) => None,
        }
    }
}
