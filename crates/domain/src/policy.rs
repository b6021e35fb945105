//! What a repository asks of its changes: its `skep.toml`, read at the base commit.

use crate::{
    egress::{self, Asked},
    scope::{self, Globs},
    time::parse_duration,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The file at the top of the repository that holds the policy.
pub const FILE: &str = "skep.toml";
/// The branch that integrated work lands on where the policy names no other.
pub const INTEGRATION_BRANCH: &str = "skep/integration";
/// How long a check may take where the policy does not say.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(600);
/// The most checks a policy may have.
pub const MAX_CHECKS: usize = 50;
/// The longest `skep.toml`, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// The policy of a repository. A repository without a `skep.toml` has the default one, and its
/// changes are labelled "unchecked".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Commands that must pass on every change, in order.
    #[serde(rename = "check", skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// What prepares a workspace before the agent and before the checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// Which paths changes may touch.
    pub paths: Paths,
    /// Where changes land.
    pub integration: Integration,
    /// Who the commits are from and what they say.
    pub commit: Commit,
    /// Ignored files of the user's tree that workspaces get a copy of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Toolchains that are not found from `PATH`.
    pub toolchains: Toolchains,
    /// What may leave the sandboxes, if the user's configuration grants it.
    #[serde(skip_serializing_if = "Asked::is_empty")]
    pub egress: Asked,
}

/// A command that must pass on the extracted change, in a fresh sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What it is called in the evidence.
    pub name: String,
    /// The command, for `sh -c`, at the top of the tree.
    pub command: String,
    /// Globs: the check runs when the change touches one of these; empty means always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<String>,
    /// How long it may take, such as `10m`.
    #[serde(default = "check_timeout", with = "duration_text")]
    pub timeout: Duration,
}

/// A command that prepares a workspace: dependencies, a first build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The command, for `sh -c`, at the top of the tree.
    pub command: String,
    /// How long it may take.
    #[serde(default = "check_timeout", with = "duration_text")]
    pub timeout: Duration,
    /// Globs of the files that it needs besides lock files, manifests and their like. It sees nothing
    /// else then, so that what it leaves serves every commit in which these are the same. Without, it
    /// sees the whole commit, and what it leaves serves that commit alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
}

/// Which paths changes may touch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Globs of paths that only a person may change; `skep.toml` is always one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<String>,
    /// Globs of paths that must not exist in a change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbidden: Vec<String>,
    /// The most bytes one changed file may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// The most files one change may touch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
}

impl Paths {
    /// The most bytes one changed file may have where the policy does not say.
    pub const MAX_FILE_BYTES: u64 = 10 << 20;
    /// The most files one change may touch where the policy does not say.
    pub const MAX_FILES: u32 = 2_000;
}

/// Where changes land.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Integration {
    /// The branch.
    pub branch: String,
}

impl Default for Integration {
    fn default() -> Self {
        Self {
            branch: INTEGRATION_BRANCH.into(),
        }
    }
}

/// Who the commits are from and what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// The author's and committer's name.
    pub name: String,
    /// Their address.
    pub email: String,
    /// The message. `{title}`, `{summary}`, `{request}`, `{job}`, `{attempt}`, `{agent}` and
    /// `{model}` are filled in.
    pub message: String,
}

impl Default for Commit {
    fn default() -> Self {
        Self {
            name: "Skep".into(),
            email: "skep@localhost".into(),
            message: "{title}\n\n{summary}\n\nSkep-Request: {request}\nSkep-Job: {job}\nSkep-Attempt: {attempt}\nSkep-Agent: {agent}\nSkep-Model: {model}\n".into(),
        }
    }
}

