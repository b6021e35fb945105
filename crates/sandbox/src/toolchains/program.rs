//! From a program to the installation that holds it.
//!
//! A program on a `PATH` is often a link into an installation, or a script whose first line names
//! an interpreter elsewhere. Both are followed to roots that can be mounted.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::collect::{Collector, EntryKind, entries, is_executable, read, text};
use super::gate::is_visible;
use super::{env_path, name_of, python};

/// How many interpreters and links in a row are followed.
const MAX_DEPTH: u8 = 4;
/// How many links in a row are followed: as many as the kernel does.
const MAX_LINKS: usize = 40;
/// How many scripts of one directory are opened for their first line.
const MAX_SCRIPTS: usize = 64;

/// Tools that a test of some repository may start, by the name they have on a `PATH`.
pub(super) const TOOLS: [&str; 44] = [
    "cargo", "rustc", "python3", "python", "pytest", "pip", "uv", "node", "npm", "npx", "pnpm",
    "yarn", "corepack", "bun", "deno", "go", "java", "javac", "mvn", "gradle", "kotlin", "scala",
    "sbt", "ruby", "bundle", "rake", "php", "composer", "dotnet", "elixir", "erl", "ghc", "cabal",
    "stack", "zig", "swift", "dart", "flutter", "git", "make", "cmake", "ninja", "gcc", "bazel",
];

/// Mounts what the tools that the `PATH` inside will find need, and says which were found.
pub(super) fn known_tools(c: &mut Collector<'_>) {
    for tool in TOOLS {
        let Some(file) = c.which(tool) else { continue };
        let Ok(real) = file.canonicalize() else {
            continue;
        };
        if !hops(c, &file).iter().all(|it| c.covers(it)) {
            add(c, &file);
        }
        if c.covers(&real) {
            let root = installation(&real).unwrap_or_else(|| parent(&real).to_owned());
            let version = version_hint(tool, &root);
            c.found(tool, &root, version);
        }
    }
}

/// Mounts what a program needs: the links that lead to it, its installation, its interpreter.
pub(super) fn add(c: &mut Collector<'_>, program: &Path) {
    if !is_executable(program) {
        c.note(
            format!(
                "{} is left out: it does not lead to a program",
                program.display()
            ),
            "install it again, or remove the link",
        );
        return;
    }
    let hops = hops(c, program);
    for (n, hop) in hops.iter().enumerate().rev() {
        // A link stands for what it leads to, but in an environment it is what selects it.
        if n + 1 == hops.len() || venv_of(hop).is_some() {
            add_real(c, hop, 0);
        } else if !c.covers(hop) {
            c.add(hop);
        }
    }
    if !c.covers(program) {
        c.add(program);
    }
}

/// The files that a chain of links passes through, the last of them no link. The directories
/// above each are without links.
fn hops(c: &mut Collector<'_>, program: &Path) -> Vec<PathBuf> {
    let mut hops = Vec::new();
    let mut next = program.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(dir) = c.real_directory(parent(&next)) else {
            break;
        };
        let hop = dir.join(name_of(&next));
        match hop.read_link() {
            Ok(target) => next = dir.join(target),
            Err(_) => {
                hops.push(hop);
                break;
            }
        }
        hops.push(hop);
    }
    hops
}

fn add_real(c: &mut Collector<'_>, real: &Path, depth: u8) {
    if depth > MAX_DEPTH {
        return;
    }
    if !c.covers(real) {
        let mounted = installation(real).is_some_and(|root| c.add(&root));
        if !mounted && !c.add(real) {
            return;
        }
    }
    if let Some(venv) = venv_of(real) {
        for base in python::bases(&venv) {
            add_real(c, &base, depth + 1);
        }
    }
    if let Some(interpreter) = interpreter(c, real)
        && let Ok(target) = interpreter.canonicalize()
    {
        add_real(c, &target, depth + 1);
        if !c.covers(&interpreter) && c.covers(&target) {
            c.add(&interpreter);
        }
    }
}

/// Follows the links in a directory of programs that lead out of what is seen inside and, for a
/// directory that stands alone, the first lines of its `scripts`.
pub(super) fn follow_links(c: &mut Collector<'_>, dir: &Path, scripts: bool) {
    let mut opened = 0;
    for (name, kind) in entries(dir) {
        let path = dir.join(&name);
        if kind == EntryKind::Link {
            // Most links lead to a neighbour.
            if path
                .read_link()
                .is_ok_and(|it| it.components().count() == 1)
            {
                continue;
            }
            if is_executable(&path) && !hops(c, &path).iter().all(|it| c.covers(it)) {
                add(c, &path);
            }
        } else if kind == EntryKind::Other && scripts && opened < MAX_SCRIPTS {
            opened += 1;
            if let Some(target) = interpreter(c, &path)
                .filter(|it| !is_visible(it))
                .and_then(|it| it.canonicalize().ok())
                && !c.covers(&target)
            {
                add_real(c, &target, 1);
            }
        }
    }
}

