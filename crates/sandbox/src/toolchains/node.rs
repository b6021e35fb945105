//! Node and its kin: nvm, pnpm, Bun, Deno, corepack, and npm's cache.

use std::path::Path;

use super::collect::{Collector, read, text};
use super::program::{follow_links, parent};
use super::python::cache_home;
use super::{Access, env_path, name_of, versions};

/// The entries that Bun, Deno and pnpm put on a `PATH`. False when it is none.
pub(super) fn path_entry(c: &mut Collector<'_>, entry: &Path, real: &Path) -> bool {
    let root = parent(entry);
    let is_bin = name_of(entry) == "bin";
    let is_bun = is_bin && (root == c.root("BUN_INSTALL", ".bun") || text(name_of(root)) == ".bun");
    let is_deno =
        is_bin && (root == c.root("DENO_INSTALL", ".deno") || text(name_of(root)) == ".deno");
    if is_bun || is_deno {
        if c.add(entry) {
            // Packages that were installed for everyone are links into this one.
            if is_bun && root.join("install/global/node_modules").is_dir() {
                c.add(&root.join("install/global/node_modules"));
            }
            follow_links(c, real, true);
            c.push_path(entry);
        }
        return true;
    }
    if env_path(c.input, "PNPM_HOME").as_deref() == Some(entry) {
        if c.add(entry) {
            follow_links(c, real, true);
            c.push_path(entry);
        }
        return true;
    }
    false
}

/// nvm is a shell function: where the shell loads it late, no entry of the `PATH` shows it.
pub(super) fn without_path_entry(c: &mut Collector<'_>) {
    let root = c.root("NVM_DIR", ".nvm");
    let collection = root.join("versions/node");
    if c.which("node").is_some() || c.on_path(&collection) || !collection.is_dir() {
        return;
    }
    let mut wanted = "default".to_owned();
    for _ in 0..4 {
        match read(&root.join("alias").join(&wanted)) {
            Some(next) if !next.trim().is_empty() && !next.contains("..") => {
                wanted = next.trim().to_owned();
            }
            _ => break,
        }
    }
    if let Some(version) = versions::newest(&collection, &wanted)
        && c.add_collection(&collection, 1)
    {
        c.push_path(&version.join("bin"));
    }
}

/// Settings that keep installers offline, and the packages they have already.
pub(super) fn dependencies(c: &mut Collector<'_>) {
    if c.has("npm") || c.has("node") {
        c.set("npm_config_offline", "true");
        c.set("npm_config_update_notifier", "false");
        c.set("npm_config_audit", "false");
        c.set("npm_config_fund", "false");
        c.set("COREPACK_ENABLE_NETWORK", "0");
        let npm = c.inside_home(".npm");
        let cache =
            env_path(c.input, "npm_config_cache").unwrap_or_else(|| c.input.home.join(".npm"));
        c.add_at(
            &cache.join("_cacache"),
            &npm.join("_cacache"),
            Access::Layered,
        );
        c.set("npm_config_cache", npm);
        if let Some(registry) = registry(&c.input.home.join(".npmrc")) {
            c.set("npm_config_registry", registry);
        }
        let corepack = env_path(c.input, "COREPACK_HOME")
            .unwrap_or_else(|| cache_home(c).join("node/corepack"));
        let inside = c.inside_home(".cache/node/corepack");
        if c.add_at(&corepack, &inside, Access::Layered) {
            c.set("COREPACK_HOME", inside);
        }
    }
    if c.has("bun") {
        let cache = c.root("BUN_INSTALL", ".bun").join("install/cache");
        let inside = c.inside_home(".bun/install/cache");
        if c.add_at(&cache, &inside, Access::Layered) {
            c.set("BUN_INSTALL_CACHE_DIR", inside);
        }
    }
    if c.has("deno") {
        let cache = env_path(c.input, "DENO_DIR").unwrap_or_else(|| cache_home(c).join("deno"));
        let inside = c.inside_home(".cache/deno");
        c.add_at(&cache, &inside, Access::Layered);
        c.set("DENO_DIR", inside);
        c.set("DENO_NO_UPDATE_CHECK", "1");
    }
    for (name, value) in ["GEM_HOME", "GEM_PATH"].map(|it| (it, env_path(c.input, it))) {
        if let Some(root) = value.filter(|it| it.is_dir())
            && (c.covers(&root) || c.add(&root))
        {
            c.set(name, root);
        }
    }
}

/// The registry under whose name npm's cache keeps packages; never one with a password in it.
fn registry(npmrc: &Path) -> Option<String> {
    let text = read(npmrc)?;
    let value = text.lines().take(256).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "registry").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    let plain = value.starts_with("http") && !value.contains(['@', '$', '?', '#']);
    plain.then_some(value)
}