/// Toolchains that are not found from `PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Toolchains {
    /// Absolute directories that sandboxes see read-only, at the same path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is longer than [`MAX_BYTES`] or not UTF-8.
    #[error("{FILE} is not a text of at most {MAX_BYTES} bytes")]
    NotText,
    /// A line cannot be read.
    #[error("{FILE}, line {line}: {message}{}", suggestion(.nearest.as_deref()))]
    Line {
        /// The line, from one.
        line: usize,
        /// What is wrong there.
        message: String,
        /// The known key that is most like the unknown one.
        nearest: Option<String>,
    },
    /// A value is readable but makes no sense.
    #[error("{FILE}: {0}")]
    Value(String),
    /// A glob cannot be read.
    #[error("{FILE}: `{key}` is not valid")]
    Glob {
        /// The key that holds it.
        key: &'static str,
        /// Why.
        source: scope::Error,
    },
    /// A rule of egress makes no sense.
    #[error("{FILE}: {0}")]
    Egress(#[from] egress::Error),
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

impl Policy {
    /// Reads a `skep.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line, and the nearest name for an unknown key.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::NotText);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::NotText)?;
        let policy: Self = toml::from_str(text).map_err(|error| line_error(text, &error))?;
        policy.validate()?;
        Ok(policy)
    }

    fn validate(&self) -> Result<(), Error> {
        let value = |message: String| Err(Error::Value(message));
        if self.checks.len() > MAX_CHECKS {
            return value(format!(
                "{} checks, and {MAX_CHECKS} is the most",
                self.checks.len()
            ));
        }
        for (index, check) in self.checks.iter().enumerate() {
            if check.name.trim().is_empty() || check.command.trim().is_empty() {
                return value(format!("check {} needs a name and a command", index + 1));
            }
            if self
                .checks
                .iter()
                .take(index)
                .any(|other| other.name == check.name)
            {
                return value(format!("two checks are named `{}`", check.name));
            }
            globs("check.when", &check.when)?;
        }
        globs("paths.protected", &self.paths.protected)?;
        globs("paths.forbidden", &self.paths.forbidden)?;
        globs("include", &self.include)?;
        if let Some(inputs) = self.setup.as_ref().and_then(|setup| setup.inputs.as_ref()) {
            globs("setup.inputs", inputs)?;
            for input in inputs {
                if let Some(why) = scope::never_matches(input) {
                    let input = input.escape_debug();
                    return value(format!("`setup.inputs`: `{input}` matches nothing: {why}"));
                }
            }
        }
        self.egress.validate()?;
        let branch = &self.integration.branch;
        if !is_branch(branch) {
            return value(format!("`{branch}` cannot be the name of a branch"));
        }
        if let Some(root) = self
            .toolchains
            .roots
            .iter()
            .find(|root| !root.starts_with('/'))
        {
            return value(format!(
                "the toolchain root `{root}` is not an absolute path"
            ));
        }
        for (key, text) in [("name", &self.commit.name), ("email", &self.commit.email)] {
            if text.trim().is_empty() || text.contains(['<', '>', '\n', '\0']) {
                return value(format!(
                    "commit.{key} `{}` cannot be used in a commit",
                    text.escape_debug()
                ));
            }
        }
        Ok(())
    }

    /// Whether changes are checked by the repository's own commands.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        !self.checks.is_empty()
    }
}

fn globs(key: &'static str, globs: &[String]) -> Result<Globs, Error> {
    Globs::new(globs).map_err(|source| Error::Glob { key, source })
}

/// Whether git takes this as the name of a branch (the rules of `git check-ref-format`).
#[must_use]
pub fn is_branch(name: &str) -> bool {
    let component =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.split('/').all(component)
        && !name.starts_with('-')
        && !name.ends_with('.')
        && name != "@"
        && name.len() <= 200
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(|c: char| c.is_control() || " ~^:?*[\\\u{7f}".contains(c))
}

fn line_error(text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start);
    let line = 1 + text
        .bytes()
        .take(start)
        .filter(|&byte| byte == b'\n')
        .count();
    let message = error.message().trim().to_owned();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (message, nearest) = match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(unknown)) => {
            let nearest = quoted
                .map(|name| (strsim::jaro_winkler(unknown, name), name))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(similarity, _)| *similarity > 0.6)
                .map(|(_, name)| name.to_owned());
            (format!("unknown key `{unknown}`"), nearest)
        }
        _ => (message, None),
    };
    Error::Line {
        line,
        message,
        nearest,
    }
}

