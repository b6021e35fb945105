//! Where a repository comes from: a path of this machine, or a URL with what of it is meant.
//!
//! Parsed here and nowhere else, as pure data. What a person types, and what a page gives to be
//! copied, is hostile: nothing that is taken can be an option, another program's transport, or hold
//! credentials.

mod parse;
mod web;

use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr};

/// The longest text that is taken, in bytes.
pub const MAX_ORIGIN: usize = 2_048;
/// The longest name of a branch or tag, in bytes.
pub const MAX_REFERENCE: usize = 250;
/// The longest name under which a further repository is shown, in bytes.
pub const MAX_NAME: usize = 60;

/// Where a repository comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A path of this machine, as it was typed.
    Path(PathBuf),
    /// A URL.
    Remote(Remote),
}

/// A repository that is fetched, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    url: String,
    scheme: Scheme,
    host: String,
    part: Part,
    issue: Option<Issue>,
}

/// How a repository is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `https://`.
    Https,
    /// `http://`, on this machine only.
    Http,
    /// `ssh://`, or `user@host:path`.
    Ssh,
    /// `file://`.
    File,
}

impl Scheme {
    /// Its name, as git writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

/// What of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Part {
    /// Its default branch.
    #[default]
    Head,
    /// A branch, a tag, the full name of a reference (`refs/pull/7/head`), or what
    /// [`Part::Commit`] holds.
    Named(String),
    /// A branch or tag, perhaps with a path behind it: a page of a tree does not tell where the one
    /// ends and the other begins, the references of the repository do.
    Tree(String),
    /// A commit: its name in hexadecimal, or the beginning of it, of seven digits at least.
    Commit(String),
}

/// What serves repositories and issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// GitHub, or GitHub Enterprise.
    GitHub,
    /// GitLab.
    GitLab,
    /// Forgejo or Gitea.
    #[serde(alias = "gitea")]
    Forgejo,
}

/// An issue of a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Whether the forge is reached by TLS.
    pub secure: bool,
    /// The host, with its port where the URL has one.
    pub host: String,
    /// The repository there: `owner/name`, or a longer path.
    pub repository: String,
    /// Its number there.
    pub number: u64,
    /// What serves it, where the URL tells.
    pub forge: Option<Forge>,
}

/// Why a text is no origin. Nothing of the text is repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was given.
    #[error("the source is empty: write a path, or a URL like https://github.com/OWNER/NAME")]
    Empty,
    /// It is too long.
    #[error("the source is longer than {MAX_ORIGIN} bytes")]
    Long,
    /// It has control characters or spaces where no URL has them.
    #[error("the source has control characters or spaces in it; write them as %20 and the like")]
    Control,
    /// It is an option.
    #[error("the source begins with `-`, like an option; write `./-NAME` for a path")]
    Option,
    /// It would start a program.
    #[error(
        "the source names a transport of another program (`NAME::ADDRESS`), which is never started; \
         write `./NAME` for a path"
    )]
    Helper,
    /// Its scheme is not spoken.
    #[error(
        "repositories are fetched by https://, ssh://, USER@HOST:PATH and file://, not by `{scheme}`"
    )]
    Scheme {
        /// The scheme, if it is a word.
        scheme: String,
    },
    /// Without TLS, what is fetched and the credentials can be read on the way.
    #[error("http:// is taken for this machine only: write https://")]
    Plain,
    /// It holds a name or a password.
    #[error(
        "the source holds credentials, which would be seen by others and stored: leave out what is \
         before the `@`, and give them by git's credential helper for this host (`git config \
         credential.https://HOST.helper`), or by the variable that `[forges.\"HOST\"]` in the \
         configuration names as `token_env`"
    )]
    Credentials,
    /// It has a query, which may hold credentials.
    #[error("the source has a query (`?...`), which no repository needs: leave it out")]
    Query,
    /// Its host or port is none.
    #[error("the source has no host, or one that cannot be: write https://HOST/PATH")]
    Host,
    /// It has no path.
    #[error("the source has no path of a repository: write https://HOST/OWNER/NAME")]
    NoPath,
    /// What is meant of it cannot be the name of a branch, tag or commit.
    #[error("{what} cannot be the name of a branch, a tag or a commit")]
    Reference {
        /// Where it stands.
        what: &'static str,
    },
    /// What is meant is said twice.
    #[error("the source says twice what is meant of the repository: leave out one of the two")]
    Twice,
    /// A page of a forge that is no repository, tree, commit, pull request or issue.
    #[error(
        "this page of a forge is not understood: write the URL of a repository, a branch, a commit, \
         a pull or merge request, or an issue"
    )]
    Page,
    /// The name for it is none.
    #[error(
        "a further repository is named by letters, digits, `.`, `_` and `-`, at most {MAX_NAME}, and \
         not `repo`, where the work is: write NAME=SOURCE, and `./` before a path with `=` in it"
    )]
    Name,
}

