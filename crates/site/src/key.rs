//! What a setup can have seen, and the key that is made of it.
//!
//! A setup sees a commit whole, or, where the policy names its inputs, those files and nothing else.
//! The second is what lets other commits use what it leaves: it cannot have read what is not there.

use crate::{error::Error, setup::Ground};
use bstr::{BStr, BString, ByteSlice};
use domain::{egress::Part, scope::Globs};
use git::{Entry, FileKind, Mirror, TreeId};
use sandbox::toolchains::Toolchains;
use sha2::{Digest, Sha256};
use std::{
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use workspace::Workspace;

/// Changes whenever a setup of the same key would not leave the same any more.
const VERSION: &str = "1";
/// The most files that a tree may have for its inputs to be looked for.
const MAX_FILES: usize = 2_000_000;
/// The most inputs, and the most bytes of all of them.
const MAX_INPUTS: usize = 20_000;
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// Files that are inputs in whatever directory they are: lock files, manifests, and what chooses
/// registries and toolchains.
const ALWAYS: [&str; 70] = [
    // Rust
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain",
    "rust-toolchain.toml",
    // JavaScript
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    ".pnpmfile.cjs",
    "yarn.lock",
    ".yarnrc",
    ".yarnrc.yml",
    "bun.lock",
    "bun.lockb",
    "bunfig.toml",
    "deno.json",
    "deno.jsonc",
    "deno.lock",
    ".npmrc",
    ".nvmrc",
    ".node-version",
    // Python
    "pyproject.toml",
    "poetry.lock",
    "poetry.toml",
    "uv.lock",
    "uv.toml",
    "pdm.lock",
    "pylock.toml",
    "Pipfile",
    "Pipfile.lock",
    "setup.cfg",
    ".python-version",
    "environment.yml",
    "conda-lock.yml",
    "pip.conf",
    // Go
    "go.mod",
    "go.sum",
    "go.work",
    "go.work.sum",
    // Java
    "pom.xml",
    "gradle.properties",
    "gradle.lockfile",
    "libs.versions.toml",
    "gradle-wrapper.properties",
    "maven-wrapper.properties",
    ".java-version",
    ".sdkmanrc",
    // Ruby
    "Gemfile",
    "Gemfile.lock",
    ".ruby-version",
    ".bundle/config",
    // PHP
    "composer.json",
    "composer.lock",
    // Others
    "mix.exs",
    "mix.lock",
    "pubspec.yaml",
    "pubspec.lock",
    "Package.swift",
    "Package.resolved",
    "packages.lock.json",
    "global.json",
    "nuget.config",
    "NuGet.Config",
    "flake.nix",
    "flake.lock",
    "conan.lock",
    "vcpkg.json",
    ".tool-versions",
    "mise.toml",
];

/// Where distributions note what they have installed, and directories that change with it.
const INSTALLED: [&str; 15] = [
    "/var/lib/dpkg/status",
    "/lib/apk/db/installed",
    "/usr/lib/apk/db/installed",
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/pacman/local",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/include",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/include",
];

/// What a setup sees of its repository.
#[derive(Debug, Clone)]
pub(crate) enum Sees {
    /// All of a commit, its history included: the key of its base.
    Commit(String),
    /// These files of it, sorted by their paths.
    Inputs(Arc<Vec<(BString, Entry)>>),
}

/// The inputs that a tree has.
pub(crate) struct Inputs {
    /// What the globs name, and those that always are, sorted.
    pub(crate) files: Vec<(BString, Entry)>,
    /// The globs that name none.
    pub(crate) unmatched: Vec<String>,
}

/// The inputs that a tree has.
///
/// # Errors
/// When there are too many, or the tree cannot be read.
pub(crate) fn inputs(mirror: &Mirror, tree: TreeId, globs: &[String]) -> Result<Inputs, Error> {
    let read =
        |globs: &[String]| Globs::new(globs).map_err(|error| Error::Inputs(error.to_string()));
    let mut unmatched = Vec::new();
    for glob in globs {
        unmatched.push((glob, read(std::slice::from_ref(glob))?));
    }
    let globs = read(globs)?;
    let mut files = mirror.files(tree, MAX_FILES)?;
    files.retain(|(path, entry)| {
        let is_file = matches!(
            entry.kind,
            FileKind::File | FileKind::Executable | FileKind::Link
        );
        is_file && (is_always(path) || globs.matches(path))
    });
    if files.len() > MAX_INPUTS {
        let many = format!("{} files, and {MAX_INPUTS} is the most", files.len());
        return Err(Error::Inputs(many));
    }
    files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (path, _) in &files {
        if unmatched.is_empty() {
            break;
        }
        unmatched.retain(|(_, globs)| !globs.matches(path));
    }
    Ok(Inputs {
        files,
        unmatched: unmatched
            .into_iter()
            .map(|(glob, _)| glob.clone())
            .collect(),
    })
}

fn is_always(path: &BString) -> bool {
    let name = path.rsplit_str("/").next().unwrap_or_default().as_bstr();
    let is_requirements = name.starts_with(b"requirements") && name.ends_with(b".txt");
    let is_constraints = name.starts_with(b"constraints") && name.ends_with(b".txt");
    is_requirements
        || is_constraints
        || ALWAYS.iter().any(|known| {
            name == known.as_bytes() || known.contains('/') && path.ends_with(known.as_bytes())
        })
}

/// Whether a path is one of the inputs.
pub(crate) fn is_among(files: &[(BString, Entry)], path: &BStr) -> bool {
    let found = files.binary_search_by(|(known, _)| known.as_bstr().cmp(path));
    found.is_ok()
}

/// Writes inputs into a workspace.
///
/// # Errors
/// When they are too large, or cannot be read or written.
pub(crate) fn lay_out(
    mirror: &Mirror,
    files: &[(BString, Entry)],
    workspace: &Workspace,
) -> Result<(), Error> {
    let mut left = MAX_INPUT_BYTES;
    for (path, entry) in files {
        let content = mirror.read_blob(entry.id, left)?;
        left = left.saturating_sub(content.len() as u64);
        let path = path.as_ref();
        match entry.kind {
            FileKind::Link => workspace.edit().link(path, content.as_slice().into())?,
            kind => workspace
                .edit()
                .write(path, kind == FileKind::Executable, &content)?,
        }
    }
    Ok(())
}

/// The key of what a setup leaves: the same where it sees the same.
pub(crate) fn key(
    kind: sandbox::Kind,
    images: Option<&str>,
    ground: &Ground<'_>,
    sees: &Sees,
) -> String {
    let mut all = Parts(Sha256::new());
    let wanted = ground.wanted;
    all.add("version", VERSION);
    all.add("sandbox", kind.to_string());
    if let Some(images) = images {
        all.add("images", images);
    }
    all.add("command", &ground.setup.command);
    let outlet = wanted.outlet.as_ref();
    let leaves = outlet.map_or_else(String::new, |outlet| outlet.terms(Part::Setup));
    all.add("egress", leaves);
    for file in wanted.include.iter() {
        all.add("include", &file.path);
        all.add("executable", [u8::from(file.executable)]);
        all.add("content", &file.content);
    }
    // A setup sees those that are written later as well, and changes neither.
    let also = wanted.also.iter().map(|one| (&one.name, one.commit));
    let beside = wanted.beside.iter().map(|one| (&one.name, one.commit));
    for (name, commit) in also.chain(beside) {
        all.add("beside", name);
        all.add("commit", commit.to_string());
    }
    toolchains(&mut all, ground.toolchains);
    match sees {
        Sees::Commit(base) => all.add("base", base),
        Sees::Inputs(files) => {
            for (path, entry) in files.iter() {
                all.add("input", path);
                all.add("kind", format!("{:?}", entry.kind));
                all.add("blob", entry.id.to_string());
            }
        }
    }
    let digest = all.0.finalize();
    let hex: String = digest
        .iter()
        .take(20)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("setup-{}-{hex}", wanted.repository)
}

/// Names and contents, so that no two lists of them are the same bytes.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, name: &str, content: impl AsRef<[u8]>) {
        for part in [name.as_bytes(), content.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }
}

