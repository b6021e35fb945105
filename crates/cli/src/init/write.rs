//! The text of a `skep.toml`.

use super::Found;
use domain::policy::Commit;

/// A commented `skep.toml` with what was found.
pub(crate) fn policy_text(found: &Found) -> String {
    let mut out = String::from(
        "# What Skep asks of changes to this repository. It is read at the commit that work starts\n\
         # from, so commit it. Agents cannot change it.\n\
         \n# Ignored files of your tree that agents and checks get a copy of.\n\
         # include = [\".env.test\"]\n",
    );
    checks(&mut out, found);
    setup(&mut out, found);
    paths(&mut out, found);
    out.push_str(
        "\n# Where changes land. Skep never writes another branch.\n\
         # [integration]\n\
         # branch = \"skep/integration\"\n\
         \n# Who the commits are from, and what they say; the names in braces are filled in.\n\
         # [commit]\n",
    );
    let commit = Commit::default();
    for (key, value) in [
        ("name", &commit.name),
        ("email", &commit.email),
        ("message", &commit.message),
    ] {
        out.push_str(&format!("# {key} = {}\n", basic(value)));
    }
    out.push_str(
        "\n# Toolchains that are not found from PATH: absolute directories, seen read-only.\n\
         # [toolchains]\n\
         # roots = [\"/opt/tool\"]\n\
         \n# What may leave the sandboxes, for any of agent, setup and checks. Else nothing may.\n\
         # [egress]\n\
         # allow = [{ for = [\"setup\"], host = \"packages.example.com\" }]\n\
         # deny = [{ host = \"telemetry.example.com\" }]\n",
    );
    out
}

