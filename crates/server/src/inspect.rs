//! Looking at what was done: diffs, retries, replays.

use crate::{Error, New, Node, Submitted, submit::blocking};
use domain::{
    AttemptId, RepositoryId, RequestId,
    entity::{Attempt, Change, Planning, Request},
    event::{Agent, Body},
    machine::Machine,
    plan::Plan,
    state::{ChangeState, JobState, RequestState},
};
use git::{CommitId, FileChange, TreeId};
use ledger::Found;
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};
use tokio_util::sync::CancellationToken;
use worker::Replayed;

/// The most events of a request that are read.
const MAX_EVENTS: usize = 200_000;
/// How many events are read at once.
const PAGE: usize = 1_000;

fn lost(error: Error, what: Found) -> Error {
    match error {
        Error::Git(git::Error::Missing { .. }) => Error::CommitsLost {
            id: what.to_string(),
        },
        error => error,
    }
}

/// What was changed.
#[derive(Debug, Clone)]
pub struct Diff {
    /// The files, with lines added and removed.
    pub files: Vec<FileChange>,
    /// The patch.
    pub patch: Vec<u8>,
    /// Whether the patch is longer than it may be and was cut.
    pub truncated: bool,
}

impl Node {
    /// What a request, job, attempt or change changed. Of a request: from its base to the last
    /// commit that holds a change of it.
    ///
    /// # Errors
    /// [`Error::NoDiff`] when it made no change; [`Error::CommitsLost`] when its commits are not in
    /// the mirror, as where a backup was restored; or the mirror cannot be read.
    pub async fn diff(&self, what: Found, max_bytes: usize) -> Result<Diff, Error> {
        let diff = self.diff_of(what, max_bytes).await;
        diff.map_err(|error| lost(error, what))
    }

    async fn diff_of(&self, what: Found, max_bytes: usize) -> Result<Diff, Error> {
        let nothing = || Error::NoDiff {
            id: what.to_string(),
        };
        let (repository, before, after) = match what {
            Found::Change(id) => self.of_change(&self.ledger.change(id).await?),
            Found::Attempt(id) => self.of_attempt(&self.ledger.attempt(id).await?).await?,
            Found::Job(id) => {
                let attempts = self.ledger.attempts(id).await?;
                let last = attempts.iter().rev().find(|attempt| attempt.tree.is_some());
                self.of_attempt(last.ok_or_else(nothing)?).await?
            }
            Found::Request(id) => {
                let request = self.ledger.request(id).await?;
                let changes = self.ledger.changes_of(id).await?;
                let integrated: Vec<&str> = changes
                    .iter()
                    .filter_map(|change| change.integrated.as_deref())
                    .collect();
                let span = self.span(&request, &integrated).await?;
                let (before, after) = span.ok_or_else(nothing)?;
                (request.ask.repository.to_string(), before, after)
            }
            Found::Session(_) | Found::Notification(_) => return Err(nothing()),
        };
        self.between(repository, before, after, max_bytes).await
    }

    /// What the agent of an attempt did in one round: from what the round before had left to what this
    /// one left. Of a job its last attempt is meant, of a request its only job.
    ///
    /// # Errors
    /// [`Error::NoRound`] when there is no such round, or the agent did not end its turn.
    pub async fn diff_round(
        &self,
        what: Found,
        round: u32,
        max_bytes: usize,
    ) -> Result<Diff, Error> {
        let none = || Error::NoRound {
            id: what.to_string(),
            round,
        };
        let job = match what {
            Found::Request(id) => match self.ledger.jobs(id).await?.as_slice() {
                [only] => Some(only.id),
                _ => return Err(none()),
            },
            Found::Job(id) => Some(id),
            _ => None,
        };
        let attempt = match (job, what) {
            (Some(job), _) => {
                let attempts = self.ledger.attempts(job).await?;
                let last = attempts.into_iter().rev().find(|it| it.tree.is_some());
                last.ok_or_else(none)?
            }
            (None, Found::Attempt(id)) => self.ledger.attempt(id).await?,
            (None, Found::Change(id)) => {
                let change = self.ledger.change(id).await?;
                self.ledger.attempt(change.attempt).await?
            }
            _ => return Err(none()),
        };
        let request = self.ledger.request(attempt.request).await?;
        let ends = self.ends_of_rounds(&attempt).await?;
        let after = ends.get(&round).cloned().ok_or_else(none)?;
        let before = ends.range(..round).next_back();
        let before = before.map_or(attempt.base, |(_, tree)| tree.clone());
        let repository = request.ask.repository.to_string();
        let diff = self.between(repository, before, after, max_bytes).await;
        diff.map_err(|error| lost(error, what))
    }

