//! The checks and the setup of a repository, from the files at its top.

use serde_json::Value;

/// A check that was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) name: String,
    /// Its command.
    pub(crate) command: String,
    /// Globs of the files that it is about.
    pub(crate) when: Vec<String>,
    /// The file that it was found by.
    pub(crate) because: &'static str,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Found {
    /// Commands that must pass, in order.
    pub(crate) checks: Vec<Check>,
    /// Commands that prepare a workspace, with the file that each was found by.
    pub(crate) setup: Vec<(String, &'static str)>,
    /// Paths that only a person should change.
    pub(crate) protected: Vec<String>,
}

/// Looks at the top of a repository. `file` gives the text of a file there, or of one in a
/// directory; none where there is no such file. `exists` says whether a path is there.
pub(crate) fn detect(
    file: &dyn Fn(&str) -> Option<String>,
    exists: &dyn Fn(&str) -> bool,
) -> Found {
    let mut found = Found::default();
    rust(&mut found, file, exists);
    node(&mut found, file, exists);
    python(&mut found, file, exists);
    go(&mut found, exists);
    jvm(&mut found, exists);
    others(&mut found, exists);
    if found.checks.is_empty() {
        // A task runner often only calls the tools above; where there are none, it is the way.
        runners(&mut found, file);
    }
    if exists(".github/workflows") {
        found.protected.push(".github/workflows/**".into());
    }
    if exists(".gitlab-ci.yml") {
        found.protected.push(".gitlab-ci.yml".into());
    }
    found.name_apart();
    found
}

impl Found {
    fn check(&mut self, name: &str, command: &str, when: &[&str], because: &'static str) {
        self.checks.push(Check {
            name: name.into(),
            command: command.into(),
            when: when.iter().map(|&glob| glob.into()).collect(),
            because,
        });
    }

    /// Two languages may both have a `test`: the later one is named after what it was found by.
    fn name_apart(&mut self) {
        let mut taken: Vec<String> = Vec::new();
        for check in &mut self.checks {
            if taken.contains(&check.name) {
                let by = check.because.split('.').next().unwrap_or("other");
                check.name = format!("{}-{}", check.name, by.to_lowercase());
            }
            taken.push(check.name.clone());
        }
    }
}

fn rust(found: &mut Found, file: &dyn Fn(&str) -> Option<String>, exists: &dyn Fn(&str) -> bool) {
    let Some(manifest) = file("Cargo.toml") else {
        return;
    };
    let parsed: Option<toml::Table> = toml::from_str(&manifest).ok();
    let has = |key: &str| parsed.as_ref().is_some_and(|table| table.contains_key(key));
    let whole = if has("workspace") { " --workspace" } else { "" };
    let when = ["**/*.rs", "**/Cargo.toml", "Cargo.lock"];
    found.check("test", &format!("cargo test{whole}"), &when, "Cargo.toml");
    let lints = has("lints")
        || parsed
            .as_ref()
            .and_then(|table| table.get("workspace")?.get("lints"))
            .is_some();
    if lints || exists("clippy.toml") || exists(".clippy.toml") {
        let command = format!("cargo clippy{whole} --all-targets");
        found.check("clippy", &command, &when, "Cargo.toml");
    }
    if exists("rustfmt.toml") || exists(".rustfmt.toml") {
        found.check("format", "cargo fmt --all --check", &when, "rustfmt.toml");
    }
}

fn node(found: &mut Found, file: &dyn Fn(&str) -> Option<String>, exists: &dyn Fn(&str) -> bool) {
    let Some(manifest) = file("package.json") else {
        return;
    };
    let manifest: Value = serde_json::from_str(&manifest).unwrap_or(Value::Null);
    let (tool, setup) = if exists("pnpm-lock.yaml") {
        ("pnpm", Some("pnpm install --frozen-lockfile --offline"))
    } else if exists("yarn.lock") && exists(".yarnrc.yml") {
        ("yarn", Some("yarn install --immutable"))
    } else if exists("yarn.lock") {
        ("yarn", Some("yarn install --frozen-lockfile --offline"))
    } else if exists("bun.lock") || exists("bun.lockb") {
        ("bun", Some("bun install --frozen-lockfile"))
    } else if exists("package-lock.json") {
        ("npm", Some("npm ci --offline --no-audit --no-fund"))
    } else {
        ("npm", None)
    };
    if let Some(setup) = setup {
        found.setup.push((setup.into(), "package.json"));
    }
    let script = |name: &str| {
        manifest
            .get("scripts")
            .and_then(|scripts| scripts.get(name))
            .and_then(Value::as_str)
            // What `npm init` writes where there are no tests.
            .filter(|command| !command.contains("no test specified"))
    };
    for (script_name, name) in [
        ("test", "test"),
        ("lint", "lint"),
        ("typecheck", "types"),
        ("type-check", "types"),
    ] {
        if script(script_name).is_some() {
            let command = match (tool, script_name) {
                ("npm", "test") => "npm test".to_owned(),
                _ => format!("{tool} run {script_name}"),
            };
            found.check(name, &command, &[], "package.json");
        }
    }
}

