//! One entry of the host's `PATH`: what it is, what it needs, and what stands for it inside.

use std::path::{Path, PathBuf};

use super::collect::{Collector, EntryKind, entries, is_executable, text};
use super::gate::is_visible;
use super::program::{self, TOOLS, follow_links, is_prefix, parent};
use super::{name_of, node, python, rust, versions};

/// How many roots a policy can name.
const MAX_EXTRA: usize = 16;

/// The roots that the policy names: each must look like an installation.
pub(super) fn extra_roots(c: &mut Collector<'_>) {
    if c.input.extra_roots.len() > MAX_EXTRA {
        c.note(
            format!("only the first {MAX_EXTRA} toolchain roots are used"),
            "name fewer under `toolchains.roots` in skep.toml",
        );
    }
    for named in c.input.extra_roots.iter().take(MAX_EXTRA) {
        let root = match named.strip_prefix("~") {
            Ok(rest) => c.input.home.join(rest),
            Err(_) => named.clone(),
        };
        if !root.exists() {
            c.note(
                format!("{} is left out: it is not there", root.display()),
                "install it, or take it out of `toolchains.roots` in skep.toml",
            );
            continue;
        }
        let bin = root.join("bin");
        let dir = if bin.is_dir() { &bin } else { &root };
        let has_program = entries(dir)
            .iter()
            .any(|(name, kind)| *kind != EntryKind::Directory && is_executable(&dir.join(name)));
        if !has_program {
            c.note(
                format!(
                    "{} is left out: there is no program in it or in its bin directory",
                    root.display()
                ),
                "name the directory of its programs under `toolchains.roots` in skep.toml",
            );
            continue;
        }
        if is_visible(&root) || c.add(&root) {
            follow_links(c, dir, !bin.is_dir());
            c.push_path(dir);
        }
    }
}

/// One entry of the host's `PATH`.
pub(super) fn path_entry(c: &mut Collector<'_>, entry: &Path) {
    if !entry.is_absolute() {
        return;
    }
    if is_visible(entry) {
        c.push_path(entry);
        return;
    }
    let real = match entry.canonicalize() {
        Ok(real) if real.is_dir() => real,
        Ok(_) => return,
        Err(error) => {
            c.unreadable(entry, &error);
            return;
        }
    };
    if is_visible(&real) {
        c.push_path(&real);
        return;
    }
    for store in ["/nix/store", "/gnu/store"] {
        if real.starts_with(store) {
            if c.add(Path::new(store)) {
                c.push_path(&real);
            }
            return;
        }
    }
    if known(c, entry, &real) {
        return;
    }
    if c.covers(entry) {
        c.push_path(entry);
        return;
    }
    generic(c, entry, &real);
}

/// The entries that a version manager or an installer puts on a `PATH`. False when it is none.
fn known(c: &mut Collector<'_>, entry: &Path, real: &Path) -> bool {
    let root = parent(entry);
    let name = text(name_of(entry));
    if name == "shims" {
        return versions::shims(c, root);
    }
    if name == "bin" && root.join("shims").is_dir() && root.join("versions").is_dir() {
        // The version manager itself: it is of no use where nothing can be installed.
        return true;
    }
    if name == "bin" && is_rust(c, root) {
        rust::bin(c, root);
        return true;
    }
    if name == "bin" && root.join("tools/image").is_dir() {
        return versions::volta(c, root);
    }
    if root.join("Cellar").is_dir() {
        if c.add(root) {
            c.mask(&root.join("var"));
            c.mask(&root.join("etc"));
            c.push_path(entry);
        }
        return true;
    }
    if let Some(installs) = ancestor(entry, "installs").filter(|_| c.gate.in_a_home(entry)) {
        return mounted(c, &installs, 2, entry);
    }
    if let Some(candidates) =
        ancestor(entry, "candidates").filter(|it| parent(it).join("bin/sdkman-init.sh").is_file())
    {
        return mounted(c, &candidates, 2, entry);
    }
    if let Some(node) =
        ancestor(entry, "node").filter(|it| it.parent().is_some_and(|up| name_of(up) == "versions"))
    {
        return mounted(c, &node, 1, entry);
    }
    if let Some(venv) = program::venv_of(&real.join("python")) {
        if c.add(root) && c.covers(&venv) {
            for base in python::bases(&venv) {
                program::add(c, &base);
            }
            follow_links(c, real, false);
            c.set("VIRTUAL_ENV", if c.covers(root) { root } else { &venv });
            c.push_path(if c.covers(entry) { entry } else { real });
        }
        return true;
    }
    if real == home_path(c, ".local/bin") {
        if c.add(entry) {
            follow_links(c, real, true);
            c.push_path(entry);
            python::user_site(c);
        }
        return true;
    }
    node::path_entry(c, entry, real)
}

fn mounted(c: &mut Collector<'_>, root: &Path, depth: u8, entry: &Path) -> bool {
    if c.add_collection(root, depth) {
        follow_links(c, entry, false);
        c.push_path(entry);
    }
    true
}

fn home_path(c: &Collector<'_>, rest: &str) -> PathBuf {
    let path = c.input.home.join(rest);
    path.canonicalize().unwrap_or(path)
}

fn is_rust(c: &Collector<'_>, root: &Path) -> bool {
    root == c.root("CARGO_HOME", ".cargo")
        || root.join("bin/rustup").exists()
        || name_of(root) == ".cargo"
}

/// The nearest directory of this name above a path.
fn ancestor(path: &Path, name: &str) -> Option<PathBuf> {
    path.ancestors()
        .skip(1)
        .find(|it| name_of(it) == name)
        .map(Path::to_owned)
}

/// An entry that nothing knows: the prefix that it belongs to, or the directory alone.
fn generic(c: &mut Collector<'_>, entry: &Path, real: &Path) {
    let prefix = parent(real);
    let at_home = c.gate.in_a_home(real);
    let is_bin = matches!(text(name_of(real)), "bin" | "sbin" | "condabin" | "cmd");
    let whole = is_bin
        && c.gate.refusal(prefix).is_none()
        && !prefix.join(".git").exists()
        && (is_prefix(prefix)
            || (!at_home
                && ["lib", "lib64", "libexec", "share"]
                    .iter()
                    .any(|it| prefix.join(it).is_dir())));
    let root = if whole { prefix } else { real };
    if !whole && at_home && !TOOLS.iter().any(|it| real.join(it).exists()) {
        c.note(
            format!(
                "{} is left out: it holds no tool that is known here",
                entry.display()
            ),
            "to have it inside, name it under `toolchains.roots` in skep.toml",
        );
        return;
    }
    if !c.add(root) {
        return;
    }
    if entry != real && c.gate.refusal(entry).is_none() && whole {
        c.add(parent(entry));
    }
    follow_links(c, real, !whole);
    c.push_path(if c.covers(entry) { entry } else { real });
}
