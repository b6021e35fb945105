//! What other installers put into a home, and agents.

use crate::host::{CANARY, Host, assert_no_canary, inside, sees, var};
use std::path::Path;

use skep_sandbox::toolchains::agent_roots;

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
