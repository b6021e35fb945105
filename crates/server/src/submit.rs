//! From what a person typed to a request in the ledger.

use crate::{Chosen, Error, Node};
use bstr::{BString, ByteSlice};
use domain::{
    Amount, Micros, RequestId, SessionId, Timestamp,
    entity::{Ask, Included, Placement, Planning, Sources},
    plan::{MAX_PROMPT, Plan},
    policy::{FILE, MAX_BYTES, Policy},
};
use git::{CommitId, IntegrationBranch, Mirror, Signature, Source};
use std::path::{Path, PathBuf};

/// The tokens of a request where no budget is given.
pub const DEFAULT_TOKENS: u64 = 2_000_000;
/// The money of a request where no budget is given and the price of the model is known.
pub const DEFAULT_MONEY: Micros = Micros(10_000_000);

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct New {
    /// A path in the repository, as [`Node::reach`] gives it.
    pub path: PathBuf,
    /// What of the repository is meant, and what is shown beside it.
    pub chosen: Chosen,
    /// What is asked.
    pub prompt: String,
    /// How it becomes a plan.
    pub planning: Planning,
    /// The plan, when a person wrote it.
    pub plan: Option<Plan>,
    /// The profile of the agent.
    pub agent: String,
    /// The model: `provider/name`, or a name.
    pub model: Option<String>,
    /// The most that may be spent; a default where nothing is given.
    pub budget: Option<Amount>,
    /// Whether uncommitted work is taken along; of a retry, what was uncommitted at the first try.
    pub dirty: bool,
    /// How many jobs may run at once.
    pub parallel: u32,
    /// Where in the queues it stands.
    pub placement: Placement,
    /// The key under which the same submission is the same request.
    pub key: Option<String>,
    /// The request that this one tries again.
    pub retry_of: Option<RequestId>,
}

/// A request that was accepted.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The request.
    pub request: RequestId,
    /// Its session: one for each repository.
    pub session: SessionId,
    /// The commit that the work starts from.
    pub base: String,
    /// The model that is called: `provider/name`; none if the agent needs none.
    pub model: Option<String>,
    /// The most that may be spent.
    pub budget: Amount,
    /// Whether the price of the model is known.
    pub priced: bool,
    /// Whether the repository has checks of its own.
    pub checked: bool,
    /// The time before which it does not begin, while that is still to come.
    pub not_before: Option<Timestamp>,
    /// Where its repositories come from.
    pub sources: Sources,
}

