//! What a user is promised of the toolchains seen inside a sandbox, on homes made for the test.
#![allow(clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use skep_sandbox::toolchains::{
    Access, Input, MAX_MOUNTS, MAX_PATH_ENTRIES, ToolMount, Toolchains, agent_roots, discover,
};

const CANARY: &str = "canary-5f1c9e";

/// Where people's homes keep what nobody else may see.
const PRIVATE: [&str; 44] = [
    ".cargo/credentials.toml",
    ".cargo/credentials",
    ".cargo/config.toml",
    ".npmrc",
    ".pypirc",
    ".netrc",
    ".ssh/id_ed25519",
    ".config/gh/hosts.yml",
    ".config/pip/pip.conf",
    ".config/mise/config.toml",
    ".aws/credentials",
    ".docker/config.json",
    ".kube/config",
    ".gnupg/secring.gpg",
    ".bash_history",
    ".zsh_history",
    ".git-credentials",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".gem/credentials",
    ".bundle/config",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".npm/_logs/debug.log",
    ".local/share/uv/credentials/credentials.toml",
    ".local/share/keyrings/login.keyring",
    ".local/state/x/token",
    ".deno/credentials.json",
    ".bunfig.toml",
    ".nuget/NuGet/NuGet.Config",
    ".yarnrc.yml",
    ".condarc",
    ".pip/pip.conf",
    ".cache/secret",
    ".rustup/secret",
    ".pyenv/secret",
    ".nvm/.npmrc",
    ".volta/secret",
    ".asdf/secret",
    ".sdkman/etc/secret",
    "Documents/taxes",
    "go/src/private/key",
    "project/.env",
];