/// A basic string of TOML on one line, whatever is in it, for a comment: JSON's escapes are TOML's.
fn basic(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn checks(out: &mut String, found: &Found) {
    out.push_str(
        "\n# Commands that must pass on every change before it lands, in order. Each runs in a fresh\n\
         # sandbox without a network, on exactly what would land.\n",
    );
    if found.checks.is_empty() {
        out.push_str(
            "# No test command was found here. Until there is a check, changes are labelled\n\
             # \"unchecked\".\n\
             # [[check]]\n\
             # name = \"test\"\n\
             # command = \"make test\"\n\
             # when = [\"src/**\"]     # only if the change touches one of these\n\
             # timeout = \"10m\"\n",
        );
    }
    for check in &found.checks {
        out.push_str(&format!(
            "\n# Found by {}.\n[[check]]\nname = {}\ncommand = {}\n",
            check.because,
            quoted(&check.name),
            quoted(&check.command)
        ));
        if check.when.is_empty() {
            out.push_str("# when = [\"src/**\"]     # only if the change touches one of these\n");
        } else {
            out.push_str(&format!("when = {}\n", list(&check.when)));
        }
        out.push_str("timeout = \"10m\"\n");
    }
}

const INPUTS: &str = "\
# It runs once for each commit. With `inputs` it sees lock files, manifests and what is named here,
# nothing else, and runs once for all commits in which these are the same.
# inputs = [\"patches/**\"]
";

fn setup(out: &mut String, found: &Found) {
    out.push_str(
        "\n# What prepares a workspace for agents and checks. It runs without a network: what it\n\
         # needs is in the caches of this machine, or is asked for in [egress].\n",
    );
    if found.setup.is_empty() {
        out.push_str("# [setup]\n# command = \"make deps\"\n# timeout = \"10m\"\n");
        out.push_str(INPUTS);
        return;
    }
    let commands: Vec<&str> = found
        .setup
        .iter()
        .map(|(command, _)| command.as_str())
        .collect();
    out.push_str(&format!(
        "[setup]\ncommand = {}\ntimeout = \"10m\"\n",
        quoted(&commands.join(" && "))
    ));
    out.push_str(INPUTS);
}

fn paths(out: &mut String, found: &Found) {
    out.push_str("\n[paths]\n# Only a person may change these. skep.toml is always one of them.\n");
    if found.protected.is_empty() {
        out.push_str("# protected = [\"deploy/**\"]\n");
    } else {
        out.push_str(&format!("protected = {}\n", list(&found.protected)));
    }
    out.push_str(
        "# These must not be in a change at all.\n# forbidden = [\"**/*.pem\"]\n\
         # max_files = 200\n# max_file_bytes = 1000000\n",
    );
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::detect::{Check, Found};
    use domain::policy::{self, Policy};

    fn full() -> Found {
        Found {
            checks: vec![
                Check {
                    name: "test".into(),
                    command: "sh -c \"a 'b'\" \\ && é".into(),
                    when: vec!["**/*.rs".into(), "Cargo.lock".into()],
                    because: "Cargo.toml",
                },
                Check {
                    name: "lint".into(),
                    command: "npm run lint".into(),
                    when: Vec::new(),
                    because: "package.json",
                },
            ],
            setup: vec![("npm ci".into(), "package.json")],
            protected: vec![".github/workflows/**".into()],
        }
    }

    #[test]
    fn what_is_written_is_a_policy_that_says_what_was_found() {
        let policy = Policy::parse(policy_text(&full()).as_bytes()).unwrap();
        assert_eq!(policy.checks.len(), 2);
        assert_eq!(policy.checks[0].command, "sh -c \"a 'b'\" \\ && é");
        assert_eq!(policy.checks[0].when.len(), 2);
        assert_eq!(policy.setup.unwrap().command, "npm ci");
        assert_eq!(policy.paths.protected, [".github/workflows/**"]);
        insta::assert_snapshot!("init_full", policy_text(&full()));
    }

    #[test]
    fn a_repository_where_nothing_is_found_gets_examples_as_comments() {
        let text = policy_text(&Found::default());
        let policy = Policy::parse(text.as_bytes()).unwrap();
        assert_eq!(policy, Policy::default());
        assert!(text.contains("\"unchecked\""));
    }

    #[test]
    fn every_example_in_a_comment_is_valid_too() {
        let text: String = policy_text(&Found::default())
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(code) if code.starts_with('[') || code.contains(" = ") => format!("{code}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let policy = Policy::parse(text.as_bytes()).unwrap();
        assert_eq!(policy.include, [".env.test"]);
        assert_eq!(policy.paths.max_files, Some(200));
        assert_eq!(policy.paths.forbidden, ["**/*.pem"]);
        assert_eq!(policy.commit, Commit::default());
    }

    #[test]
    fn every_key_that_a_policy_has_is_in_the_file() {
        // Written out without `..`: a new key does not compile until it is here.
        let whole = Policy {
            checks: vec![policy::Check {
                name: "test".into(),
                command: "true".into(),
                when: vec!["**".into()],
                timeout: policy::CHECK_TIMEOUT,
            }],
            setup: Some(policy::Setup {
                command: "true".into(),
                timeout: policy::CHECK_TIMEOUT,
                inputs: Some(vec!["a".into()]),
            }),
            paths: policy::Paths {
                protected: vec!["a".into()],
                forbidden: vec!["a".into()],
                max_file_bytes: Some(1),
                max_files: Some(1),
            },
            integration: policy::Integration::default(),
            commit: Commit::default(),
            include: vec!["a".into()],
            toolchains: policy::Toolchains {
                roots: vec!["/a".into()],
            },
            egress: domain::egress::Asked {
                allow: vec![domain::egress::Rule::default()],
                deny: vec![domain::egress::Rule::default()],
            },
        };
        let text = policy_text(&Found::default());
        let mut seen = 0;
        for (key, value) in serde_json::to_value(whole).unwrap().as_object().unwrap() {
            let table = value.get(0).unwrap_or(value).as_object();
            let keys = match table {
                Some(table) => table.keys().collect(),
                None => vec![key],
            };
            assert!(text.contains(key), "{key}");
            for key in keys {
                assert!(text.contains(&format!("{key} = ")), "{key}");
                seen += 1;
            }
        }
        assert_eq!(seen, 19);
    }
}
