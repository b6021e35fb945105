//! Hosts that serve repositories and issues.

use super::{Environment, file::is_variable};
use domain::origin;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The hosts that need no configuration: what serves there, and the variables that hold what lets in.
const USUAL: [(&str, origin::Forge, &[&str]); 3] = [
    (
        "github.com",
        origin::Forge::GitHub,
        &["GITHUB_TOKEN", "GH_TOKEN"],
    ),
    ("gitlab.com", origin::Forge::GitLab, &["GITLAB_TOKEN"]),
    ("codeberg.org", origin::Forge::Forgejo, &["CODEBERG_TOKEN"]),
];

/// A table `[forges."HOST"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Forge {
    /// What serves there.
    kind: Option<origin::Forge>,
    /// The address of its interface, where it is not the usual one.
    api: Option<String>,
    /// The variable of the environment that holds what lets in there.
    token_env: Option<String>,
}

/// Says which of them makes no sense.
pub(super) fn validate(forges: &BTreeMap<String, Forge>) -> Result<(), String> {
    for (host, forge) in forges {
        if host.is_empty() || host.contains(['/', '@']) || *host != host.to_ascii_lowercase() {
            return Err(format!(
                "`[forges.\"{}\"]` is not named by a host: write it as in `git.example.org`, in small \
                 letters, with its port where the URL has one",
                host.escape_debug()
            ));
        }
        if let Some(api) = &forge.api
            && (!(api.starts_with("https://") || api.starts_with("http://")) || api.contains('@'))
        {
            return Err(format!(
                "`api` of `[forges.\"{host}\"]` is not an address like https://{host}/api/v1"
            ));
        }
        if let Some(variable) = &forge.token_env
            && !is_variable(variable)
        {
            return Err(format!(
                "`token_env` of `[forges.\"{host}\"]` is not the name of a variable: it names the \
                 variable that holds the token, and is not the token itself"
            ));
        }
    }
    Ok(())
}

/// What is known of hosts: what a person has written, and the usual.
pub(crate) fn known(forges: &BTreeMap<String, Forge>, env: &Environment) -> server::Forges {
    let mut all: BTreeMap<String, server::Forge> = USUAL
        .iter()
        .map(|(host, kind, variables)| {
            let forge = server::Forge {
                kind: Some(*kind),
                api: None,
                token: variables.iter().find_map(|name| env.text(name)),
            };
            ((*host).to_owned(), forge)
        })
        .collect();
    for (host, written) in forges {
        let forge = all.entry(host.clone()).or_default();
        forge.kind = written.kind.or(forge.kind);
        forge.api = written.api.clone();
        if let Some(variable) = &written.token_env {
            forge.token = env.text(variable);
        }
    }
    server::Forges(all)
}

/// The variables that may hold a token, whether they are set or not.
pub(crate) fn variables(forges: &BTreeMap<String, Forge>) -> Vec<String> {
    let usual = USUAL.iter().flat_map(|(.., names)| names.iter().copied());
    let written = forges.values().filter_map(|forge| forge.token_env.clone());
    usual.map(str::to_owned).chain(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_its_host_and_what_is_written_comes_before_the_usual() {
        let env = Environment::of([("GH_TOKEN", "a"), ("MINE", "b"), ("GITLAB_TOKEN", "c")]);
        let mine = Forge {
            kind: Some(origin::Forge::Forgejo),
            api: None,
            token_env: Some("MINE".into()),
        };
        let forges = BTreeMap::from([
            ("git.example.org".to_owned(), mine.clone()),
            ("gitlab.com".to_owned(), mine),
        ]);
        let known = known(&forges, &env).0;
        assert_eq!(known["github.com"].token.as_deref(), Some("a"));
        assert_eq!(known["git.example.org"].token.as_deref(), Some("b"));
        assert_eq!(known["gitlab.com"].token.as_deref(), Some("b"));
        assert_eq!(known["codeberg.org"].token, None);
        assert!(!format!("{known:?}").contains("\"a\""));
    }
}
