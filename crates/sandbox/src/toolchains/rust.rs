//! rustup, cargo, and the crates that cargo has already.
//!
//! rustup's programs in `~/.cargo/bin` are one binary that looks into `RUSTUP_HOME`, which may be
//! read-only. Cargo wants a home that it can write (locks, its record of last use), may read
//! `registry/index` and `registry/cache` from a read-only mount, and fails when it has to unpack
//! a crate into a read-only `registry/src`: that one gets a private layer on top. All of it seen
//! with cargo 1.95.

use std::path::Path;

use super::Access;
use super::collect::{Collector, EntryKind, entries, is_executable, read};
use super::program::{follow_links, version_hint};

/// `~/.cargo/bin`, whichever way it is spelled.
pub(super) fn bin(c: &mut Collector<'_>, cargo_home: &Path) {
    let bin = cargo_home.join("bin");
    if !c.add(&bin) {
        return;
    }
    if bin.join("rustup").exists() {
        rustup(c);
    }
    follow_links(c, &bin, false);
    c.push_path(&bin);
}

fn rustup(c: &mut Collector<'_>) {
    let home = c.root("RUSTUP_HOME", ".rustup");
    let toolchains = home.join("toolchains");
    if !c.add_collection(&toolchains, 0) {
        c.note(
            format!("rustup is there, but {} is not", toolchains.display()),
            "install a toolchain with `rustup toolchain install stable`",
        );
        return;
    }
    for (name, kind) in entries(&toolchains) {
        if kind != EntryKind::Link {
            continue;
        }
        let Ok(real) = toolchains.join(&name).canonicalize() else {
            continue;
        };
        // A toolchain that was linked from elsewhere.
        if !c.covers(&real) && is_executable(&real.join("bin/rustc")) {
            c.add(&real);
        }
    }
    let settings = home.join("settings.toml");
    c.add(&settings);
    c.set("RUSTUP_HOME", &home);
    // Nothing can be fetched; without this rustup would try, and wait.
    c.set("RUSTUP_AUTO_INSTALL", "0");
    let default = read(&settings).and_then(|it| {
        it.lines()
            .find_map(|line| line.strip_prefix("default_toolchain = "))
            .map(|it| it.trim_matches('"').to_owned())
    });
    let bin = c.root("CARGO_HOME", ".cargo").join("bin");
    for tool in ["cargo", "rustc"] {
        if is_executable(&bin.join(tool)) {
            c.found(tool, &toolchains, default.clone());
        }
    }
}

/// The crates that cargo can use offline, below a home of its own.
pub(super) fn dependencies(c: &mut Collector<'_>) {
    if !c.has("cargo") {
        return;
    }
    if let Some(cargo) = c.which("cargo") {
        let root = cargo.parent().unwrap_or(Path::new("/")).to_owned();
        let version = version_hint("cargo", &root);
        c.found("cargo", &root, version);
    }
    c.set("CARGO_HOME", c.inside_home(".cargo"));
    c.set("CARGO_NET_OFFLINE", "true");
    let home = c.root("CARGO_HOME", ".cargo");
    for (part, access) in [
        ("registry/index", Access::ReadOnly),
        ("registry/cache", Access::ReadOnly),
        ("registry/src", Access::Layered),
        ("git/db", Access::ReadOnly),
        ("git/checkouts", Access::Layered),
    ] {
        let inside = c.inside_home(".cargo").join(part);
        c.add_at(&home.join(part), &inside, access);
    }
    let config = read(&home.join("config.toml")).or_else(|| read(&home.join("config")));
    if let Some(config) = config {
        let kept = sources(c, &config);
        if !kept.is_empty() {
            c.write(c.inside_home(".cargo/config.toml"), kept.into_bytes());
        }
    }
}

/// The part of cargo's configuration that says where crates come from: without it cargo would
/// look for them under another registry's name. Everything else stays outside: it can hold
/// tokens. A line is kept only when its table and key are known and its value is a plain string
/// without a user or a password.
fn sources(c: &mut Collector<'_>, config: &str) -> String {
    let mut kept = String::new();
    let mut table = String::new();
    let mut wanted: &[&str] = &[];
    for line in config.lines().take(1024) {
        let line = line.trim();
        if line.starts_with('[') {
            table = line.to_owned();
            wanted = match table.split(['.', ']']).next() {
                Some("[source") => &[
                    "registry",
                    "replace-with",
                    "directory",
                    "local-registry",
                    "git",
                    "branch",
                    "tag",
                    "rev",
                ],
                Some("[registries") => &["index"],
                _ => &[],
            };
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        if !wanted.contains(&key) {
            continue;
        }
        let Some(plain) = plain_string(value) else {
            c.note(
                format!("cargo's setting {table} {key} is left out: it is not a plain string"),
                "write it on one line, in one pair of quotes, in cargo's config.toml",
            );
            continue;
        };
        if plain.contains('@') {
            c.note(
                format!("cargo's setting {table} {key} is left out: it can hold a password"),
                "write the address without a user, and keep the password in credentials.toml",
            );
            continue;
        }
        if matches!(key, "directory" | "local-registry") && !c.add(Path::new(plain)) {
            continue;
        }
        if !table.is_empty() {
            kept.push_str(&table);
            kept.push('\n');
            table.clear();
        }
        kept.push_str(&format!("{key} = \"{plain}\"\n"));
    }
    kept
}

/// The content of a TOML string that has no escapes.
fn plain_string(value: &str) -> Option<&str> {
    let quote = value.chars().next().filter(|it| matches!(it, '"' | '\''))?;
    let (content, rest) = value.get(1..)?.split_once(quote)?;
    let clean = !content.contains(['\\', '"', '\''])
        && (rest.trim().is_empty() || rest.trim().starts_with('#'));
    clean.then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_string_is_read() {
        for (value, expected) in [
            ("\"https://x/\"", Some("https://x/")),
            ("'x' # why", Some("x")),
            ("\"a\\nb\"", None),
            ("{ x = \"y\" }", None),
            ("\"\"\"", None),
            ("", None),
        ] {
            assert_eq!(plain_string(value), expected, "{value}");
        }
    }
}