    /// The trees at the ends of the rounds of an attempt, as its events tell.
    async fn ends_of_rounds(&self, attempt: &Attempt) -> Result<BTreeMap<u32, String>, Error> {
        let (mut ends, mut round) = (BTreeMap::new(), 0);
        let (mut after, mut read) = (0, 0);
        while read < MAX_EVENTS {
            let page = self.ledger.request_events(attempt.request, after, PAGE);
            let page = page.await?;
            let Some(last) = page.last() else { break };
            after = last.sequence;
            read += page.len();
            for envelope in page {
                match envelope.body {
                    Body::Agent {
                        attempt: of,
                        event: Agent::Turn { round: begun, .. },
                    } if of == attempt.id => round = begun,
                    // A process that took the attempt over may tell it again.
                    Body::AttemptChanged {
                        attempt: of,
                        tree: Some(tree),
                        ..
                    } if of == attempt.id => {
                        ends.insert(round, tree);
                    }
                    _ => {}
                }
            }
        }
        Ok(ends)
    }

    async fn between(
        &self,
        repository: String,
        before: String,
        after: String,
        max_bytes: usize,
    ) -> Result<Diff, Error> {
        let mirror = self.sites.mirror(&repository).await?;
        blocking(move || {
            let tree = |name: &str| -> Result<TreeId, Error> {
                match name
                    .parse::<CommitId>()
                    .map(|commit| mirror.tree_of(commit))
                {
                    Ok(Ok(tree)) => Ok(tree),
                    _ => name.parse().map_err(|_| Error::NotACommit {
                        name: name.to_owned(),
                    }),
                }
            };
            let (before, after) = (tree(&before)?, tree(&after)?);
            let patch = mirror.patch(before, after, max_bytes)?;
            Ok(Diff {
                files: mirror.diff(before, after)?,
                patch: patch.text.into(),
                truncated: patch.truncated,
            })
        })
        .await
    }

    /// The newest request of the repository at `path`.
    ///
    /// # Errors
    /// [`Error::NoRequests`] when there is none.
    pub async fn latest(&self, path: &Path) -> Result<RequestId, Error> {
        let source = self.source(path).await?;
        let common = source.common_dir().to_string_lossy().into_owned();
        let repository = self.ledger.repository(&common).await?;
        let requests = self.ledger.requests(1, Some(repository)).await?;
        let newest = requests.first().ok_or(Error::NoRequests)?;
        Ok(newest.id)
    }

    fn of_change(&self, change: &Change) -> (String, String, String) {
        (
            change.repository.to_string(),
            change.base.clone(),
            change.commit.clone(),
        )
    }

    async fn of_attempt(&self, attempt: &Attempt) -> Result<(String, String, String), Error> {
        let request = self.ledger.request(attempt.request).await?;
        let tree = attempt.tree.clone();
        let tree = tree.ok_or_else(|| Error::NoDiff {
            id: attempt.id.to_string(),
        })?;
        Ok((
            request.ask.repository.to_string(),
            attempt.base.clone(),
            tree,
        ))
    }

    /// From what a request found on the branch to the last commit that holds a change of it.
    async fn span(
        &self,
        request: &Request,
        integrated: &[&str],
    ) -> Result<Option<(String, String)>, Error> {
        let mirror = self
            .sites
            .mirror(&request.ask.repository.to_string())
            .await?;
        let commits: Vec<CommitId> = integrated
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        blocking(move || {
            let mut ends = (None, None);
            for &commit in &commits {
                // The first is an ancestor of all, the last a descendant of all.
                let (first, last) = ends;
                if first
                    .is_none_or(|first| mirror.is_ancestor(commit, first, HISTORY).unwrap_or(false))
                {
                    ends.0 = Some(commit);
                }
                if last
                    .is_none_or(|last| mirror.is_ancestor(last, commit, HISTORY).unwrap_or(false))
                {
                    ends.1 = Some(commit);
                }
            }
            let (Some(first), Some(last)) = ends else {
                return Ok(None);
            };
            let before = mirror.commit_info(first)?.parents.first().copied();
            Ok(before.map(|before| (before.to_string(), last.to_string())))
        })
        .await
    }