/// The directory that a program needs beside itself: its package, environment or prefix.
/// Nothing for a program that stands alone.
fn installation(real: &Path) -> Option<PathBuf> {
    if is_visible(real) {
        return Some(PathBuf::from("/usr"));
    }
    if let Some(package) = node_package(real) {
        return Some(package);
    }
    if let Some(venv) = venv_of(real) {
        return Some(venv);
    }
    let dir = parent(real);
    let prefix = match text(name_of(dir)) {
        "bin" | "sbin" | "libexec" | "cmd" => parent(dir),
        _ => dir,
    };
    is_prefix(prefix).then(|| prefix.to_owned())
}

/// The package of a program in `node_modules`. Global installations of npm keep a package's
/// dependencies within it; elsewhere they lie beside it, so that the whole directory is needed.
fn node_package(real: &Path) -> Option<PathBuf> {
    let ancestors: Vec<&Path> = real.ancestors().collect();
    let at = ancestors
        .iter()
        .rposition(|it| name_of(it) == "node_modules")?;
    let modules = *ancestors.get(at)?;
    if name_of(parent(modules)) != "lib" {
        return Some(modules.to_owned());
    }
    let package = *ancestors.get(at.checked_sub(1)?)?;
    if !text(name_of(package)).starts_with('@') {
        return Some(package.to_owned());
    }
    Some((*ancestors.get(at.checked_sub(2)?)?).to_owned())
}

/// The virtual environment that a file is in.
pub(super) fn venv_of(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .skip(1)
        .take(6)
        .find(|it| it.join("pyvenv.cfg").is_file())
        .map(Path::to_owned)
}

/// Whether a directory is the root of an installation that is recognised: its programs need
/// what lies beside them.
pub(super) fn is_prefix(root: &Path) -> bool {
    const MARKS: [&str; 14] = [
        "pyvenv.cfg",
        "conda-meta",
        "lib/node_modules",
        "include/node",
        "lib/rustlib",
        "pkg/tool",
        "src/runtime",
        "lib/modules",
        "jre/lib",
        "lib/ruby",
        "boot/plexus-classworlds.license",
        "lib/plugins",
        "lib/erlang",
        "shared/Microsoft.NETCore.App",
    ];
    MARKS.iter().any(|it| root.join(it).exists())
        || ["bin/python3", "bin/python", "bin/mvn", "bin/gradle"]
            .iter()
            .any(|it| root.join(it).exists() && root.join("lib").is_dir())
}

/// The interpreter that a script's first line names.
fn interpreter(c: &Collector<'_>, script: &Path) -> Option<PathBuf> {
    if !script.metadata().ok()?.is_file() {
        return None;
    }
    let mut head = Vec::with_capacity(256);
    File::open(script)
        .ok()?
        .take(256)
        .read_to_end(&mut head)
        .ok()?;
    let line = head.strip_prefix(b"#!")?.split(|it| *it == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let first = words.next()?;
    if !first.ends_with("/env") {
        return Some(PathBuf::from(first));
    }
    let name = words.find(|it| !it.starts_with('-') && !it.contains('='))?;
    c.which(name).or_else(|| {
        std::env::split_paths(&c.input.path)
            .take(super::MAX_PATH_ENTRIES)
            .filter(|it| it.is_absolute())
            .map(|it| it.join(name))
            .find(|it| is_executable(it))
    })
}

/// A version as the names and small files of an installation tell it.
pub(super) fn version_hint(tool: &str, root: &Path) -> Option<String> {
    if is_visible(root) {
        return None;
    }
    if let Some(version) = root
        .ancestors()
        .take(3)
        .map(|it| text(name_of(it)))
        .find(|it| looks_like_version(it))
    {
        return Some(version.to_owned());
    }
    match tool {
        "go" => read(&root.join("VERSION"))?
            .lines()
            .next()
            .map(str::to_owned),
        "java" | "javac" => read(&root.join("release"))?
            .lines()
            .find_map(|it| it.strip_prefix("JAVA_VERSION="))
            .map(|it| it.trim_matches('"').to_owned()),
        _ => None,
    }
}

fn looks_like_version(name: &str) -> bool {
    let digits = name.trim_start_matches(|it: char| !it.is_ascii_digit());
    !digits.is_empty()
        && digits.contains('.')
        && digits.chars().next().is_some_and(|it| it.is_ascii_digit())
        && name.len() - digits.len() <= 12
}

/// The `JAVA_HOME`, `GOROOT` and their like that a variable names, mounted.
pub(super) fn variable_root(c: &mut Collector<'_>, variable: &str) {
    if let Some(root) = env_path(c.input, variable)
        && (is_visible(&root) || c.covers(&root) || c.add(&root))
        && root.is_dir()
    {
        c.set(variable, root);
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