impl FromStr for Origin {
    type Err = Error;

    /// Parses what a person typed.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse::origin(text)
    }
}

impl Origin {
    /// The same, of which `reference` is meant: a branch, a tag, a commit, or of a path whatever git
    /// understands.
    ///
    /// # Errors
    /// [`Error::Twice`] when it said already what is meant; [`Error::Reference`].
    pub fn at(self, reference: &str) -> Result<Self, Error> {
        match self {
            Self::Path(path) => Ok(Self::Path(path)),
            Self::Remote(remote) if remote.part != Part::Head => Err(Error::Twice),
            Self::Remote(remote) => Ok(Self::Remote(Remote {
                part: Part::Named(parse::reference(reference, "what --ref names")?),
                ..remote
            })),
        }
    }

    /// A name for a directory: the last part of the path or URL.
    ///
    /// # Errors
    /// [`Error::Name`] when it has none that can be one.
    pub fn name(&self) -> Result<String, Error> {
        let text = match self {
            Self::Path(path) => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            Self::Remote(remote) => {
                let path = remote.url.trim_end_matches('/');
                let last = path.rsplit(['/', ':']).next().unwrap_or_default();
                last.strip_suffix(".git").unwrap_or(last).to_owned()
            }
        };
        is_name(&text).then_some(text).ok_or(Error::Name)
    }
}

/// Whether a further repository can be shown under this name.
fn is_name(text: &str) -> bool {
    let fits = (1..=MAX_NAME).contains(&text.len()) && !text.starts_with(['.', '-']);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    fits && text.chars().all(plain) && text != "repo"
}

/// A further repository: `SOURCE`, or `NAME=SOURCE`.
///
/// # Errors
/// When the source is none, or there is no name for it.
pub fn named(text: &str) -> Result<(String, Origin), Error> {
    // What is before a `=` in a URL, or in a path that begins like one, is no name.
    match text.split_once('=') {
        Some((name, source)) if !name.starts_with(['.', '/']) && !name.contains([':', '@']) => {
            if !is_name(name) {
                return Err(Error::Name);
            }
            Ok((name.to_owned(), source.parse()?))
        }
        _ => {
            let origin: Origin = text.parse()?;
            Ok((origin.name()?, origin))
        }
    }
}

impl Remote {
    /// The URL to fetch from. It holds no credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it is fetched.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, with its port where the URL has one; empty for a file.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What of it is meant.
    #[must_use]
    pub const fn part(&self) -> &Part {
        &self.part
    }

    /// The issue that the URL was of. The repository of it is fetched.
    #[must_use]
    pub const fn issue(&self) -> Option<&Issue> {
        self.issue.as_ref()
    }
}

impl fmt::Display for Remote {
    /// What parses to the same again, but for an issue.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        match &self.part {
            Part::Head => Ok(()),
            Part::Named(name) | Part::Tree(name) => write!(f, "#{name}"),
            Part::Commit(name) => write!(f, "@{name}"),
        }
    }
}

impl Issue {
    /// The address of its text, by the forge's public interface: below `api` where that is given.
    #[must_use]
    pub fn address(&self, forge: Forge, api: Option<&str>) -> String {
        let Self {
            host, number: n, ..
        } = self;
        let scheme = if self.secure { "https" } else { "http" };
        let base = match (api, forge) {
            (Some(api), _) => api.trim_end_matches('/').to_owned(),
            (None, Forge::GitHub) if host == "github.com" => "https://api.github.com".to_owned(),
            (None, Forge::GitHub) => format!("{scheme}://{host}/api/v3"),
            (None, Forge::GitLab) => format!("{scheme}://{host}/api/v4"),
            (None, Forge::Forgejo) => format!("{scheme}://{host}/api/v1"),
        };
        match forge {
            Forge::GitLab => {
                let project = self.repository.replace('/', "%2F");
                format!("{base}/projects/{project}/issues/{n}")
            }
            Forge::GitHub | Forge::Forgejo => {
                format!("{base}/repos/{}/issues/{n}", self.repository)
            }
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.host, self.repository, self.number)
    }
}

#[cfg(test)]
mod tests;
