//! Claiming requests, and making their plans.

use crate::prompt::{self, Repository};
use dialects::{Conversation, Decoder, Dialect, RequestOptions};
use domain::{
    Failure, Reason, RequestId,
    entity::{Planning, Request},
    plan::Plan,
};
use gateway::{Call, Gateway, Grant, GrantSpec, LedgerFunds};
use git::Mirror;
use ledger::{Lease, Ledger, Owner, Spender};
use site::Sites;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The most files that a model is told of.
const MAX_FILES: usize = 400;
/// The most files that are counted.
const MAX_COUNTED: usize = 200_000;
/// The most bytes of `AGENTS.md` that a model is told.
const MAX_INSTRUCTIONS: u64 = 32 * 1024;
/// The most tokens of a plan.
const MAX_OUTPUT: u32 = 8_000;
/// How often a model may write the plan: once, and once more with what was wrong.
const ROUNDS: usize = 2;

/// What a planner works with.
#[derive(Clone)]
pub struct Options {
    /// The durable truth.
    pub ledger: Ledger,
    /// Where mirrors are.
    pub sites: Sites,
    /// The way to models.
    pub gateway: Gateway,
}

/// Takes requests to plans. Cheap to clone.
#[derive(Clone)]
pub struct Planner {
    ledger: Ledger,
    sites: Sites,
    gateway: Gateway,
}

/// Why a planner cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be used.
    #[error("the planner cannot use the ledger")]
    Ledger(#[from] ledger::Error),
}

impl Planner {
    /// A planner.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options {
            ledger,
            sites,
            gateway,
        } = options;
        Self {
            ledger,
            sites,
            gateway,
        }
    }

    /// Claims one request, this one if it is named, and plans it. False if there is none.
    ///
    /// # Errors
    /// When the ledger cannot be used. A request that cannot be planned is no error.
    pub async fn step(
        &self,
        owner: &Owner,
        only: Option<RequestId>,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let Some(claimed) = self.ledger.claim_request(owner, only).await? else {
            return Ok(false);
        };
        let lost = cancel.child_token();
        let (lease, request) = (claimed.lease, claimed.request);
        ledger::held(&self.ledger, &lease, &lost, async {
            let settled = match self.plan(&lease, &request, &lost).await {
                Ok((plan, note)) => self.ledger.plan_request(&lease, plan, note).await.map(drop),
                Err(failure) => self.ledger.fail_request(&lease, failure).await,
            };
            let settled = match settled {
                // The plan itself is refused: by its budget, say.
                Err(error @ (ledger::Error::Refused(_) | ledger::Error::Plan(_))) => {
                    let failure = Failure::caused(Reason::PlanInvalid, &error);
                    self.ledger.fail_request(&lease, failure).await
                }
                other => other,
            };
            match settled {
                Ok(()) | Err(ledger::Error::LeaseLost(_)) => {}
                Err(error) => {
                    tracing::error!(%error, request = %request.id, "a plan could not be stored");
                }
            }
        })
        .await;
        Ok(true)
    }

    async fn plan(
        &self,
        lease: &Lease,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<(Plan, Option<String>), Failure> {
        let ask = &request.ask;
        let single = || Plan::single(&ask.prompt);
        match ask.planning {
            Planning::None => Ok((single(), None)),
            Planning::Given => match &ask.plan {
                Some(plan) => Ok((plan.clone(), None)),
                None => Err(Failure::new(Reason::PlanInvalid, "the plan is missing")),
            },
            Planning::Auto | Planning::Required => {
                match self.ask_model(lease, request, cancel).await {
                    Ok(plan) => Ok((plan, None)),
                    Err(failure) if failure.reason == Reason::PlanInvalid => {
                        if ask.planning == Planning::Required {
                            return Err(failure);
                        }
                        let note = format!(
                            "The model's plan was not valid ({}), so the request goes on as one job.",
                            failure.detail
                        );
                        Ok((single(), Some(note)))
                    }
                    Err(failure) => Err(failure),
                }
            }
        }
    }

    async fn ask_model(
        &self,
        lease: &Lease,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Plan, Failure> {
        let route = self
            .gateway
            .providers()
            .route(
                request.ask.model.as_deref(),
                &[Dialect::Messages, Dialect::ChatCompletions],
            )
            .map_err(|error| Failure::caused(Reason::ModelNotFound, &error))?;
        let repository = self.repository(request).await?;
        let funds = LedgerFunds::open(&self.ledger, Spender::Plan(lease))
            .await
            .map_err(storage)?;
        let grant =
            self.gateway
                .grant(GrantSpec::new(Arc::new(funds), route, cancel.child_token()));
        let mut conversation = Conversation::new(prompt::system(), Vec::new());
        conversation.push_user(prompt::request(&request.ask.prompt, &repository));
        let mut wrong = String::from("no plan was written");
        for _ in 0..ROUNDS {
            let answer = answer(&grant, &mut conversation).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    grant.close().await;
                    return Err(error.failure());
                }
            };
            let read = prompt::object(&answer).map_or_else(
                || Err("the answer holds no JSON object".to_owned()),
                |text| Plan::from_json(text).map_err(|error| domain::failure::chain(&error)),
            );
            match read {
                Ok(plan) => {
                    grant.close().await;
                    return Ok(plan);
                }
                Err(error) => {
                    conversation.push_user(prompt::repair(&error));
                    wrong = error;
                }
            }
        }
        grant.close().await;
        Err(Failure::new(Reason::PlanInvalid, wrong))
    }

    async fn repository(&self, request: &Request) -> Result<Repository, Failure> {
        let mirror = self
            .sites
            .mirror(&request.ask.repository.to_string())
            .await
            .map_err(|error| error.failure())?;
        let base = request.ask.base.clone();
        let read = tokio::task::spawn_blocking(move || look(&mirror, &base)).await;
        let mut repository = read
            .map_err(|_| Failure::new(Reason::Bug, "the repository was not read to its end"))?
            .map_err(|error| Failure::caused(Reason::Repository, &error))?;
        repository.checks = request
            .ask
            .policy
            .checks
            .iter()
            .map(|check| (check.name.clone(), check.command.clone()))
            .collect();
        Ok(repository)
    }
}