fn python(found: &mut Found, file: &dyn Fn(&str) -> Option<String>, exists: &dyn Fn(&str) -> bool) {
    let project = file("pyproject.toml").unwrap_or_default();
    let setup_cfg = file("setup.cfg").unwrap_or_default();
    let tox = file("tox.ini").unwrap_or_default();
    let is_python = !project.is_empty()
        || [
            "setup.py",
            "setup.cfg",
            "requirements.txt",
            "tox.ini",
            "pytest.ini",
        ]
        .iter()
        .any(|name| exists(name));
    if !is_python {
        return;
    }
    let because = if project.is_empty() {
        "setup.py"
    } else {
        "pyproject.toml"
    };
    let requirements = [
        "requirements.txt",
        "requirements-dev.txt",
        "dev-requirements.txt",
    ]
    .iter()
    .filter_map(|name| file(name))
    .collect::<String>();
    let prefix = if exists("uv.lock") {
        "uv run --offline "
    } else {
        ""
    };
    let pytest = project.contains("pytest")
        || setup_cfg.contains("[tool:pytest]")
        || tox.contains("[pytest]")
        || requirements.contains("pytest")
        || exists("pytest.ini")
        || exists("conftest.py")
        || exists("tests/conftest.py");
    if pytest {
        let python = if prefix.is_empty() {
            "python3 -m pytest"
        } else {
            "pytest"
        };
        found.check("test", &format!("{prefix}{python}"), &[], because);
    } else if !tox.is_empty() {
        found.check("test", "tox", &[], "tox.ini");
    } else if exists("tests") || exists("test") {
        found.check(
            "test",
            &format!("{prefix}python3 -m unittest"),
            &[],
            because,
        );
    }
    if project.contains("[tool.ruff") || exists("ruff.toml") || exists(".ruff.toml") {
        found.check(
            "lint",
            &format!("{prefix}ruff check ."),
            &["**/*.py"],
            because,
        );
    }
    if project.contains("[tool.mypy") || exists("mypy.ini") {
        found.check("types", &format!("{prefix}mypy ."), &["**/*.py"], because);
    }
}

fn go(found: &mut Found, exists: &dyn Fn(&str) -> bool) {
    if exists("go.mod") || exists("go.work") {
        let when = ["**/*.go", "go.mod", "go.sum"];
        found.check("test", "go test ./...", &when, "go.mod");
        found.check("vet", "go vet ./...", &when, "go.mod");
    }
}

fn jvm(found: &mut Found, exists: &dyn Fn(&str) -> bool) {
    if exists("build.gradle") || exists("build.gradle.kts") {
        let gradle = if exists("gradlew") {
            "./gradlew"
        } else {
            "gradle"
        };
        let command = format!("{gradle} --offline --no-daemon test");
        found.check("test", &command, &[], "build.gradle");
    } else if exists("pom.xml") {
        let maven = if exists("mvnw") { "./mvnw" } else { "mvn" };
        let command = format!("{maven} --offline --batch-mode test");
        found.check("test", &command, &[], "pom.xml");
    }
}

fn others(found: &mut Found, exists: &dyn Fn(&str) -> bool) {
    if exists("mix.exs") {
        found.check("test", "mix test", &[], "mix.exs");
    }
    if exists("Gemfile") {
        if exists(".rspec") || exists("spec") {
            found.check("test", "bundle exec rspec", &[], "Gemfile");
        } else if exists("Rakefile") || exists("test") {
            found.check("test", "bundle exec rake test", &[], "Gemfile");
        }
    }
    if exists("composer.json") && (exists("phpunit.xml") || exists("phpunit.xml.dist")) {
        found.check("test", "vendor/bin/phpunit", &[], "composer.json");
    }
    if exists("CMakePresets.json") || exists("CMakeLists.txt") {
        let command = "cmake -S . -B build && cmake --build build && ctest --test-dir build";
        found.check("test", command, &[], "CMakeLists.txt");
    }
}

fn runners(found: &mut Found, file: &dyn Fn(&str) -> Option<String>) {
    let justfile = file("justfile").or_else(|| file("Justfile"));
    if justfile.is_some_and(|text| has_target(&text, "test")) {
        found.check("test", "just test", &[], "justfile");
        return;
    }
    let makefile = file("Makefile")
        .or_else(|| file("GNUmakefile"))
        .or_else(|| file("makefile"));
    if let Some(makefile) = makefile {
        for target in ["test", "check"] {
            if has_target(&makefile, target) {
                found.check("test", &format!("make {target}"), &[], "Makefile");
                return;
            }
        }
    }
}