impl Node {
    /// Accepts a request: reads the repository and its policy at `HEAD`, or at the commit that was
    /// chosen, and stores both.
    ///
    /// # Errors
    /// When the repository, the policy, the plan, the agent or the model cannot be used. Nothing was
    /// stored then.
    pub async fn submit(&self, new: New) -> Result<Submitted, Error> {
        self.ledger.may_work().await?;
        if new.planning != Planning::Given
            && (new.prompt.trim().is_empty() || new.prompt.len() > MAX_PROMPT)
        {
            return Err(Error::Prompt);
        }
        let plan = new.plan.clone().map(Plan::validated).transpose()?;
        let ready = self.agents.find(&new.agent).map_err(Error::Agent)?;
        let model = new
            .model
            .clone()
            .or_else(|| self.options.default_model.clone());
        let route = match self
            .gateway
            .providers()
            .route(model.as_deref(), &ready.dialects)
        {
            Ok(route) => Some(route),
            Err(_) if !ready.needs_model => None,
            Err(error) => return Err(error.into()),
        };
        let model = route.as_ref().map(gateway::Route::name);
        let plan = plan
            .map(|plan| self.given(plan, &new.agent, model.as_deref()))
            .transpose()?;
        let source = self.source(&new.path).await?;
        // What a request that is tried again took along is in the mirror.
        if let Some(url) = source
            .copy_of()
            .filter(|_| new.dirty && new.retry_of.is_none())
        {
            return Err(Error::NothingUncommitted {
                url: url.to_owned(),
            });
        }
        let top = source.top().to_string_lossy().into_owned();
        let common = source.common_dir().to_string_lossy().into_owned();
        let repository = self.ledger.repository(&common).await?;
        let name = session_name(source.copy_of().unwrap_or(&top));
        let session = self.ledger.session(&name).await?;
        let mirror = self.sites.mirror(&repository.to_string()).await?;
        let start = match (new.dirty, new.retry_of) {
            // What was uncommitted then is tried again, not what is uncommitted now.
            (true, Some(id)) => {
                let name = self.ledger.request(id).await?.ask.base;
                let base = name.parse().map_err(|_| Error::NotACommit { name });
                Start::Again(base?)
            }
            (true, None) => Start::Dirty,
            (false, Some(_)) => Start::Tip,
            (false, None) => Start::Head,
        };
        let now = self.ledger.now().seconds();
        let (base, policy, candidates) = {
            let (source, mirror) = (source.clone(), mirror.clone());
            let head = new.chosen.commit.unwrap_or(source.head().commit);
            blocking(move || base(&source, head, &mirror, start, now)).await?
        };
        let included = self.include(&source, candidates, &policy).await?;
        // The base is made while the request is planned.
        self.sites
            .base(&repository.to_string(), &mirror, base, Some(source))
            .await?;
        let priced = route.as_ref().is_none_or(|route| route.price.is_some());
        let budget = new.budget.unwrap_or(Amount {
            tokens: DEFAULT_TOKENS,
            money: if priced {
                DEFAULT_MONEY
            } else {
                Micros(Amount::UNBOUNDED)
            },
            ..Amount::unbounded()
        });
        let checked = policy.is_checked();
        let planning = if ready.needs_model || new.planning == Planning::Given {
            new.planning
        } else {
            Planning::None
        };
        let ask = Ask {
            repository,
            repository_path: top,
            base: base.to_string(),
            dirty: new.dirty,
            prompt: new.prompt,
            planning,
            plan,
            agent: new.agent,
            model: model.clone(),
            budget,
            policy,
            parallel: new.parallel.max(1),
            placement: new.placement,
            retry_of: new.retry_of,
            included,
            sources: new.chosen.into_sources(),
            sandbox: Some(self.options.sandbox.name().to_owned()),
        };
        let not_before = self.still_to_come(&ask);
        let sources = ask.sources.clone();
        let request = self.ledger.submit(session, ask, new.key.as_deref()).await?;
        Ok(Submitted {
            request,
            session,
            base: base.to_string(),
            model,
            budget,
            priced,
            checked,
            not_before,
            sources,
        })
    }

    /// The time before which this does not begin, while that is still to come.
    pub(crate) fn still_to_come(&self, ask: &Ask) -> Option<Timestamp> {
        let now = self.ledger.now();
        ask.placement.not_before.filter(|time| *time > now)
    }

    /// What is uncommitted in the repository at `path`, and so not seen by agents. This reads the
    /// whole tree: ask while other things go on.
    ///
    /// # Errors
    /// When git cannot say.
    pub async fn uncommitted(&self, path: &Path) -> Result<Vec<git::StatusEntry>, Error> {
        let source = self.source(path).await?;
        blocking(move || Ok(source.uncommitted()?)).await
    }

    /// The policy of the repository at `path`, as it is at `HEAD`; the default one where it has none.
    ///
    /// # Errors
    /// When there is no repository, or its policy cannot be read.
    pub async fn policy(&self, path: &Path) -> Result<Policy, Error> {
        let source = self.source(path).await?;
        let repository = source.common_dir().to_string_lossy().into_owned();
        let repository = self.ledger.repository(&repository).await?;
        let mirror = self.sites.mirror(&repository.to_string()).await?;
        blocking(move || {
            let head = source.head().commit;
            mirror.fetch(&source, head)?;
            policy(&mirror, head)
        })
        .await
    }

