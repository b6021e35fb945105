//! The directories that make up a workspace.

use std::path::{Path, PathBuf};

use super::places::Places;
use crate::namespace::plan::Plan;
use crate::{Error, Workspace};

/// The directories of an overlay, without links.
pub(super) struct Found {
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

pub(super) fn find(
    places: &mut Places,
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
) -> Result<Found, Error> {
    if lowers.is_empty() {
        return Err(Error::Spec {
            what: "its workspace has no lower layer".to_owned(),
        });
    }
    let lowers = lowers
        .iter()
        .map(|lower| places.real("the workspace's layer", lower))
        .collect::<Result<Vec<_>, _>>()?;
    let upper = places.real("the workspace's upper layer", upper)?;
    let work = places.real("the overlay's own directory", work)?;
    // What an earlier mount left there would make the kernel refuse, and not say why.
    if std::fs::read_dir(&work).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::Spec {
            what: format!(
                "the overlay's own directory {} is not empty",
                work.display()
            ),
        });
    }
    Ok(Found {
        lowers,
        upper,
        work,
    })
}

/// The plan of the helper that puts other layers in the place of each workspace.
pub(crate) fn switch(workspaces: &[Workspace], targets: &[PathBuf]) -> Result<Plan, Error> {
    if workspaces.len() != targets.len() {
        return Err(Error::Spec {
            what: format!(
                "it has {} workspaces, and there are layers for {}",
                targets.len(),
                workspaces.len()
            ),
        });
    }
    let mut plan = Plan::default();
    plan.begin_switch(targets.len());
    for (workspace, target) in workspaces.iter().zip(targets) {
        add_switch(&mut plan, workspace, target)?;
    }
    Ok(plan)
}

fn add_switch(plan: &mut Plan, workspace: &Workspace, target: &Path) -> Result<(), Error> {
    let Workspace::Overlay {
        lowers,
        upper,
        work,
        volatile,
    } = workspace
    else {
        return Err(Error::Spec {
            what: "layers can only give way to layers, and the workspace is a directory".to_owned(),
        });
    };
    let found = find(&mut Places::default(), lowers, upper, work)?;
    plan.switch(target, &found.upper, &found.work, &found.lowers, *volatile);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_beside_each_other_and_behind_links() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let layers = root.join("layers");
        for name in ["one", "two", "upper", "work"] {
            std::fs::create_dir_all(layers.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("two", layers.join("link")).unwrap();
        std::os::unix::fs::symlink("layers", root.join("way")).unwrap();
        let way = root.join("way");
        let lowers = ["one", "link", "two"].map(|name| way.join(name));
        let mut places = Places::default();
        let mut find = |lowers: &[PathBuf]| {
            let (upper, work) = (way.join("upper"), way.join("work"));
            find(&mut places, lowers, &upper, &work)
        };
        let found = find(&lowers).unwrap();
        let expected = ["one", "two", "two"].map(|name| layers.join(name));
        assert_eq!(found.lowers, expected);
        let gone = find(&[way.join("gone")]);
        assert!(matches!(gone, Err(Error::Setup { .. })));
    }
}