/// Whether a Makefile or justfile has this target: a line that begins with it and a colon.
fn has_target(text: &str, target: &str) -> bool {
    text.lines().any(|line| {
        let line = line.strip_prefix('@').unwrap_or(line);
        match line.split_once(':') {
            Some((names, rest)) => {
                !line.starts_with([' ', '\t', '#'])
                    && !rest.starts_with('=')
                    && names.split_whitespace().next() == Some(target)
            }
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(files: &[(&str, &str)]) -> Vec<String> {
        found(files)
            .checks
            .into_iter()
            .map(|check| check.command)
            .collect()
    }

    fn found(files: &[(&str, &str)]) -> Found {
        let file = |path: &str| {
            files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, text)| (*text).to_owned())
        };
        let exists = |path: &str| {
            files
                .iter()
                .any(|(name, _)| *name == path || name.starts_with(&format!("{path}/")))
        };
        detect(&file, &exists)
    }

    #[test]
    fn a_rust_repository_is_tested_by_cargo_and_linted_where_lints_are_set() {
        assert_eq!(
            commands(&[("Cargo.toml", "[package]\nname='a'")]),
            ["cargo test"]
        );
        assert_eq!(
            commands(&[(
                "Cargo.toml",
                "[workspace]\nmembers=[]\n[workspace.lints.clippy]\ntodo='deny'"
            )]),
            [
                "cargo test --workspace",
                "cargo clippy --workspace --all-targets"
            ]
        );
    }

    #[test]
    fn a_node_repository_is_tested_by_its_scripts_with_its_package_manager() {
        let manifest = r#"{"scripts":{"test":"jest","lint":"eslint ."}}"#;
        let npm = found(&[("package.json", manifest), ("package-lock.json", "{}")]);
        assert_eq!(npm.setup[0].0, "npm ci --offline --no-audit --no-fund");
        assert_eq!(npm.checks[0].command, "npm test");
        assert_eq!(npm.checks[1].command, "npm run lint");
        assert_eq!(
            commands(&[("package.json", manifest), ("pnpm-lock.yaml", "")]),
            ["pnpm run test", "pnpm run lint"]
        );
        let unused = r#"{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}"#;
        assert!(commands(&[("package.json", unused)]).is_empty());
    }

    #[test]
    fn a_python_repository_is_tested_by_what_it_uses() {
        assert_eq!(
            commands(&[("pyproject.toml", "[tool.pytest.ini_options]\n[tool.ruff]")]),
            ["python3 -m pytest", "ruff check ."]
        );
        assert_eq!(
            commands(&[("setup.py", ""), ("tests/test_a.py", "")]),
            ["python3 -m unittest"]
        );
        assert_eq!(commands(&[("tox.ini", "[tox]")]), ["tox"]);
        assert_eq!(
            commands(&[("pyproject.toml", "pytest"), ("uv.lock", "")]),
            ["uv run --offline pytest"]
        );
    }

    #[test]
    fn other_languages_have_their_own_ways() {
        for (files, expected) in [
            (&[("go.mod", "")][..], "go test ./..."),
            (
                &[("build.gradle.kts", ""), ("gradlew", "")],
                "./gradlew --offline --no-daemon test",
            ),
            (&[("pom.xml", "")], "mvn --offline --batch-mode test"),
            (&[("mix.exs", "")], "mix test"),
            (&[("Gemfile", ""), ("spec/a.rb", "")], "bundle exec rspec"),
        ] {
            assert_eq!(commands(files)[0], expected);
        }
    }

    #[test]
    fn a_task_runner_is_used_where_nothing_else_is_known() {
        assert_eq!(
            commands(&[("Makefile", "all: x\ntest: all\n\t./t\n")]),
            ["make test"]
        );
        assert_eq!(commands(&[("Makefile", "check:\n\t./t\n")]), ["make check"]);
        assert_eq!(
            commands(&[("justfile", "test *args:\n  ./t\n")]),
            ["just test"]
        );
        assert!(commands(&[("Makefile", "test := x\n#test:\n\ttest: y\n")]).is_empty());
        assert_eq!(
            commands(&[("Makefile", "test:\n"), ("go.mod", "")]),
            ["go test ./...", "go vet ./..."]
        );
    }

    #[test]
    fn two_languages_have_two_names_and_workflows_are_protected() {
        let both = found(&[
            ("Cargo.toml", "[package]"),
            ("package.json", r#"{"scripts":{"test":"x"}}"#),
            (".github/workflows/ci.yml", ""),
        ]);
        let names: Vec<_> = both
            .checks
            .iter()
            .map(|check| check.name.as_str())
            .collect();
        assert_eq!(names, ["test", "test-package"]);
        assert_eq!(both.protected, [".github/workflows/**"]);
    }
}
