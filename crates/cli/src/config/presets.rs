//! The hosts of package registries, as this machine's package managers know them.
//!
//! Nothing is known by itself here: each preset is what the settings of its package manager say. The
//! programs are asked in `/`, so that no settings of a repository count.

use super::Environment;
use domain::egress::{Preset, Presets};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// How long a package manager may take to say its settings.
const ASKING: Duration = Duration::from_secs(5);
/// The longest file of settings that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// The most files of a directory that are read.
const MAX_FILES: usize = 50;

/// This machine's package managers.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    env: Environment,
}

impl Machine {
    pub(crate) fn new(env: &Environment) -> Self {
        Self { env: env.clone() }
    }

    /// Every preset that has hosts here.
    pub(crate) fn presets(&self) -> Presets {
        let known = [
            ("cargo", self.cargo()),
            ("npm", self.asked(&["npm", "config", "get", "registry"])),
            ("pypi", self.pypi()),
            ("go", self.asked(&["go", "env", "GOPROXY", "GOSUMDB"])),
            ("maven", self.maven()),
            ("apt", apt(Path::new("/etc/apt"))),
        ];
        let known = known.into_iter().filter(|(_, hosts)| !hosts.is_empty());
        known
            .map(|(name, hosts)| {
                let hosts = hosts.into_iter().collect();
                (name.to_owned(), Preset { hosts })
            })
            .collect()
    }

    fn home(&self) -> Option<PathBuf> {
        self.env.home().ok()
    }

    /// Where the index is and where it says that crates are: each index that was ever used has a
    /// directory, with its own `config.json`.
    fn cargo(&self) -> BTreeSet<String> {
        let home = self.env.get("CARGO_HOME").map(PathBuf::from);
        let Some(home) = home.or_else(|| Some(self.home()?.join(".cargo"))) else {
            return BTreeSet::new();
        };
        let mut hosts = BTreeSet::new();
        for settings in ["config.toml", "config"] {
            hosts.extend(urls(&text(&home.join(settings))));
        }
        for index in entries(&home.join("registry/index")) {
            hosts.extend(urls(&text(&index.join("config.json"))));
            // `HOST-HASH`.
            let name = index.file_name().and_then(|name| name.to_str());
            if let Some((host, _)) = name.and_then(|name| name.rsplit_once('-')) {
                hosts.extend(host.contains('.').then(|| host.to_owned()));
            }
        }
        hosts
    }

    /// The index. Where it leads to files of another host, that one is not in the settings.
    fn pypi(&self) -> BTreeSet<String> {
        let of_variables = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX"];
        let mut hosts: BTreeSet<String> = of_variables
            .iter()
            .filter_map(|name| self.env.text(name))
            .flat_map(|text| urls(&text))
            .collect();
        hosts.extend(self.asked(&["pip", "config", "list"]));
        if hosts.is_empty() {
            let help = self.said(&["pip", "download", "--help"]);
            let index = help.split("--index-url").nth(1).unwrap_or_default();
            hosts.extend(urls(index).into_iter().next());
        }
        hosts
    }

    /// Mirrors and repositories of the user's settings.
    fn maven(&self) -> BTreeSet<String> {
        let Some(home) = self.home() else {
            return BTreeSet::new();
        };
        let settings = text(&home.join(".m2/settings.xml"));
        let all = settings.split("<url>").skip(1);
        all.filter_map(|rest| rest.split('<').next())
            .flat_map(urls)
            .collect()
    }

    fn asked(&self, words: &[&str]) -> BTreeSet<String> {
        urls(&self.said(words))
    }

    /// What a program of the host says; nothing where it is not there, fails or takes too long.
    fn said(&self, words: &[&str]) -> String {
        let Some((program, arguments)) = words.split_first() else {
            return String::new();
        };
        let path = self.env.get("PATH").unwrap_or_default();
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home().map_or_else(OsString::new, Into::into))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let asking = async move { tokio::time::timeout(ASKING, command.output()).await };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return String::new();
        };
        match tokio::task::block_in_place(|| runtime.block_on(asking)) {
            Ok(Ok(output)) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
            _ => String::new(),
        }
    }
}

/// The hosts of package sources, in both forms of the files.
fn apt(directory: &Path) -> BTreeSet<String> {
    let mut hosts = urls_of_lines(&text(&directory.join("sources.list")));
    for file in entries(&directory.join("sources.list.d")) {
        hosts.extend(urls_of_lines(&text(&file)));
    }
    hosts
}

fn urls_of_lines(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.trim().starts_with('#'));
    lines.flat_map(urls).collect()
}

/// The hosts of all addresses in a text, each with its port where it has one.
fn urls(text: &str) -> BTreeSet<String> {
    let ends_address = |c: char| c.is_whitespace() || "/?#\"'<>|,".contains(c);
    let ends = |c: char| !(c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    text.split("://")
        .skip(1)
        .zip(text.split("://"))
        .filter(|(_, before)| before.ends_with("http") || before.ends_with("https"))
        .filter_map(|(rest, _)| {
            // What stands before an `@` is a name and perhaps a password, in any characters.
            let authority = rest.split(ends_address).next()?;
            let host = authority.rsplit('@').next()?;
            let authority = host.split(ends).next()?;
            let host = authority.trim_end_matches('.').to_ascii_lowercase();
            (host.contains('.') || host.contains(':')).then_some(host)
        })
        .collect()
}

fn text(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() <= MAX_BYTES => {
            fs::read_to_string(path).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut all: Vec<_> = list.filter_map(|entry| Some(entry.ok()?.path())).collect();
    all.sort();
    all.truncate(MAX_FILES);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_settings_of_every_form_without_what_is_secret() {
        let all = |text| urls(text).into_iter().collect::<Vec<_>>();
        assert_eq!(
            all(
                "deb [signed-by=/k.gpg] https://deb.example.com/debian x\nURIs: http://b.example.com:8080/y"
            ),
            ["b.example.com:8080", "deb.example.com"]
        );
        assert_eq!(
            all("index-url='https://me:secret@packages.example.com/simple/'"),
            ["packages.example.com"]
        );
        assert_eq!(
            all("registry = https://token.of%3Dme~x:p+w%40y@packages.example.com:8443/x"),
            ["packages.example.com:8443"]
        );
        assert_eq!(all("https://a.example,direct\nsum.example"), ["a.example"]);
        assert!(all("git+ssh://x.example file:///y none").is_empty());
    }

    #[test]
    fn cargo_and_maven_are_read_from_the_users_files() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            ".cargo/registry/index/index.example.com-1949cf8c/config.json",
            r#"{"dl": "https://files.example.com/crates"}"#,
        );
        write(
            ".m2/settings.xml",
            "<settings xmlns=\"http://schema.example/1\"><mirror><url>https://maven.example.com/2</url></mirror></settings>",
        );
        let env = Environment::of([("HOME", home.path().to_str().unwrap())]);
        let presets = Machine::new(&env).presets();
        assert_eq!(
            presets["cargo"].hosts,
            ["files.example.com", "index.example.com"]
        );
        assert_eq!(presets["maven"].hosts, ["maven.example.com"]);
    }
}
