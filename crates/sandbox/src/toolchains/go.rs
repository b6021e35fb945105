//! Go's module cache, read-only, and a build cache of the sandbox's own.

use super::collect::{Collector, entries};
use super::program::variable_root;
use super::{Access, env_path};

/// The modules that Go can use offline.
pub(super) fn dependencies(c: &mut Collector<'_>) {
    if !c.has("go") {
        return;
    }
    if env_path(c.input, "GOROOT").is_some_and(|it| it.join("bin/go").exists()) {
        variable_root(c, "GOROOT");
    }
    let gopath = match (c.input.env)("GOPATH") {
        Some(list) => std::env::split_paths(&list).find(|it| it.is_absolute()),
        None => None,
    }
    .unwrap_or_else(|| c.input.home.join("go"));
    let modules = env_path(c.input, "GOMODCACHE").unwrap_or_else(|| gopath.join("pkg/mod"));
    c.set("GOPATH", c.inside_home("go"));
    c.set("GOPROXY", "off");
    c.set("GOSUMDB", "off");
    // Go writes locks into its module cache, and unpacks there what is only downloaded.
    let inside = c.inside_home("go/pkg/mod");
    c.add_at(&modules, &inside, Access::Layered);
    let has_other_toolchains = entries(&modules.join("golang.org"))
        .iter()
        .any(|(name, _)| name.as_encoded_bytes().starts_with(b"toolchain@"));
    // A newer Go that a module asks for can only come from the cache.
    c.set(
        "GOTOOLCHAIN",
        if has_other_toolchains {
            "auto"
        } else {
            "local"
        },
    );
}
