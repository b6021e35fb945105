//! What a process that holds a sandbox gets of the environment of who started it: what it reads, and no
//! more. It lives for hours, and whatever secrets a shell has are not to be in it.

use crate::config::{Environment, File, forges};
use std::ffi::OsString;

/// Variables that say who it is for, where things are, and what an engine of containers needs.
const OWN: [&str; 10] = [
    "HOME",
    "PATH",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
];
/// Where an engine of containers is. One that is no socket of this machine is not used, and its address
/// may have a password: all that is passed of it is that another one was named, so that none is used in
/// its place.
const ENGINES: [&str; 2] = ["DOCKER_HOST", "CONTAINER_HOST"];
const SOCKET: &str = "unix://";
const ELSEWHERE: &str = "elsewhere";
/// How others begin.
const BEGINNINGS: [&str; 4] = ["SKEP_", "XDG_", "LC_", "CONTAINERS_"];
/// Where the toolchains are that a sandbox is shown.
const TOOLCHAINS: [&str; 23] = [
    "ASDF_DEFAULT_TOOL_VERSIONS_FILENAME",
    "BUN_INSTALL",
    "CARGO_HOME",
    "COREPACK_HOME",
    "DENO_DIR",
    "DENO_INSTALL",
    "GEM_HOME",
    "GEM_PATH",
    "GOMODCACHE",
    "GOPATH",
    "GOROOT",
    "GRADLE_USER_HOME",
    "JAVA_HOME",
    "NVM_DIR",
    "PIP_FIND_LINKS",
    "PNPM_HOME",
    "PYENV_ROOT",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "UV_CACHE_DIR",
    "UV_PYTHON_INSTALL_DIR",
    "VOLTA_HOME",
    "npm_config_cache",
];
/// How the variable ends by which a manager of versions is told which one (`PYENV_VERSION`).
const CHOICE: &str = "ENV_VERSION";
/// Addresses of packages, of which a preset takes the hosts.
const INDEXES: [&str; 3] = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX"];
/// The variables of this process that a holder gets. Where it `fetches` from a URL, that is how git gets
/// there, and the tokens of forges.
pub(super) fn variables(
    env: &Environment,
    config: &File,
    fetches: bool,
) -> Vec<(OsString, OsString)> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    chosen(
        env,
        names,
        fetches.then(|| forges::variables(&config.forges)),
    )
}

fn chosen(
    env: &Environment,
    names: impl Iterator<Item = String>,
    tokens: Option<Vec<String>>,
) -> Vec<(OsString, OsString)> {
    let is_passed = |name: &str| match &tokens {
        Some(tokens)
            if tokens.iter().any(|token| token == name)
                || git::variables().any(|it| it == name) =>
        {
            true
        }
        _ if Environment::looks_secret(name) => false,
        _ => {
            let begins = BEGINNINGS.iter().any(|it| name.starts_with(it));
            begins
                || name.ends_with(CHOICE)
                || OWN.contains(&name)
                || TOOLCHAINS.contains(&name)
                || INDEXES.contains(&name)
                || ENGINES.contains(&name)
        }
    };
    names
        .filter(|name| is_passed(name))
        .filter_map(|name| {
            let value = env.get(&name)?;
            let value = match name.as_str() {
                it if INDEXES.contains(&it) => without_users(value.to_str()?).into(),
                it if ENGINES.contains(&it) => of_this_machine(value),
                _ => value,
            };
            Some((name.into(), value))
        })
        .collect()
}

/// The address of an engine, where it is a socket here.
fn of_this_machine(address: OsString) -> OsString {
    let is_here = |it: &str| it.is_empty() || it.starts_with(SOCKET);
    match address.to_str() {
        Some(it) if is_here(it) => address,
        _ => ELSEWHERE.into(),
    }
}

/// Addresses without whoever is named in them, and a password of theirs.
fn without_users(addresses: &str) -> String {
    let words = addresses.split_whitespace().map(|address| {
        let Some((scheme, rest)) = address.split_once("://") else {
            return address.to_owned();
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let host = host.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_gets_what_it_reads_and_no_secret_of_a_shell() {
        let all = [
            ("PATH", "/bin"),
            ("SKEP_DATA", "/d"),
            ("SKEP_API_TOKEN", "hush"),
            ("LC_ALL", "C"),
            ("RUSTUP_HOME", "/r"),
            ("PYENV_VERSION", "3.13"),
            ("DATABASE_URL", "hush"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("OPENAI_API_KEY", "hush"),
            ("GH_TOKEN", "hush"),
            ("https_proxy", "http://ann:hush@proxy"),
            ("PIP_INDEX_URL", "https://ann:hush@index.example/simple"),
            ("DOCKER_HOST", "tcp://ann:hush@engine.example:2376"),
            ("CONTAINER_HOST", "unix:///run/engine.sock"),
        ];
        let env = Environment::of(all);
        let names = || all.iter().map(|(name, _)| (*name).to_owned());
        let passed = chosen(&env, names(), None);
        let text = format!("{passed:?}");
        assert!(!text.contains("hush"), "{text}");
        assert!(text.contains("https://index.example/simple"), "{text}");
        assert!(text.contains("unix:///run/engine.sock"), "{text}");
        let another = ("DOCKER_HOST".into(), ELSEWHERE.into());
        assert!(passed.contains(&another), "none is used in its place");
        assert_eq!(passed.len(), 8, "{text}");
        // What is fetched from a URL is fetched as the user would.
        let passed = chosen(&env, names(), Some(vec!["GH_TOKEN".into()]));
        let passed: Vec<_> = passed
            .iter()
            .filter_map(|(name, _)| name.to_str())
            .collect();
        assert!(passed.contains(&"GH_TOKEN") && passed.contains(&"https_proxy"));
        assert!(!passed.contains(&"DATABASE_URL"));
    }
}