const fn check_timeout() -> Duration {
    CHECK_TIMEOUT
}

mod duration_text {
    use super::{Duration, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}ms", span.as_millis()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        let span = parse_duration(&text).map_err(serde::de::Error::custom)?;
        if span.is_zero() {
            return Err(serde::de::Error::custom(
                "a timeout of zero lets nothing run",
            ));
        }
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Policy::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_policy_is_the_default_one() {
        let policy = Policy::parse(b"").unwrap();
        assert_eq!(policy, Policy::default());
        assert!(!policy.is_checked());
        assert_eq!(policy.integration.branch, "skep/integration");
    }

    #[test]
    fn every_part_of_a_policy_reads() {
        let policy = Policy::parse(
            br#"
            include = [".env.test"]
            [[check]]
            name = "test"
            command = "cargo test"
            when = ["src/**"]
            timeout = "90s"
            [setup]
            command = "npm ci"
            inputs = ["patches/**"]
            [paths]
            protected = [".github/**"]
            forbidden = ["*.pem"]
            [integration]
            branch = "bots/next"
            [commit]
            name = "Bot"
            [toolchains]
            roots = ["/opt/tool"]
            [[egress.allow]]
            for = ["setup"]
            host = "*.example.com"
            "#,
        )
        .unwrap();
        assert_eq!(policy.checks[0].timeout, Duration::from_secs(90));
        assert_eq!(policy.setup.as_ref().unwrap().timeout, CHECK_TIMEOUT);
        assert_eq!(policy.commit.email, "skep@localhost");
        let stored = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), policy);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
        assert_eq!(
            message("include = []\n[intergration]\nbranch = 'x'\n"),
            "skep.toml, line 2: unknown key `intergration`; did you mean `integration`?"
        );
        assert_eq!(
            message("[[check]]\nname = 'a'\ncommand = 'b'\ntimout = '1m'\n"),
            "skep.toml, line 4: unknown key `timout`; did you mean `timeout`?"
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (text, expected) in [
            (
                "[[check]]\nname='a'\ncommand='b'\ntimeout='0s'",
                "a timeout of zero",
            ),
            (
                "[[check]]\nname='a'\ncommand=''",
                "check 1 needs a name and a command",
            ),
            (
                "[integration]\nbranch='a..b'",
                "`a..b` cannot be the name of a branch",
            ),
            ("[toolchains]\nroots=['opt']", "is not an absolute path"),
            (
                "[paths]\nprotected=['a/{b']",
                "`paths.protected` is not valid",
            ),
            ("[commit]\nname=\"a\\nb\"", "cannot be used in a commit"),
            (
                "[setup]\ncommand='a'\ninputs=['a/{b']",
                "`setup.inputs` is not valid",
            ),
            (
                "[setup]\ncommand='a'\ninputs=['b', '../c']",
                "`setup.inputs`: `../c` matches nothing: it has `..`",
            ),
            (
                "[setup]\ncommand='a'\ninputs=['']",
                "`setup.inputs`: `` matches nothing: it is empty",
            ),
            (
                "[setup]\ncommand='a'\ninputs=['*.txt', '!in.txt']",
                "`setup.inputs`: `!in.txt` matches nothing: it begins with `!`",
            ),
            (
                "[setup]\ncommand='a'\ninputs=[\"a\\u0000b\"]",
                "`setup.inputs`: `a\\0b` matches nothing: it has a byte of value 0",
            ),
            (
                "[[egress.allow]]\nhost='a.example'",
                "`egress.allow`, rule 1: `for` says who may",
            ),
            (
                "[[egress.deny]]\nhost='https://a.example'",
                "`egress.deny`, rule 1: `https://a.example` is no host",
            ),
        ] {
            assert!(
                message(text).contains(expected),
                "{text}: {}",
                message(text)
            );
        }
    }
}