/// What a model is told of the repository.
fn look(mirror: &Mirror, base: &str) -> Result<Repository, git::Error> {
    let Ok(base) = base.parse() else {
        return Ok(Repository::default());
    };
    let files = mirror.files(mirror.tree_of(base)?, MAX_COUNTED)?;
    let instructions = mirror
        .read(base, "AGENTS.md".into(), MAX_INSTRUCTIONS)
        .unwrap_or_default();
    Ok(Repository {
        file_count: files.len(),
        files: files
            .iter()
            .take(MAX_FILES)
            .map(|(path, _)| path.to_string())
            .collect(),
        instructions: instructions.map(|text| String::from_utf8_lossy(&text).into_owned()),
        checks: Vec::new(),
    })
}

/// Asks for the next turn and adds it to the conversation.
async fn answer(grant: &Grant, conversation: &mut Conversation) -> Result<String, gateway::Error> {
    let route = grant.route();
    let options = RequestOptions {
        model: route.model.clone(),
        max_output: MAX_OUTPUT,
    };
    let dialect = route.dialect;
    let body = conversation.request(dialect, &options);
    let mut response = grant.call(Call::new(dialect, body)).await?;
    let mut decoder = Decoder::new(dialect, response.status);
    while let Some(chunk) = response.body.chunk().await? {
        decoder.feed(&chunk);
    }
    let (reply, _) = decoder.finish();
    conversation.push_reply(&reply);
    Ok(reply.text())
}

fn storage(error: ledger::Error) -> Failure {
    match error {
        ledger::Error::LeaseLost(_) => Failure::caused(Reason::Cancelled, &error),
        other => Failure::caused(Reason::Storage, &other),
    }
}
