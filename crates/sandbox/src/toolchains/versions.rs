//! Version managers that put shims on the `PATH`: pyenv and its kin, asdf, mise, Volta.
//!
//! A shim is a script that needs the manager, a shell and a writable directory. Inside, the
//! directories of the selected versions stand in its place. The version that a repository asks
//! for (`.python-version`, `.tool-versions`) is not known here: the user's own choice decides,
//! and every installed version is mounted. `PYENV_VERSION` and its like say otherwise.

use std::path::{Path, PathBuf};

use super::collect::{Collector, EntryKind, entries, read, text};
use super::program::{follow_links, parent};
use super::{env_path, name_of};

/// Replaces a directory of shims by the selected versions. False when it is none.
pub(super) fn shims(c: &mut Collector<'_>, root: &Path) -> bool {
    if parent(root).join("shims").is_dir() && name_of(parent(root)) == "plugins" {
        return true;
    }
    if name_of(parent(root)) == "plugins" {
        // pyenv-virtualenv's shims only switch environments.
        return true;
    }
    if root.join("versions").is_dir() {
        env_family(c, root);
        return true;
    }
    if root.join("installs").is_dir() {
        installs(c, root);
        return true;
    }
    false
}

/// pyenv, rbenv, nodenv, goenv, jenv: `versions/NAME/bin`, the choice in `NAME_VERSION` or in the
/// file `version`.
fn env_family(c: &mut Collector<'_>, root: &Path) {
    let versions = root.join("versions");
    if !c.add_collection(&versions, 1) {
        return;
    }
    // Links to versions that lie elsewhere (`pyenv register`, jenv).
    let names = entries(&versions);
    for (name, kind) in &names {
        if *kind == EntryKind::Link
            && let Ok(real) = versions.join(name).canonicalize()
            && !c.covers(&real)
        {
            c.add(&real);
        }
    }
    let manager = text(name_of(root)).trim_start_matches('.').to_uppercase();
    let manager = if manager.is_empty() {
        "PYENV".into()
    } else {
        manager
    };
    let chosen = (c.input.env)(&format!("{manager}_VERSION"))
        .and_then(|it| it.into_string().ok())
        .map(|it| it.replace(':', "\n"))
        .or_else(|| read(&root.join("version")))
        .unwrap_or_default();
    for version in chosen.split_whitespace().take(16) {
        if version == "system" {
            continue;
        }
        let plain = version.strip_prefix("python-").unwrap_or(version);
        match pick(names.iter().map(|it| text(&it.0)), plain) {
            Some(name) => bins(c, &versions.join(name)),
            None => c.note(
                format!(
                    "{} selects {version}, which is not installed",
                    root.display()
                ),
                format!("install {version} with it, or select one that is installed"),
            ),
        }
    }
}

/// asdf and mise: `installs/TOOL/VERSION`.
fn installs(c: &mut Collector<'_>, root: &Path) {
    let installs = root.join("installs");
    if !c.add_collection(&installs, 2) {
        return;
    }
    let chosen = selections(c);
    for (tool, kind) in entries(&installs) {
        let dir = installs.join(&tool);
        if kind != EntryKind::Directory && !dir.is_dir() {
            continue;
        }
        let tool = text(&tool);
        let names: Vec<String> = entries(&dir)
            .into_iter()
            .filter_map(|it| it.0.into_string().ok())
            .filter(|it| !it.starts_with('.'))
            .collect();
        let wanted: Vec<&str> = chosen
            .iter()
            .filter(|(name, _)| same_tool(name, tool))
            .flat_map(|(_, version)| version.split_whitespace())
            .collect();
        if wanted.is_empty() && !names.is_empty() {
            // Nothing is selected: a repository that selects one itself gets the newest.
            if let Some(name) = pick(names.iter().map(String::as_str), "latest") {
                bins(c, &dir.join(name));
            }
        }
        for version in wanted {
            match pick(names.iter().map(String::as_str), version) {
                Some(name) => bins(c, &dir.join(name)),
                None if version == "system" => {}
                None => c.note(
                    format!("{tool} {version} is selected, but not installed"),
                    format!("install {tool} {version}, or select a version that is installed"),
                ),
            }
        }
    }
}