    /// Tries a request again, or what of it was not integrated: a new request with the same words,
    /// from `HEAD` as it is now and what is integrated, with the uncommitted work that it took along. What
    /// was fetched from a URL is fetched again. A request that has not ended and that no process works on
    /// is handed back itself, to go on with.
    ///
    /// # Errors
    /// When a process works on it, or everything of it is integrated.
    pub async fn retry(&self, what: Found) -> Result<Submitted, Error> {
        let no = |why: &str| Error::NotRetryable {
            id: what.to_string(),
            why: why.to_owned(),
        };
        let (request, only) = match what {
            Found::Request(id) => (id, None),
            Found::Job(id) => (self.ledger.job(id).await?.request, Some(id)),
            Found::Attempt(id) => {
                let attempt = self.ledger.attempt(id).await?;
                (attempt.request, Some(attempt.job))
            }
            Found::Change(id) => {
                let change = self.ledger.change(id).await?;
                (change.request, Some(change.job))
            }
            Found::Session(_) => return Err(no("a session is a log; name a request")),
            Found::Notification(_) => return Err(no("it is told again, and is no work")),
        };
        let request = self.ledger.request(request).await?;
        let changes = self.ledger.changes_of(request.id).await?;
        let jobs = self.ledger.jobs(request.id).await?;
        if !request.state.is_terminal() {
            // Opening the ledger gave back what dead processes held, so that what is held is alive.
            let held = request.state == RequestState::Planning
                || jobs.iter().any(|job| {
                    matches!(
                        job.state,
                        JobState::Leased | JobState::Running | JobState::Checking
                    )
                })
                || changes.iter().any(|change| {
                    matches!(change.state, ChangeState::Merging | ChangeState::Checking)
                });
            if held {
                return Err(no("a process works on it right now; wait for its end"));
            }
            if only.is_some() {
                let why = format!(
                    "its request is not at its end and nobody works on it; `skep retry {}` goes on \
                     with it",
                    request.id
                );
                return Err(no(&why));
            }
            return Ok(self.resumed(request));
        }
        let stocked = self.sites.stocked(&request.ask).await;
        // What of it is lost is done again. Without its base that cannot be known: the new request
        // says why.
        let mut done = HashSet::new();
        for change in changes.iter().filter(|it| it.state.is_integrated()) {
            let commit = change.integrated.as_deref().map(str::parse);
            let is_kept = match (&stocked, commit) {
                (Ok(stocked), Some(Ok(commit))) => stocked.keeps(commit).await?,
                _ => true,
            };
            if is_kept {
                done.insert(change.job);
            }
        }
        let is_done = |job: &domain::entity::Job| {
            job.state == JobState::NothingToDo || done.contains(&job.id)
        };
        let left: Vec<_> = jobs
            .iter()
            .filter(|job| only.is_none_or(|only| job.id == only) && !is_done(job))
            .collect();
        if !jobs.is_empty() && left.is_empty() {
            return Err(no("all of it is integrated"));
        }
        let mut plan = Plan {
            jobs: left.iter().map(|job| job.spec.clone()).collect(),
        };
        let names: Vec<String> = plan.jobs.iter().map(|job| job.name.clone()).collect();
        for job in &mut plan.jobs {
            job.after.retain(|name| names.contains(name));
        }
        let ask = request.ask;
        let given = !plan.jobs.is_empty();
        let (path, chosen) = self.reach_again(&ask).await?;
        self.submit(New {
            path,
            chosen,
            prompt: ask.prompt,
            planning: if given { Planning::Given } else { ask.planning },
            plan: given.then_some(plan),
            agent: ask.agent,
            model: ask.model,
            budget: Some(ask.budget),
            dirty: ask.dirty,
            parallel: ask.parallel,
            placement: ask.placement,
            key: None,
            retry_of: Some(request.id),
        })
        .await
    }

    /// Requests that have not ended and that no process works on, the oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn interrupted(&self) -> Result<Vec<Submitted>, Error> {
        let open = self.ledger.interrupted().await?;
        Ok(open
            .into_iter()
            .map(|request| self.resumed(request))
            .collect())
    }

    /// The repository that a path is in, as the ledger knows it.
    ///
    /// # Errors
    /// When it is in none.
    pub async fn repository(&self, path: &Path) -> Result<RepositoryId, Error> {
        let source = self.source(path).await?;
        let common = source.common_dir().to_string_lossy().into_owned();
        Ok(self.ledger.repository(&common).await?)
    }

    /// A request that was accepted earlier and has not ended.
    fn resumed(&self, request: Request) -> Submitted {
        let ask = request.ask;
        let not_before = match request.state {
            RequestState::Queued => self.still_to_come(&ask),
            _ => None,
        };
        let route = ask.model.as_deref().and_then(|model| {
            let ready = self.agents.find(&ask.agent).ok()?;
            let providers = self.gateway.providers();
            providers.route(Some(model), &ready.dialects).ok()
        });
        Submitted {
            request: request.id,
            session: request.session,
            base: ask.base,
            priced: route.is_none_or(|route| route.price.is_some()),
            model: ask.model,
            budget: ask.budget,
            checked: ask.policy.is_checked(),
            not_before,
            sources: ask.sources,
        }
    }

    /// Runs an attempt of the built-in agent again from its recording.
    ///
    /// # Errors
    /// Names the call and the field where it is not what was recorded.
    pub async fn replay(
        &self,
        attempt: AttemptId,
        cancel: &CancellationToken,
    ) -> Result<Replayed, Error> {
        Ok(worker::replay(&self.worker, attempt, cancel).await?)
    }
}

/// How far back a question of ancestry looks, in commits.
const HISTORY: usize = 1_000_000;
