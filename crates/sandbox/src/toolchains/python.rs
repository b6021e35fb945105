//! Python: environments and the interpreters they were made from, user packages, uv's store.

use std::path::{Path, PathBuf};

use super::collect::{Collector, entries, read};
use super::gate::is_visible;
use super::{Access, env_path};

/// The interpreters that a virtual environment runs: the one its `pyvenv.cfg` names, and what
/// its links lead to.
pub(super) fn bases(venv: &Path) -> Vec<PathBuf> {
    let mut bases = Vec::new();
    let config = read(&venv.join("pyvenv.cfg")).unwrap_or_default();
    let named = config.lines().take(64).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| PathBuf::from(value.trim()))
    });
    let named = named
        .into_iter()
        .flat_map(|home| ["python3", "python"].map(|name| home.join(name)));
    let links = ["bin/python3", "bin/python"].map(|it| venv.join(it));
    for interpreter in named.chain(links) {
        if let Ok(real) = interpreter.canonicalize()
            && !real.starts_with(venv)
            && !bases.contains(&real)
        {
            bases.push(real);
        }
    }
    bases
}

/// What `pip install --user` has put beside `~/.local/bin`.
pub(super) fn user_site(c: &mut Collector<'_>) {
    let local = c.input.home.join(".local");
    let mut any = false;
    for (name, _) in entries(&local.join("lib")) {
        if name.as_encoded_bytes().starts_with(b"python") {
            any |= c.add(&local.join("lib").join(name));
        }
    }
    if any {
        c.set("PYTHONUSERBASE", local);
    }
}

/// Settings that keep Python and its installers offline and their caches out of the workspace.
pub(super) fn dependencies(c: &mut Collector<'_>) {
    // Compiled files beside the sources are no part of a change. Those that are there already, of
    // the library and of what setup installed, are read where they lie: a directory of their own
    // (PYTHONPYCACHEPREFIX) would hide them, and every start would compile everything again.
    c.set("PYTHONDONTWRITEBYTECODE", "1");
    let store = env_path(c.input, "UV_PYTHON_INSTALL_DIR")
        .unwrap_or_else(|| data_home(c).join("uv/python"));
    if c.has("uv") && store.is_dir() && c.add_collection(&store, 1) {
        c.set("UV_PYTHON_INSTALL_DIR", store);
    }
    if c.has("uv") {
        c.set("UV_OFFLINE", "1");
        c.set("UV_PYTHON_DOWNLOADS", "never");
        let cache = env_path(c.input, "UV_CACHE_DIR").unwrap_or_else(|| cache_home(c).join("uv"));
        let inside = c.inside_home(".cache/uv");
        c.add_at(&cache, &inside, Access::Layered);
        c.set("UV_CACHE_DIR", inside);
    }
    if !c.has("python3") && !c.has("python") {
        return;
    }
    c.set("PIP_NO_INDEX", "1");
    c.set("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    // A directory of wheels; an address could hold a password.
    if let Some(wheels) = env_path(c.input, "PIP_FIND_LINKS").filter(|it| it.is_dir())
        && (is_visible(&wheels) || c.add(&wheels))
    {
        c.set("PIP_FIND_LINKS", wheels);
    }
}

/// The user's directory of caches.
pub(super) fn cache_home(c: &Collector<'_>) -> PathBuf {
    env_path(c.input, "XDG_CACHE_HOME").unwrap_or_else(|| c.input.home.join(".cache"))
}

/// The user's directory of programs' data.
pub(super) fn data_home(c: &Collector<'_>) -> PathBuf {
    env_path(c.input, "XDG_DATA_HOME").unwrap_or_else(|| c.input.home.join(".local/share"))
}