    /// Stores the ignored files that the policy takes along.
    async fn include(
        &self,
        source: &Source,
        candidates: Vec<BString>,
        policy: &Policy,
    ) -> Result<Vec<Included>, Error> {
        if policy.include.is_empty() {
            return Ok(Vec::new());
        }
        let (top, globs) = (source.top().to_owned(), policy.include.clone());
        let files = blocking(move || Ok(site::included(&top, candidates, &globs)?)).await?;
        let mut included = Vec::new();
        for file in files {
            // A name that is not text cannot be written in a policy either.
            let Ok(path) = file.path.to_str() else {
                continue;
            };
            included.push(Included {
                path: path.to_owned(),
                executable: file.executable,
                content: self.ledger.put_blob(file.content).await?,
            });
        }
        Ok(included)
    }
}

/// Where work starts. `HEAD` stands for the commit that was chosen, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// `HEAD`.
    Head,
    /// `HEAD` and what is uncommitted.
    Dirty,
    /// `HEAD` and what is integrated: what is tried again would conflict with it otherwise.
    Tip,
    /// The same, and the commit that an earlier request started from, which holds what was uncommitted.
    Again(CommitId),
}

/// The commit that the work starts from, the policy there, and the ignored files of the tree that the
/// policy may want.
fn base(
    source: &Source,
    head: CommitId,
    mirror: &Mirror,
    start: Start,
    now: i64,
) -> Result<(CommitId, Policy, Vec<BString>), Error> {
    let who = Signature::new("Skep", "skep@localhost", now);
    let base = match start {
        Start::Head => head,
        Start::Dirty => mirror.snapshot_uncommitted(source, &who)?,
        Start::Tip => {
            integrated(source, mirror, head)?
                .standing(source, head, &who)?
                .tip
        }
        Start::Again(earlier) => {
            let branch = integrated(source, mirror, head)?;
            let tip = branch.standing(source, head, &who)?.tip;
            branch.join(tip, earlier, &who)?
        }
    };
    mirror.fetch(source, base)?;
    let policy = policy(mirror, base)?;
    let ignored = match policy.include.as_slice() {
        [] => Vec::new(),
        globs => source.ignored(globs)?,
    };
    Ok((base, policy, ignored))
}

/// The integration branch, by the policy at `HEAD`, which is fetched.
fn integrated(
    source: &Source,
    mirror: &Mirror,
    head: CommitId,
) -> Result<IntegrationBranch, Error> {
    mirror.fetch(source, head)?;
    let branch = policy(mirror, head)?.integration.branch;
    let branch = IntegrationBranch::new(mirror.clone(), &branch);
    branch.stock(source, head)?;
    Ok(branch)
}

/// The policy of a commit; the default one where it has none.
pub(crate) fn policy(mirror: &Mirror, commit: CommitId) -> Result<Policy, Error> {
    Ok(match mirror.read(commit, FILE.into(), MAX_BYTES as u64)? {
        Some(bytes) => Policy::parse(&bytes)?,
        None => Policy::default(),
    })
}

/// The most bytes of a path that is itself the name of its session.
const SESSION_NAME: usize = 200;
/// The bytes that are kept of the end of a longer one.
const SESSION_TAIL: usize = 150;

/// The name of the session of the repository at `top`: the path, or the end of it and a hash of all
/// of it where it is long or has characters that a name may not have.
fn session_name(top: &str) -> String {
    if top.len() <= SESSION_NAME && !top.contains(char::is_control) {
        return top.to_owned();
    }
    let start = top.ceil_char_boundary(top.len().saturating_sub(SESSION_TAIL));
    let tail = top.get(start..).unwrap_or_default();
    let tail: String = tail
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    format!("...{tail} {:016x}", hash(top))
}

/// FNV-1a, 64 bits: a name must be the same in every version, and nothing rests on it.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Runs work that blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Ended)?
}

#[cfg(test)]
mod tests {
    use super::session_name;

    #[test]
    fn a_long_path_gets_a_name_that_fits_and_is_its_own() {
        let one = format!("/one/{}", "\u{e4}".repeat(150));
        let other = format!("/two/{}", "\u{e4}".repeat(150));
        assert_eq!(session_name("/short"), "/short");
        assert!(session_name(&one).len() <= 200);
        assert_ne!(session_name(&one), session_name(&other));
        assert!(!session_name("/a\nb").contains(char::is_control));
    }
}