struct Host {
    dir: tempfile::TempDir,
    home: PathBuf,
    env: Vec<(String, OsString)>,
    extra_roots: Vec<PathBuf>,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap().join("home/ada");
        let host = Host {
            dir,
            home,
            env: Vec::new(),
            extra_roots: Vec::new(),
        };
        for place in PRIVATE {
            host.file(place, CANARY);
        }
        host
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.home.join(rest)
    }

    fn file(&self, rest: &str, contents: &str) -> PathBuf {
        let path = self.path(rest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    fn exe(&self, rest: &str) -> PathBuf {
        self.script(rest, "\u{7f}ELF")
    }

    fn script(&self, rest: &str, contents: &str) -> PathBuf {
        let path = self.file(rest, contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn dir(&self, rest: &str) -> PathBuf {
        let path = self.path(rest);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn link(&self, rest: &str, target: impl AsRef<Path>) -> PathBuf {
        let path = self.path(rest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, &path).unwrap();
        path
    }

    /// Puts credentials at the places in an installation where tools keep them.
    fn plant(&self, root: &str) {
        for place in [
            "etc/npmrc",
            ".npmrc",
            "pip.conf",
            ".condarc",
            ".env",
            "credentials.json",
        ] {
            self.file(&format!("{root}/{place}"), CANARY);
        }
        self.file(
            &format!("{root}/conf/settings.xml"),
            &format!("<settings><!-- <password>none</password> --><password>{CANARY}</password></settings>"),
        );
    }

    fn with<T>(&self, path: &[&str], ask: impl FnOnce(&Input<'_>) -> T) -> T {
        let env = |name: &str| {
            self.env
                .iter()
                .find(|it| it.0 == name)
                .map(|it| it.1.clone())
        };
        let entries = path.iter().map(|it| {
            if it.starts_with('/') {
                PathBuf::from(it)
            } else {
                self.path(it)
            }
        });
        ask(&Input {
            path: std::env::join_paths(entries.chain(["/usr/bin".into(), "/bin".into()])).unwrap(),
            home: self.home.clone(),
            env: &env,
            extra_roots: self.extra_roots.clone(),
        })
    }

    /// Discovers, and checks what must hold on every host.
    fn discover(&self, path: &[&str]) -> Toolchains {
        let found = self.with(path, discover);
        assert_no_canary(&found.mounts);
        assert!(found.mounts.len() <= MAX_MOUNTS);
        let entries: Vec<PathBuf> = std::env::split_paths(&found.path).collect();
        assert!(entries.len() <= MAX_PATH_ENTRIES);
        for entry in &entries {
            assert!(
                inside(&found.mounts, entry),
                "{} is on the PATH but not inside",
                entry.display()
            );
        }
        for wanted in ["/usr/local/bin", "/usr/bin", "/bin"] {
            assert!(entries.iter().any(|it| it == Path::new(wanted)), "{wanted}");
        }
        let mut below = found.mounts.iter().map(|it| &it.inside);
        assert!(
            below.all(|it| !self.home.starts_with(it)),
            "a home is mounted"
        );
        found
    }

    fn on_path(&self, found: &Toolchains, rest: &str) -> bool {
        std::env::split_paths(&found.path).any(|it| it == self.path(rest))
    }
}

fn inside(mounts: &[ToolMount], path: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/lib"]
        .iter()
        .any(|it| path.starts_with(it))
        || mounts.iter().any(|it| {
            path.starts_with(&it.inside) && !it.masked.iter().any(|mask| path.starts_with(mask))
        })
}

fn sees(found: &Toolchains, path: &Path) -> bool {
    inside(&found.mounts, path)
}

fn var<'t>(found: &'t Toolchains, name: &str) -> Option<&'t OsStr> {
    found
        .env
        .iter()
        .find(|it| it.0 == name)
        .map(|it| it.1.as_os_str())
}

/// Walks everything that is mounted, as it is seen inside.
fn assert_no_canary(mounts: &[ToolMount]) {
    for mount in mounts {
        let mut queue = vec![mount.host.clone()];
        while let Some(path) = queue.pop() {
            let seen = mount.inside.join(path.strip_prefix(&mount.host).unwrap());
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_symlink() || mount.masked.iter().any(|it| seen.starts_with(it)) {
                continue;
            }
            if kind.is_dir() {
                queue.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            } else if !path.starts_with("/etc") && !path.starts_with("/opt") {
                let bytes = fs::read(&path).unwrap();
                assert!(
                    !bytes
                        .windows(CANARY.len())
                        .any(|it| it == CANARY.as_bytes()),
                    "{} is seen inside as {}",
                    path.display(),
                    seen.display()
                );
            }
        }
    }
}

#[test]
fn rustup_and_cargo_work_from_their_own_directories_with_the_crates_that_are_there() {
    let mut host = Host::new();
    host.exe(".cargo/bin/rustup");
    for name in ["cargo", "rustc"] {
        host.link(&format!(".cargo/bin/{name}"), "rustup");
    }
    host.exe(".rustup/toolchains/stable-x86_64/bin/rustc");
    host.exe("build/own-rust/bin/rustc");
    host.link(".rustup/toolchains/own", host.path("build/own-rust"));
    host.file(
        ".rustup/settings.toml",
        "version = \"12\"\ndefault_toolchain = \"stable-x86_64\"\n",
    );
    for part in ["index", "cache", "src"] {
        host.dir(&format!(".cargo/registry/{part}/r"));
    }
    host.file(
        ".cargo/config.toml",
        &format!(
            "[source.crates-io]\nreplace-with = \"mirror\"\n[source.mirror]\nregistry = \"sparse+https://mirror.example/\" # near\n\
             [source.private]\nregistry = \"https://ada:{CANARY}@crates.example/\"\n[registry]\ntoken = \"{CANARY}\"\n\
             [registries.own]\nindex = \"https://own.example/\"\ntoken = \"{CANARY}\"\n[env]\nKEY = \"{CANARY}\"\n"
        ),
    );
    host.env.push(("RUSTUP_TOOLCHAIN".into(), "nightly".into()));
    let found = host.discover(&[".cargo/bin"]);

    assert!(host.on_path(&found, ".cargo/bin"));
    assert!(sees(
        &found,
        &host.path(".rustup/toolchains/stable-x86_64/bin/rustc")
    ));
    assert!(sees(&found, &host.path("build/own-rust/bin/rustc")));
    assert!(sees(&found, &host.path(".rustup/settings.toml")));
    assert!(!sees(&found, &host.path(".cargo/config.toml")));
    assert_eq!(
        var(&found, "RUSTUP_HOME"),
        Some(host.path(".rustup").as_os_str())
    );
    assert_eq!(
        var(&found, "CARGO_HOME"),
        Some(OsStr::new("/home/agent/.cargo"))
    );
    assert_eq!(var(&found, "CARGO_NET_OFFLINE"), Some(OsStr::new("true")));
    assert_eq!(var(&found, "RUSTUP_TOOLCHAIN"), None);
    let access = |inside: &str| {
        found
            .mounts
            .iter()
            .find(|it| it.inside == Path::new(inside))
            .unwrap()
            .access
    };
    assert_eq!(
        access("/home/agent/.cargo/registry/index"),
        Access::ReadOnly
    );
    assert_eq!(
        access("/home/agent/.cargo/registry/cache"),
        Access::ReadOnly
    );
    assert_eq!(access("/home/agent/.cargo/registry/src"), Access::Layered);
    let cargo = found.found.iter().find(|it| it.name == "cargo").unwrap();
    assert_eq!(cargo.version_hint.as_deref(), Some("stable-x86_64"));
    let config = found
        .files
        .iter()
        .find(|it| it.inside.ends_with(".cargo/config.toml"))
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&config.contents),
        "[source.crates-io]\nreplace-with = \"mirror\"\n[source.mirror]\nregistry = \"sparse+https://mirror.example/\"\n\
         [registries.own]\nindex = \"https://own.example/\"\n"
    );
}

#[test]
fn without_a_layer_cargos_sources_are_seen_only_if_every_crate_is_unpacked() {
    let host = Host::new();
    host.exe(".cargo/bin/cargo");
    host.dir(".cargo/registry/src/r/a-1.0.0");
    host.file(".cargo/registry/cache/r/a-1.0.0.crate", "");
    let sources = |found: &Toolchains| {
        found
            .mounts
            .iter()
            .find(|it| it.inside.ends_with("registry/src"))
            .unwrap()
            .without_layer()
    };
    let found = host.discover(&[".cargo/bin"]);
    assert_eq!(sources(&found).unwrap().access, Access::ReadOnly);
    host.file(".cargo/registry/cache/r/b-1.0.0.crate", "");
    assert_eq!(sources(&found), None);
}

#[test]
fn pyenv_shims_become_the_selected_versions_and_every_version_is_there() {
    let mut host = Host::new();
    for version in ["3.9.1", "3.11.2", "3.11.10"] {
        host.exe(&format!(".pyenv/versions/{version}/bin/python3"));
        host.dir(&format!(".pyenv/versions/{version}/lib"));
        host.plant(&format!(".pyenv/versions/{version}"));
    }
    host.script(".pyenv/shims/python3", "#!/bin/sh\n");
    host.exe(".pyenv/bin/pyenv");
    host.file(".pyenv/version", "3.11\n");
    let found = host.discover(&[".pyenv/shims", ".pyenv/bin"]);
    assert!(host.on_path(&found, ".pyenv/versions/3.11.10/bin"));
    assert!(!host.on_path(&found, ".pyenv/versions/3.9.1/bin"));
    assert!(!host.on_path(&found, ".pyenv/shims"));
    assert!(sees(
        &found,
        &host.path(".pyenv/versions/3.9.1/bin/python3")
    ));
    let python = found.found.iter().find(|it| it.name == "python3").unwrap();
    assert_eq!(python.version_hint.as_deref(), Some("3.11.10"));

    host.env
        .push(("PYENV_VERSION".into(), "3.9.1:3.11.2".into()));
    let found = host.discover(&[".pyenv/shims"]);
    assert!(host.on_path(&found, ".pyenv/versions/3.9.1/bin"));
    assert!(host.on_path(&found, ".pyenv/versions/3.11.2/bin"));
    assert!(!host.on_path(&found, ".pyenv/versions/3.11.10/bin"));
}

#[test]
fn a_virtual_environment_brings_the_interpreter_it_was_made_from() {
    let host = Host::new();
    host.exe(".pyenv/versions/3.12.1/bin/python3.12");
    host.dir(".pyenv/versions/3.12.1/lib");
    host.link(".pyenv/versions/3.12.1/bin/python3", "python3.12");
    host.link(
        "tools/venv/bin/python3",
        host.path(".pyenv/versions/3.12.1/bin/python3.12"),
    );
    host.link("tools/venv/bin/python", "python3");
    host.script("tools/venv/bin/pytest", "#!/usr/bin/env python3\n");
    host.file(
        "tools/venv/pyvenv.cfg",
        &format!(
            "home = {}\n",
            host.path(".pyenv/versions/3.12.1/bin").display()
        ),
    );
    host.plant("tools/venv");
    let found = host.discover(&["tools/venv/bin"]);
    assert!(host.on_path(&found, "tools/venv/bin"));
    assert!(sees(&found, &host.path("tools/venv/bin/pytest")));
    assert!(sees(
        &found,
        &host.path(".pyenv/versions/3.12.1/bin/python3.12")
    ));
    assert!(!sees(&found, &host.path("tools")));
    assert!(
        found
            .found
            .iter()
            .any(|it| it.name == "pytest" && it.root == host.path("tools/venv"))
    );
}

#[test]
fn nvm_is_found_on_the_path_and_where_the_shell_loads_it_late() {
    let mut host = Host::new();
    for version in ["v18.2.0", "v20.11.1"] {
        host.exe(&format!(".nvm/versions/node/{version}/bin/node"));
        host.dir(&format!(
            ".nvm/versions/node/{version}/lib/node_modules/npm"
        ));
        host.plant(&format!(".nvm/versions/node/{version}"));
    }
    let found = host.discover(&[".nvm/versions/node/v18.2.0/bin"]);
    assert!(host.on_path(&found, ".nvm/versions/node/v18.2.0/bin"));
    assert!(sees(
        &found,
        &host.path(".nvm/versions/node/v20.11.1/bin/node")
    ));
    assert!(!sees(&found, &host.path(".nvm/.npmrc")));
    let node = found.found.iter().find(|it| it.name == "node").unwrap();
    assert_eq!(node.version_hint.as_deref(), Some("v18.2.0"));
    assert_eq!(var(&found, "npm_config_offline"), Some(OsStr::new("true")));

    host.file(
        ".npmrc",
        &format!("registry=https://npm.example/\n//npm.example/:_authToken={CANARY}\n"),
    );
    host.dir(".npm/_cacache");
    let found = host.discover(&[".nvm/versions/node/v18.2.0/bin"]);
    assert_eq!(
        var(&found, "npm_config_registry"),
        Some(OsStr::new("https://npm.example/"))
    );
    assert!(
        found
            .mounts
            .iter()
            .any(|it| it.inside == Path::new("/home/agent/.npm/_cacache"))
    );
    host.env.clear();
}

#[test]
fn volta_shims_become_the_images_that_the_user_selected() {
    let host = Host::new();
    host.exe(".volta/bin/volta-shim");
    host.link(".volta/bin/node", "volta-shim");
    for version in ["18.0.0", "20.1.0"] {
        host.exe(&format!(".volta/tools/image/node/{version}/bin/node"));
        host.plant(&format!(".volta/tools/image/node/{version}"));
    }
    host.exe(".volta/tools/image/yarn/4.0.0/bin/yarn");
    host.exe(".volta/tools/image/packages/eslint/bin/eslint");
    host.file(
        ".volta/tools/user/platform.json",
        "{\n  \"node\": {\n    \"runtime\": \"18.0.0\",\n    \"npm\": null\n  },\n  \"yarn\": \"4.0.0\"\n}",
    );
    let found = host.discover(&[".volta/bin"]);
    assert!(host.on_path(&found, ".volta/tools/image/node/18.0.0/bin"));
    assert!(host.on_path(&found, ".volta/tools/image/yarn/4.0.0/bin"));
    assert!(host.on_path(&found, ".volta/tools/image/packages/eslint/bin"));
    assert!(!host.on_path(&found, ".volta/tools/image/node/20.1.0/bin"));
    assert!(!host.on_path(&found, ".volta/bin"));
}

#[test]
fn asdf_shims_become_the_versions_in_the_users_tool_versions() {
    let host = Host::new();
    host.script(".asdf/shims/node", "#!/bin/sh\n");
    for version in ["18.0.0", "20.1.0"] {
        host.exe(&format!(".asdf/installs/nodejs/{version}/bin/node"));
        host.plant(&format!(".asdf/installs/nodejs/{version}"));
    }
    host.exe(".asdf/installs/golang/1.22.1/go/bin/go");
    host.exe(".asdf/installs/ruby/3.3.0/bin/ruby");
    host.file(".tool-versions", "nodejs 18.0.0\ngolang 1.22 # newest\n");
    let found = host.discover(&[".asdf/shims"]);
    assert!(host.on_path(&found, ".asdf/installs/nodejs/18.0.0/bin"));
    assert!(host.on_path(&found, ".asdf/installs/golang/1.22.1/go/bin"));
    assert!(host.on_path(&found, ".asdf/installs/ruby/3.3.0/bin"));
    assert!(!host.on_path(&found, ".asdf/installs/nodejs/20.1.0/bin"));
    assert!(sees(
        &found,
        &host.path(".asdf/installs/nodejs/20.1.0/bin/node")
    ));
}

#[test]
fn mise_works_with_shims_and_with_activated_versions() {
    let host = Host::new();
    for version in ["20.1.0", "22.3.0"] {
        host.exe(&format!(
            ".local/share/mise/installs/node/{version}/bin/node"
        ));
        host.plant(&format!(".local/share/mise/installs/node/{version}"));
    }
    host.link(".local/share/mise/installs/node/20", "./20.1.0");
    host.exe(".local/share/mise/installs/ripgrep/14.1/rg");
    host.file(
        ".config/mise/config.toml",
        &format!("[tools]\nnode = \"20\"\n[env]\nTOKEN = \"{CANARY}\"\n"),
    );
    host.dir(".local/share/mise/shims");
    let found = host.discover(&[".local/share/mise/shims"]);
    assert!(host.on_path(&found, ".local/share/mise/installs/node/20/bin"));
    assert!(host.on_path(&found, ".local/share/mise/installs/ripgrep/14.1"));
    let found = host.discover(&[".local/share/mise/installs/node/22.3.0/bin"]);
    assert!(host.on_path(&found, ".local/share/mise/installs/node/22.3.0/bin"));
    assert!(sees(
        &found,
        &host.path(".local/share/mise/installs/node/20.1.0/bin/node")
    ));
}

#[test]
fn go_sees_its_root_and_modules_and_asks_nobody() {
    let host = Host::new();
    host.exe("sdk/go1.22.1/bin/go");
    host.dir("sdk/go1.22.1/pkg/tool");
    host.file("sdk/go1.22.1/VERSION", "go1.22.1\n");
    host.exe("go/bin/gopls");
    host.file("go/pkg/mod/example.com/m@v1.0.0/m.go", "package m");
    let found = host.discover(&["sdk/go1.22.1/bin", "go/bin"]);
    assert!(host.on_path(&found, "sdk/go1.22.1/bin"));
    assert!(sees(&found, &host.path("sdk/go1.22.1/pkg/tool")));
    assert!(!sees(&found, &host.path("go/src")));
    assert!(
        found
            .mounts
            .iter()
            .any(|it| it.inside == Path::new("/home/agent/go/pkg/mod"))
    );
    for (name, value) in [
        ("GOPROXY", "off"),
        ("GOTOOLCHAIN", "local"),
        ("GOPATH", "/home/agent/go"),
    ] {
        assert_eq!(var(&found, name), Some(OsStr::new(value)), "{name}");
    }
    let go = found.found.iter().find(|it| it.name == "go").unwrap();
    assert_eq!(go.version_hint.as_deref(), Some("go1.22.1"));
}

#[test]
fn sdkman_candidates_are_seen_and_a_maven_password_in_one_is_not() {
    let mut host = Host::new();
    host.file(".sdkman/bin/sdkman-init.sh", "");
    host.exe(".sdkman/candidates/java/21.0.2-tem/bin/java");
    host.dir(".sdkman/candidates/java/21.0.2-tem/lib/modules");
    host.link(".sdkman/candidates/java/current", "21.0.2-tem");
    host.exe(".sdkman/candidates/maven/3.9.6/bin/mvn");
    host.plant(".sdkman/candidates/maven/3.9.6");
    host.link(
        ".sdkman/candidates/maven/current",
        host.path(".sdkman/candidates/maven/3.9.6"),
    );
    host.file(".m2/repository/g/a/1/a-1.jar", "");
    host.env.push((
        "JAVA_HOME".into(),
        host.path(".sdkman/candidates/java/current").into(),
    ));
    let found = host.discover(&[
        ".sdkman/candidates/java/current/bin",
        ".sdkman/candidates/maven/current/bin",
    ]);
    assert!(host.on_path(&found, ".sdkman/candidates/java/current/bin"));
    assert!(host.on_path(&found, ".sdkman/candidates/maven/current/bin"));
    assert_eq!(
        var(&found, "JAVA_HOME"),
        Some(host.path(".sdkman/candidates/java/current").as_os_str())
    );
    assert!(
        found
            .mounts
            .iter()
            .any(|it| it.inside == Path::new("/home/agent/.m2/repository"))
    );
    assert!(!sees(&found, &host.path(".sdkman/etc/secret")));
}

#[test]
fn homebrew_is_seen_without_its_services_state_and_settings() {
    let host = Host::new();
    host.exe("brew/Cellar/node/22.0.0/bin/node");
    host.link("brew/bin/node", "../Cellar/node/22.0.0/bin/node");
    host.file("brew/var/postgres/pgpass", CANARY);
    host.file("brew/etc/redis.conf", CANARY);
    host.plant("brew");
    let found = host.discover(&["brew/bin"]);
    assert!(host.on_path(&found, "brew/bin"));
    assert!(sees(&found, &host.path("brew/Cellar/node/22.0.0/bin/node")));
}

#[test]
fn programs_of_pipx_uv_and_pip_in_local_bin_bring_their_environments() {
    let mut host = Host::new();
    let python = host.exe(".local/share/uv/python/cpython-3.12.4/bin/python3.12");
    host.dir(".local/share/uv/python/cpython-3.12.4/lib");
    host.link(
        ".local/share/uv/python/cpython-3.12.4/bin/python3",
        "python3.12",
    );
    for (root, name) in [
        (".local/share/pipx/venvs/pytest", "pytest"),
        (".local/share/uv/tools/ruff", "ruff"),
    ] {
        host.file(
            &format!("{root}/pyvenv.cfg"),
            &format!("home = {}\n", python.parent().unwrap().display()),
        );
        host.link(&format!("{root}/bin/python"), &python);
        let program = host.script(
            &format!("{root}/bin/{name}"),
            &format!("#!{}/bin/python\n", host.path(root).display()),
        );
        host.link(&format!(".local/bin/{name}"), program);
        host.plant(root);
    }
    host.exe(".local/bin/uv");
    host.file(".local/lib/python3.12/site-packages/mine.py", "");
    host.env
        .push(("XDG_DATA_HOME".into(), host.path(".local/share").into()));
    let found = host.discover(&[".local/bin"]);
    assert!(host.on_path(&found, ".local/bin"));
    for rest in [
        ".local/share/pipx/venvs/pytest/bin/pytest",
        ".local/share/uv/tools/ruff/bin/ruff",
        ".local/share/uv/python/cpython-3.12.4/bin/python3.12",
        ".local/lib/python3.12/site-packages/mine.py",
    ] {
        assert!(sees(&found, &host.path(rest)), "{rest}");
    }
    assert!(!sees(&found, &host.path(".local/share/uv/credentials")));
    assert_eq!(
        var(&found, "PYTHONUSERBASE"),
        Some(host.path(".local").as_os_str())
    );
    assert_eq!(
        var(&found, "UV_PYTHON_INSTALL_DIR"),
        Some(host.path(".local/share/uv/python").as_os_str())
    );
}

#[test]
fn other_installers_in_a_home_are_seen_with_what_they_need_and_no_more() {
    let host = Host::new();
    host.exe(".bun/bin/bun");
    host.exe(".deno/bin/deno");
    host.dir(".npm-global/lib/node_modules/left");
    host.script(
        ".npm-global/lib/node_modules/left/cli.js",
        "#!/usr/bin/env node\n",
    );
    host.link(".npm-global/bin/left", "../lib/node_modules/left/cli.js");
    host.plant(".npm-global");
    host.exe("miniconda3/bin/python3");
    host.dir("miniconda3/conda-meta");
    host.plant("miniconda3");
    host.exe(".local/share/fnm/node-versions/v20.1.0/installation/bin/node");
    host.dir(".local/share/fnm/node-versions/v20.1.0/installation/include/node");
    let shell = host.link(
        "fnm_shells/123",
        host.path(".local/share/fnm/node-versions/v20.1.0/installation"),
    );
    let fnm = shell.join("bin");
    let found = host.discover(&[
        ".bun/bin",
        ".deno/bin",
        ".npm-global/bin",
        "miniconda3/bin",
        fnm.to_str().unwrap(),
    ]);
    for entry in [".bun/bin", ".deno/bin", ".npm-global/bin", "miniconda3/bin"] {
        assert!(host.on_path(&found, entry), "{entry}");
    }
    assert!(sees(
        &found,
        &host.path(".npm-global/lib/node_modules/left/cli.js")
    ));
    assert!(sees(
        &found,
        &host.path(".local/share/fnm/node-versions/v20.1.0/installation/bin/node")
    ));
    assert!(!sees(&found, &host.path(".deno/credentials.json")));
}

#[test]
fn a_directory_of_personal_scripts_stays_outside_and_is_named() {
    let host = Host::new();
    host.script("bin/deploy", &format!("#!/bin/sh\nTOKEN={CANARY}\n"));
    let found = host.discover(&["bin", "missing/bin", "."]);
    assert!(!sees(&found, &host.path("bin")));
    assert!(
        found
            .notes
            .iter()
            .any(|it| it.what.contains("home/ada/bin is left out")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_policy_can_name_a_toolchain_but_not_a_home_nor_what_is_private_in_it() {
    let mut host = Host::new();
    host.exe("work/zig/zig");
    host.exe(".ssh/bin/x");
    host.exe("bin/x");
    host.exe(".config/tool/bin/x");
    host.extra_roots = [
        "~/work/zig",
        "~",
        "~/.ssh",
        "~/.config/tool",
        "/",
        "/root",
        "/run",
        "/var/run",
        "~/Documents",
        "~/nowhere",
        "../x",
    ]
    .map(PathBuf::from)
    .to_vec();
    host.extra_roots
        .push(host.home.parent().unwrap().to_owned());
    let found = host.discover(&[]);
    assert!(host.on_path(&found, "work/zig"));
    let mounted: Vec<_> = found
        .mounts
        .iter()
        .filter(|it| it.host.starts_with(host.dir.path()))
        .collect();
    assert_eq!(mounted.len(), 1, "{mounted:?}");
    assert!(found.notes.len() >= 9, "{:?}", found.notes);
    // Each says what to do about it.
    let mute = found.notes.iter().find(|it| it.remedy.is_empty());
    assert_eq!(mute, None);
}

#[test]
fn a_link_does_not_lead_a_mount_into_what_is_private() {
    let mut host = Host::new();
    host.exe(".ssh/bin/python3");
    host.dir(".ssh/lib");
    host.link("tools", host.path(".ssh"));
    host.link(".local/bin/python3", host.path(".ssh/bin/python3"));
    host.extra_roots.push("~/tools".into());
    let found = host.discover(&["tools/bin", ".local/bin"]);
    assert!(
        found
            .mounts
            .iter()
            .all(|it| !it.host.starts_with(host.path(".ssh"))),
        "{:?}",
        found.mounts
    );
}

#[test]
fn what_the_user_cannot_read_is_noted_and_not_fatal() {
    let host = Host::new();
    host.exe("locked/go/bin/go");
    fs::set_permissions(host.path("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let found = host.discover(&["locked/go/bin"]);
    // Root reads everything; anybody else is told.
    let root = rustix::process::geteuid().is_root();
    assert_eq!(
        found.notes.iter().any(|it| it.what.contains("cannot read")),
        !root,
        "{:?}",
        found.notes
    );
    fs::set_permissions(host.path("locked"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_host_with_too_much_keeps_the_bounds_and_says_so() {
    let host = Host::new();
    let names: Vec<String> = (0..200).map(|n| format!("many/{n}/bin")).collect();
    for name in &names {
        host.exe(&format!("{name}/python3"));
    }
    let entries: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = host.discover(&entries);
    assert!(found.mounts.len() > 32);
    assert!(
        found
            .notes
            .iter()
            .any(|it| it.what.contains("only the first 64 entries")),
        "{:?}",
        found.notes
    );
}

#[test]
fn a_toolchain_behind_a_link_is_seen_at_both_paths() {
    let host = Host::new();
    host.exe("disk/tools/zulu/bin/java");
    host.dir("disk/tools/zulu/lib/modules");
    host.link("jdk", host.path("disk/tools/zulu"));
    let found = host.discover(&["jdk/bin"]);
    assert!(host.on_path(&found, "jdk/bin"));
    assert!(sees(&found, &host.path("disk/tools/zulu/bin/java")));
}

#[test]
fn every_link_on_the_way_to_a_program_is_seen() {
    let host = Host::new();
    host.file("venvs/x/pyvenv.cfg", "home = /usr/bin\n");
    host.link("venvs/x/bin/python3", "/usr/bin/env");
    let first = host.link("bin/tool", host.path("venvs/x/bin/python3"));
    let mounts = host.with(&[], |input| agent_roots(&first, input));
    assert!(
        inside(&mounts, &host.path("venvs/x/bin/python3")),
        "{mounts:?}"
    );
    assert!(inside(&mounts, &first), "{mounts:?}");
}

#[test]
fn an_agent_from_npm_brings_its_package_and_the_node_that_runs_it() {
    let host = Host::new();
    host.exe(".nvm/versions/node/v20.1.0/bin/node");
    host.dir(".nvm/versions/node/v20.1.0/include/node");
    host.script(
        "pre/lib/node_modules/@anthropic-ai/claude-code/cli.js",
        "#!/usr/bin/env node\n",
    );
    host.file("pre/lib/node_modules/@other/secret/x", CANARY);
    let program = host.link(
        "pre/bin/claude",
        "../lib/node_modules/@anthropic-ai/claude-code/cli.js",
    );
    let mounts = host.with(&["pre/bin", ".nvm/versions/node/v20.1.0/bin"], |input| {
        agent_roots(&program, input)
    });
    assert!(inside(&mounts, &program));
    assert!(inside(
        &mounts,
        &host.path("pre/lib/node_modules/@anthropic-ai/claude-code/cli.js")
    ));
    assert!(inside(
        &mounts,
        &host.path(".nvm/versions/node/v20.1.0/bin/node")
    ));
    assert_no_canary(&mounts);
}

#[test]
fn an_agent_that_is_one_native_program_brings_that_alone() {
    let host = Host::new();
    host.exe(".local/share/claude/versions/2.1.0");
    host.file(".local/share/claude/settings", CANARY);
    let program = host.link(
        ".local/bin/claude",
        host.path(".local/share/claude/versions/2.1.0"),
    );
    let mounts = host.with(&[".local/bin"], |input| agent_roots(&program, input));
    assert!(inside(&mounts, &program));
    assert!(inside(
        &mounts,
        &host.path(".local/share/claude/versions/2.1.0")
    ));
    assert_eq!(mounts.len(), 2);
    let mounts = host.with(&[], |input| agent_roots(Path::new("/usr/bin/env"), input));
    assert_eq!(mounts, []);
}

#[test]
fn looking_takes_no_longer_than_the_way_to_the_first_call_allows() {
    // The host as it is; the mark is 2 ms for an optimised build, with room here for a slow one.
    let env = |name: &str| std::env::var_os(name);
    let input = Input {
        path: std::env::var_os("PATH").unwrap_or_default(),
        home: std::env::var_os("HOME").unwrap_or_default().into(),
        env: &env,
        extra_roots: Vec::new(),
    };
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(discover(&input));
            start.elapsed()
        })
        .min();
    assert!(best < Some(Duration::from_millis(20)), "{best:?}");
}