/// What programs a setup finds, and in which environment. Programs are known by what their directories
/// and the system's list of packages were when they were last changed: reading them would take longer
/// than many a setup.
fn toolchains(all: &mut Parts, toolchains: &Toolchains) {
    all.add("path", toolchains.path.as_bytes());
    for (name, value) in &toolchains.env {
        all.add("variable", name.as_bytes());
        all.add("value", value.as_bytes());
    }
    for file in &toolchains.files {
        all.add("file", file.inside.as_os_str().as_bytes());
        all.add("content", &file.contents);
    }
    for mount in &toolchains.mounts {
        all.add("mount", mount.host.as_os_str().as_bytes());
        all.add("at", mount.inside.as_os_str().as_bytes());
        for masked in &mount.masked {
            all.add("masked", masked.as_os_str().as_bytes());
        }
    }
    for found in &toolchains.found {
        all.add("tool", &found.name);
        all.add("version", found.version_hint.as_deref().unwrap_or_default());
        for part in ["", "bin", "lib"] {
            stamp(all, &found.root.join(part));
        }
    }
    for directory in std::env::split_paths(&toolchains.path) {
        stamp(all, &directory);
    }
    for place in INSTALLED {
        stamp(all, &PathBuf::from(place));
    }
}

/// Adds when a file or directory was last changed.
fn stamp(all: &mut Parts, place: &Path) {
    all.add("place", place.as_os_str().as_bytes());
    if let Ok(found) = std::fs::metadata(place) {
        let stamp = [found.mtime(), found.mtime_nsec()].map(i64::to_le_bytes);
        all.add("changed", stamp.as_flattened());
        all.add("inode", found.ino().to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{ALWAYS, is_always};

    #[test]
    fn lock_files_and_manifests_are_inputs_in_whatever_directory_they_are() {
        for path in [
            "Cargo.lock",
            "a/b/package.json",
            "requirements-dev.txt",
            "x/.bundle/config",
        ] {
            assert!(is_always(&path.into()), "{path}");
        }
        for path in [
            "src/main.rs",
            "package.json.md",
            "Cargo.lock/x",
            "requirements.md",
            "config",
        ] {
            assert!(!is_always(&path.into()), "{path}");
        }
        assert_eq!(ALWAYS.iter().filter(|name| name.is_empty()).count(), 0);
    }
}
