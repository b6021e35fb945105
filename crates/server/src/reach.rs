//! From a path or a URL to a repository that can be worked on.

use crate::{Error, Node, submit::blocking};
use domain::{
    entity::{Ask, Beside, Sources},
    origin::{Origin, Part, Remote, Scheme},
};
use git::{Access, Cancel, CommitId, Protocol, Source, Want};
use site::Also;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Is told how a fetch goes on, in lines that may come from the server.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// What of a repository is meant, and what is shown beside it. By default it is `HEAD`, and nothing.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// The commit that stands for `HEAD`.
    pub commit: Option<CommitId>,
    /// The URL that the repository was fetched from.
    pub url: Option<String>,
    /// What was meant, by its full name where that is known; nothing for `HEAD` and a default branch.
    pub reference: Option<String>,
    /// The issue whose text is part of the prompt.
    pub issue: Option<String>,
    /// Further repositories, as [`Node::beside`] gives them.
    pub beside: Vec<Beside>,
}

impl Chosen {
    pub(crate) fn into_sources(self) -> Sources {
        Sources {
            url: self.url,
            reference: self.reference,
            issue: self.issue,
            beside: self.beside,
        }
    }
}

/// Ends what runs when nobody waits for it any more.
struct Held(Cancel);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Node {
    /// The repository that is meant, with what of it: of a path as it is, of a URL what is fetched from
    /// it now. A path is seen from `directory`; `reference` is what `--ref` says. The fetch ends when
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// When there is no such repository, or what is meant is not in it, or it cannot be fetched.
    pub async fn reach(
        &self,
        origin: &Origin,
        reference: Option<&str>,
        directory: &Path,
        tell: Tell,
    ) -> Result<(PathBuf, Chosen), Error> {
        match origin {
            Origin::Path(path) => {
                let path = directory.join(path);
                let Some(rev) = reference.map(str::to_owned) else {
                    return Ok((path, Chosen::default()));
                };
                let source = self.source(&path).await?;
                let (named, asked) = (rev.clone(), source.clone());
                let commit = blocking(move || Ok(asked.resolve(&named)?)).await?;
                let chosen = Chosen {
                    commit: Some(commit),
                    reference: Some(rev),
                    ..Chosen::default()
                };
                Ok((path, chosen))
            }
            Origin::Remote(remote) => {
                let origin = match reference {
                    Some(rev) => origin.clone().at(rev)?,
                    None => origin.clone(),
                };
                let remote = match origin {
                    Origin::Remote(meant) => meant,
                    Origin::Path(_) => remote.clone(),
                };
                self.fetch(&remote, tell).await
            }
        }
    }

    /// What a request was asked of, reached again.
    pub(crate) async fn reach_again(&self, ask: &Ask) -> Result<(PathBuf, Chosen), Error> {
        let sources = ask.sources.clone();
        let quiet: Tell = Arc::new(|_| {});
        let origin = match &sources.url {
            Some(url) => url.parse()?,
            None => Origin::Path(ask.repository_path.clone().into()),
        };
        let rev = sources.reference.as_deref();
        let (path, chosen) = self.reach(&origin, rev, Path::new("/"), quiet).await?;
        let chosen = Chosen {
            issue: sources.issue,
            beside: sources.beside,
            ..chosen
        };
        Ok((path, chosen))
    }

    /// The directory of a repository of which something was asked before: nothing is fetched.
    ///
    /// # Errors
    /// [`Error::NotFetched`].
    pub fn known(&self, origin: &Origin, directory: &Path) -> Result<PathBuf, Error> {
        match origin {
            Origin::Path(path) => Ok(directory.join(path)),
            Origin::Remote(remote) => {
                let copy = self.copy(remote.url());
                if copy.is_dir() {
                    return Ok(copy);
                }
                Err(Error::NotFetched {
                    url: remote.url().to_owned(),
                })
            }
        }
    }

    /// A further repository, fetched and checked out to be shown.
    ///
    /// # Errors
    /// As [`Node::reach`]; when it cannot be checked out.
    pub async fn beside(
        &self,
        name: String,
        origin: &Origin,
        directory: &Path,
        tell: Tell,
    ) -> Result<Beside, Error> {
        let (further, commit, source) = self.further(name, origin, directory, tell).await?;
        self.sites
            .check_out_beside(&further.repository.to_string(), commit, source)
            .await?;
        Ok(further)
    }

    /// A further repository, fetched and checked out to be written.
    ///
    /// # Errors
    /// As [`Node::beside`].
    pub async fn also(
        &self,
        name: String,
        origin: &Origin,
        directory: &Path,
        tell: Tell,
    ) -> Result<Beside, Error> {
        let (further, commit, source) = self.further(name, origin, directory, tell).await?;
        self.sites
            .check_out_also(&further.repository.to_string(), commit, source)
            .await?;
        Ok(further)
    }

    /// What a site wants of further repositories that it writes.
    pub(crate) async fn written(&self, also: &[Beside]) -> Result<Vec<Also>, Error> {
        let mut all = Vec::with_capacity(also.len());
        for one in also {
            all.push(Also {
                name: one.name.clone(),
                repository: one.repository.to_string(),
                commit: commit_of(one)?,
                tree: None,
                place: self.ledger.repository_path(one.repository).await?.into(),
            });
        }
        Ok(all)
    }

