//! Toolchains of languages, and what selects a version of one.

use crate::host::{CANARY, Host, sees, var};
use std::ffi::OsStr;
use std::path::Path;

use skep_sandbox::toolchains::{Access, Toolchains};

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