/// The user's own choices: lines `tool version…`, and `tool = "version"` under `[tools]`.
fn selections(c: &Collector<'_>) -> Vec<(String, String)> {
    let mut chosen = Vec::new();
    let file = env_path(c.input, "ASDF_DEFAULT_TOOL_VERSIONS_FILENAME")
        .unwrap_or_else(|| c.input.home.join(".tool-versions"));
    for line in read(&file).unwrap_or_default().lines().take(128) {
        let line = line.split('#').next().unwrap_or_default();
        if let Some((tool, version)) = line.trim().split_once(char::is_whitespace) {
            chosen.push((tool.to_owned(), version.trim().to_owned()));
        }
    }
    let config =
        env_path(c.input, "XDG_CONFIG_HOME").unwrap_or_else(|| c.input.home.join(".config"));
    let mut in_tools = false;
    for line in read(&config.join("mise/config.toml"))
        .unwrap_or_default()
        .lines()
        .take(512)
    {
        let line = line.trim();
        if line.starts_with('[') {
            in_tools = line == "[tools]";
        } else if in_tools && let Some((tool, value)) = line.split_once('=') {
            let version = value.split('"').nth(1).unwrap_or_default();
            if !version.is_empty() {
                chosen.push((tool.trim().trim_matches('"').to_owned(), version.to_owned()));
            }
        }
    }
    chosen
}

fn same_tool(a: &str, b: &str) -> bool {
    let plain = |name: &str| match name {
        "nodejs" => "node".to_owned(),
        "golang" => "go".to_owned(),
        other => other.replace([':', '/'], "-"),
    };
    plain(a) == plain(b)
}

/// Puts the directories of programs of one installed version on the `PATH`.
fn bins(c: &mut Collector<'_>, version: &Path) {
    for place in ["bin", "go/bin", "packages/bin", ""] {
        let dir = version.join(place);
        if dir.is_dir() && (!place.is_empty() || !version.join("bin").is_dir()) {
            if place.is_empty() && version.join("go/bin").is_dir() {
                continue;
            }
            follow_links(c, &dir, false);
            c.push_path(&dir);
        }
    }
}

/// Volta: a shim asks `tools/user/platform.json` which image to run.
pub(super) fn volta(c: &mut Collector<'_>, root: &Path) -> bool {
    let image = root.join("tools/image");
    if !c.add_collection(&image, 2) {
        return true;
    }
    let platform = read(&root.join("tools/user/platform.json")).unwrap_or_default();
    for tool in ["npm", "pnpm", "yarn", "node"] {
        let key = if tool == "node" { "runtime" } else { tool };
        let dir = image.join(tool);
        let names = entries(&dir);
        let wanted = string_after(&platform, key).unwrap_or_else(|| "latest".into());
        let selected = tool == "node" || string_after(&platform, key).is_some();
        if selected && let Some(name) = pick(names.iter().map(|it| text(&it.0)), &wanted) {
            c.push_path(&dir.join(name).join("bin"));
        }
    }
    for (name, _) in entries(&image.join("packages")).into_iter().take(16) {
        c.push_path(&image.join("packages").join(name).join("bin"));
    }
    true
}

/// The string after `"key":` in a small JSON document.
fn string_after(json: &str, key: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{key}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let value = rest.strip_prefix('"')?.split('"').next()?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// The installed version that a selection means: itself, else the newest that begins with it;
/// `latest`, `node`, `lts…` and `stable` mean the newest.
pub(super) fn pick<'n>(
    names: impl Iterator<Item = &'n str> + Clone,
    wanted: &str,
) -> Option<&'n str> {
    let plain = wanted.trim_start_matches('v');
    if let Some(name) = names
        .clone()
        .find(|it| *it == wanted || it.trim_start_matches('v') == plain)
    {
        return Some(name);
    }
    let any = ["latest", "node", "stable", "current", "default"].contains(&wanted)
        || wanted.starts_with("lts");
    names
        .filter(|it| {
            any || it
                .trim_start_matches('v')
                .strip_prefix(plain)
                .is_some_and(|rest| rest.starts_with(['.', '-']))
        })
        .filter(|it| it.contains(|digit: char| digit.is_ascii_digit()))
        .max_by_key(|it| numbers(it))
}

/// A version's numbers, for order.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|it: char| !it.is_ascii_digit())
        .filter(|it| !it.is_empty())
        .take(8)
        .map(|it| it.parse().unwrap_or(u64::MAX))
        .collect()
}

/// A path's own version directory below a collection, where it names one.
pub(super) fn newest(collection: &Path, wanted: &str) -> Option<PathBuf> {
    let names = entries(collection);
    pick(names.iter().map(|it| text(&it.0)), wanted).map(|it| collection.join(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_means_itself_or_the_newest_that_begins_with_it() {
        let names = ["v18.20.1", "v20.9.0", "v20.10.0", "v22.1.0"];
        for (wanted, expected) in [
            ("v20.9.0", Some("v20.9.0")),
            ("20.9.0", Some("v20.9.0")),
            ("20", Some("v20.10.0")),
            ("v20", Some("v20.10.0")),
            ("2", None),
            ("lts/*", Some("v22.1.0")),
            ("node", Some("v22.1.0")),
            ("16", None),
        ] {
            assert_eq!(pick(names.into_iter(), wanted), expected, "{wanted}");
        }
    }
}