    /// What a site wants of further repositories that it shows.
    pub(crate) async fn shown(&self, beside: &[Beside]) -> Result<Vec<site::Beside>, Error> {
        let mut all = Vec::with_capacity(beside.len());
        for one in beside {
            all.push(site::Beside {
                name: one.name.clone(),
                repository: one.repository.to_string(),
                commit: commit_of(one)?,
                place: self.ledger.repository_path(one.repository).await?.into(),
            });
        }
        Ok(all)
    }

    /// A further repository, fetched into its mirror.
    async fn further(
        &self,
        name: String,
        origin: &Origin,
        directory: &Path,
        tell: Tell,
    ) -> Result<(Beside, CommitId, Source), Error> {
        if self.sites.kind() == sandbox::Kind::Host {
            return Err(Error::NothingBeside);
        }
        let (path, chosen) = self.reach(origin, None, directory, tell.clone()).await?;
        let (chosen, source) = match self.source(&path).await {
            Err(Error::Git(git::Error::Bare { path })) => {
                let (path, chosen) = self.reach_bare(path, tell).await?;
                (chosen, self.source(&path).await?)
            }
            source => (chosen, source?),
        };
        let common = source.common_dir().to_string_lossy().into_owned();
        let repository = self.ledger.repository(&common).await?;
        let commit = chosen.commit.unwrap_or(source.head().commit);
        let mirror = self.sites.mirror(&repository.to_string()).await?;
        {
            let (mirror, source) = (mirror.clone(), source.clone());
            blocking(move || Ok(mirror.fetch(&source, commit)?)).await?;
        }
        let origin = chosen
            .url
            .unwrap_or_else(|| source.top().to_string_lossy().into_owned());
        let further = Beside {
            name,
            repository,
            origin,
            commit: commit.to_string(),
        };
        Ok((further, commit, source))
    }

    /// A bare repository of this machine. Nobody works in it, so that it is fetched like that of a URL.
    async fn reach_bare(&self, path: PathBuf, tell: Tell) -> Result<(PathBuf, Chosen), Error> {
        // In a URL these mean something.
        let url = path
            .to_str()
            .filter(|path| !path.contains(['#', '@', '?', '%']));
        match url.map(|path| format!("file://{path}").parse()) {
            Some(Ok(Origin::Remote(remote))) => self.fetch(&remote, tell).await,
            _ => Err(git::Error::Bare { path }.into()),
        }
    }

    async fn fetch(&self, remote: &Remote, tell: Tell) -> Result<(PathBuf, Chosen), Error> {
        let copy = self.copy(remote.url());
        let protocol = match remote.scheme() {
            Scheme::Https => Protocol::Https,
            Scheme::Http => Protocol::Http,
            Scheme::Ssh => Protocol::Ssh,
            Scheme::File => Protocol::File,
        };
        let want = match remote.part() {
            Part::Head => Want::Head,
            Part::Named(name) => Want::Named(name.clone()),
            Part::Tree(text) => Want::Tree(text.clone()),
            Part::Commit(name) => Want::Commit(name.clone()),
        };
        let env = Arc::clone(&self.options.env);
        let token = match protocol {
            Protocol::Https | Protocol::Http => self.options.forges.token(remote.host()),
            Protocol::Ssh | Protocol::File => None,
        };
        let access = Access::of_user(|name| env(name)).with_token(token);
        let held = Held(Cancel::new());
        let (url, program) = (remote.url().to_owned(), self.sites.git().clone());
        let cancel = held.0.clone();
        let (place, is_head) = (copy.clone(), want == Want::Head);
        let arrived = blocking(move || {
            let remote = git::Remote::open_or_create(&place, &url, protocol, program)?;
            let mut told = |line: &str| tell(line);
            Ok(remote
                .with_cancel(cancel)
                .fetch(&want, &access, &mut told)?)
        })
        .await?;
        drop(held);
        let named = arrived
            .reference
            .unwrap_or_else(|| arrived.commit.to_string());
        let chosen = Chosen {
            commit: Some(arrived.commit),
            url: Some(remote.url().to_owned()),
            reference: (!is_head).then_some(named),
            ..Chosen::default()
        };
        Ok((copy, chosen))
    }

    /// Where the copy of a URL is.
    fn copy(&self, url: &str) -> PathBuf {
        self.options.data.join(site::FETCHED).join(copy_name(url))
    }

    /// The repository that a path is in.
    pub(crate) async fn source(&self, path: &Path) -> Result<Source, Error> {
        let (path, git) = (path.to_owned(), self.sites.git().clone());
        blocking(move || Ok(Source::discover(&path, git)?)).await
    }
}

/// The commit that is meant.
pub(crate) fn commit_of(further: &Beside) -> Result<CommitId, Error> {
    further.commit.parse().map_err(|_| Error::NotACommit {
        name: further.commit.clone(),
    })
}

/// The most bytes of a URL's last part that are in the name of its copy.
const NAME: usize = 40;

/// The name of the directory of a copy: the last part of the URL, and a hash of all of it.
fn copy_name(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next();
    let last = last.unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String = last
        .strip_suffix(".git")
        .unwrap_or(last)
        .chars()
        .filter(|c| plain(*c))
        .take(NAME)
        .collect();
    format!("{name}-{:016x}", crate::submit::hash(url))
}

#[cfg(test)]
mod tests {
    use super::copy_name;

    #[test]
    fn the_copy_of_a_url_has_a_name_that_tells_and_is_its_own() {
        let one = copy_name("https://example.org/a/lib.git");
        assert!(one.starts_with("lib-"), "{one}");
        assert_ne!(one, copy_name("https://example.org/b/lib.git"));
        let odd = copy_name("file:///../..");
        assert!(!odd.contains(['.', '/']), "{odd}");
    }
}
