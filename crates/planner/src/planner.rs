//! Claiming requests, and making their plans.

use crate::prompt::{self, Repository};
use dialects::{Conversation, Decoder, Dialect, RequestOptions};
use domain::{
    Class, Failure, Reason, RequestId,
    entity::{Planning, Request},
    plan::Plan,
};
use gateway::{Call, Cassette, Gateway, Grant, GrantSpec, LedgerFunds, Mode, Route};
use git::Mirror;
use ledger::{Lease, Ledger, Owner, Spender};
use site::Sites;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The most files that a model is told of.
const MAX_FILES: usize = 400;
/// The most files that are counted.
const MAX_COUNTED: usize = 200_000;
/// The most bytes of `AGENTS.md` that a model is told.
const MAX_INSTRUCTIONS: u64 = 32 * 1024;
/// The most tokens of a plan.
const MAX_OUTPUT: u32 = 8_000;
/// How often a call is made before it counts as failed.
const TRIES: u32 = 3;
/// The wait before the second try; it doubles with each one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait that a planner chooses itself.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// The longest wait that a provider may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// The longest call or answer of an earlier planner that is read, in bytes.
const MAX_BODY: u64 = 64 << 20;
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

/// Why one request gets no plan.
enum Halt {
    /// It fails.
    Failed(Failure),
    /// The machine has a fault that may pass: it is tried again after a while.
    Postponed(Failure),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        // Providers were asked again already.
        if failure.reason.class() == Class::Environment && failure.reason.may_pass() {
            Self::Postponed(failure)
        } else {
            Self::Failed(failure)
        }
    }
}

impl From<git::Error> for Halt {
    fn from(error: git::Error) -> Self {
        if error.may_pass() {
            Self::Postponed(Failure::caused(Reason::Storage, &error))
        } else {
            Self::Failed(Failure::caused(Reason::Repository, &error))
        }
    }
}

impl From<ledger::Error> for Halt {
    fn from(error: ledger::Error) -> Self {
        match error {
            ledger::Error::LeaseLost(_) => Self::Failed(Failure::caused(Reason::Cancelled, &error)),
            other if other.may_pass() => Self::Postponed(Failure::caused(Reason::Storage, &other)),
            other => Self::Failed(Failure::caused(Reason::Storage, &other)),
        }
    }
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
                Ok((plan, note)) => self.settle(&lease, &request, plan, note).await,
                Err(Halt::Failed(failure)) => {
                    self.ledger.fail_request(&lease, self.clean(failure)).await
                }
                Err(Halt::Postponed(failure)) => {
                    let failure = self.clean(failure);
                    self.ledger.postpone_request(&lease, failure).await
                }
            };
            let settled = match settled {
                // The plan itself is refused: by its budget, say.
                Err(error @ (ledger::Error::Refused(_) | ledger::Error::Plan(_))) => {
                    let failure = Failure::caused(Reason::PlanInvalid, &error);
                    self.ledger.fail_request(&lease, self.clean(failure)).await
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

    /// A failure without a provider's key in it.
    fn clean(&self, failure: Failure) -> Failure {
        Failure::new(failure.reason, self.gateway.redact(failure.detail))
    }

    /// Stores the plan. One that a model wrote though nobody asked it to, and that the budget does
    /// not allow, gives way to the one job.
    async fn settle(
        &self,
        lease: &Lease,
        request: &Request,
        plan: Plan,
        note: Option<String>,
    ) -> Result<(), ledger::Error> {
        let settled = self.ledger.plan_request(lease, plan, note).await;
        let Some(note) = settled
            .as_ref()
            .err()
            .and_then(|error| one_job_instead(request.ask.planning, error))
        else {
            return settled.map(drop);
        };
        let single = Plan::single(&request.ask.prompt);
        self.ledger
            .plan_request(lease, single, Some(note))
            .await
            .map(drop)
    }

    async fn plan(
        &self,
        lease: &Lease,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<(Plan, Option<String>), Halt> {
        let ask = &request.ask;
        let single = || Plan::single(&ask.prompt);
        match ask.planning {
            Planning::None => Ok((single(), None)),
            Planning::Given => match &ask.plan {
                Some(plan) => Ok((plan.clone(), None)),
                None => Err(Failure::new(Reason::PlanInvalid, "the plan is missing").into()),
            },
            Planning::Auto | Planning::Required => {
                match self.ask_model(lease, request, cancel).await {
                    Ok(plan) => Ok((plan, None)),
                    Err(Halt::Failed(failure)) if failure.reason == Reason::PlanInvalid => {
                        if ask.planning == Planning::Required {
                            return Err(failure.into());
                        }
                        let note = format!(
                            "The model's plan was not valid ({}), so the request goes on as one job.",
                            failure.detail
                        );
                        Ok((single(), Some(note)))
                    }
                    Err(halt) => Err(halt),
                }
            }
        }
    }

    async fn ask_model(
        &self,
        lease: &Lease,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Plan, Halt> {
        let route = self
            .gateway
            .providers()
            .route(
                request.ask.model.as_deref(),
                &[Dialect::Messages, Dialect::ChatCompletions],
            )
            .map_err(|error| Failure::caused(Reason::ModelNotFound, &error))?;
        let recorded = self.recorded(request.id).await;
        if let Some(recorded) = recorded {
            let mode = Mode::Continue(recorded.clone());
            let asked = self.converse(lease, request, route.clone(), mode, cancel);
            let asked = asked.await;
            if !recorded.is_diverged() {
                return asked;
            }
            tracing::info!(request = %request.id, "the planning is another one than was recorded, and begins anew");
        }
        self.converse(lease, request, route, Mode::Live, cancel)
            .await
    }

    /// The calls of a planner that was lost: their answers are taken from here, because they are
    /// paid. None where there were none, or where they cannot be read.
    async fn recorded(&self, request: RequestId) -> Option<Cassette> {
        match gateway::plan_cassette(&self.ledger, request, MAX_BODY).await {
            Ok(recorded) => {
                let recorded = recorded.without_refused().without_cut_end();
                (!recorded.is_empty()).then_some(recorded)
            }
            Err(error) => {
                tracing::warn!(error = domain::failure::chain(&error), %request, "an earlier planning cannot be gone on with");
                None
            }
        }
    }

    async fn converse(
        &self,
        lease: &Lease,
        request: &Request,
        route: Route,
        mode: Mode,
        cancel: &CancellationToken,
    ) -> Result<Plan, Halt> {
        let repository = self.repository(request).await?;
        let funds = LedgerFunds::open(&self.ledger, Spender::Plan(lease)).await?;
        let mut spec = GrantSpec::new(Arc::new(funds), route, cancel.child_token());
        spec.mode = mode;
        let grant = self.gateway.grant(spec);
        let mut conversation = Conversation::new(prompt::system(), Vec::new());
        conversation.push_user(prompt::request(&request.ask.prompt, &repository));
        let mut wrong = String::from("no plan was written");
        for _ in 0..ROUNDS {
            let answer = patiently(&grant, &mut conversation, cancel).await;
            let answer = match answer {
                // What follows is made of it: the plan, or a note of what is wrong with it.
                Ok(answer) => self.gateway.redact(answer),
                Err(failure) => {
                    grant.close().await;
                    return Err(failure.into());
                }
            };
            let read = prompt::object(&answer).map_or_else(
                || Err("the answer holds no JSON object".to_owned()),
                |text| Plan::from_model(text).map_err(|error| domain::failure::chain(&error)),
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
        Err(Failure::new(Reason::PlanInvalid, wrong).into())
    }

    async fn repository(&self, request: &Request) -> Result<Repository, Halt> {
        let mirror = self
            .sites
            .stocked(&request.ask)
            .await
            .map_err(|error| error.failure())?
            .mirror;
        let base = request.ask.base.clone();
        let read = tokio::task::spawn_blocking(move || look(&mirror, &base)).await;
        let mut repository =
            read.map_err(|_| Failure::new(Reason::Bug, "the repository was not read to its end"))??;
        repository.checks = request
            .ask
            .policy
            .checks
            .iter()
            .map(|check| (check.name.clone(), check.command.clone()))
            .collect();
        repository.beside = request.ask.sources.notes(site::SHOWN_IN).collect();
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
        beside: Vec::new(),
    })
}

/// Why the one job is done instead of the model's plan, if it is.
fn one_job_instead(planning: Planning, error: &ledger::Error) -> Option<String> {
    let refused = matches!(error, ledger::Error::Refused(_) | ledger::Error::Plan(_));
    (refused && planning == Planning::Auto).then(|| {
        format!(
            "The model's plan cannot be carried out ({}), so the request goes on as one job.",
            domain::failure::chain(error)
        )
    })
}

/// Asks for the next turn, again if the provider has trouble that passes.
async fn patiently(
    grant: &Grant,
    conversation: &mut Conversation,
    cancel: &CancellationToken,
) -> Result<String, Failure> {
    let mut tried = 0;
    loop {
        tried += 1;
        let error = match answer(grant, conversation).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(wait) = wait_before(tried, &error) else {
            return Err(error.failure());
        };
        tracing::info!(%error, tried, wait_ms = wait.as_millis(), "a planner's call is tried again");
        let waited = cancel.run_until_cancelled(tokio::time::sleep(wait)).await;
        if waited.is_none() {
            return Err(Failure::new(
                Reason::Cancelled,
                "the planning was ended before the next try",
            ));
        }
    }
}

/// How long to wait before the next try, or `None` when there is to be none.
fn wait_before(tried: u32, error: &gateway::Error) -> Option<Duration> {
    let passes = match error {
        // A used-up quota is told like a limited rate, and does not pass.
        gateway::Error::Provider { fault, .. } => fault.class.is_retryable(),
        other => matches!(
            other.reason(),
            Reason::RateLimited | Reason::ProviderFailed | Reason::Unreachable
        ),
    };
    if !passes || tried >= TRIES {
        return None;
    }
    match error.retry_after() {
        // Who asks for more than is bearable is not to be asked sooner.
        Some(asked) => (asked <= LONGEST_ASKED).then_some(asked),
        None => {
            let factor = 2_u32.saturating_pow(tried.saturating_sub(1));
            Some(FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use dialects::{Fault, FaultClass};

    fn provider(class: FaultClass, retry_after: Option<u64>) -> gateway::Error {
        gateway::Error::Provider {
            model: "m".into(),
            status: 529,
            fault: Fault {
                class,
                kind: String::new(),
                message: "trouble".into(),
            },
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_fault_of_the_machine_puts_a_request_back_and_all_else_fails_it() {
        let is_put_back = |halt| matches!(halt, Halt::Postponed(_));
        let full = |kind: std::io::ErrorKind| git::Error::Io {
            doing: "reading",
            path: "/mirror".into(),
            source: kind.into(),
        };
        assert!(is_put_back(full(std::io::ErrorKind::StorageFull).into()));
        assert!(is_put_back(Failure::new(Reason::Storage, "").into()));
        assert!(!is_put_back(full(std::io::ErrorKind::NotFound).into()));
        assert!(!is_put_back(ledger::Error::Closed.into()));
        for reason in [Reason::PlanInvalid, Reason::Unreachable, Reason::Repository] {
            assert!(!is_put_back(Failure::new(reason, "").into()), "{reason:?}");
        }
    }

    #[test]
    fn trouble_that_passes_is_tried_again_a_few_times_and_later_each_time() {
        let error = provider(FaultClass::Overloaded, None);
        let waits: Vec<_> = (1..=4).map(|tried| wait_before(tried, &error)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(waits, [ms(500), ms(1_000), None, None]);
        let cut = gateway::Error::Cut {
            provider: "p".into(),
            source: None,
        };
        assert_eq!(wait_before(1, &cut), ms(500));
    }

    #[test]
    fn what_the_provider_asks_for_is_waited_unless_it_is_unbearable() {
        let wait = |asked| wait_before(1, &provider(FaultClass::RateLimit, Some(asked)));
        assert_eq!(wait(0), Some(Duration::ZERO));
        assert_eq!(wait(60), Some(Duration::from_secs(60)));
        assert_eq!(wait(61), None);
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        for class in [
            FaultClass::Quota,
            FaultClass::InvalidKey,
            FaultClass::BadRequest,
        ] {
            assert_eq!(wait_before(1, &provider(class, None)), None, "{class:?}");
        }
        assert_eq!(wait_before(1, &gateway::Error::Revoked), None);
        assert_eq!(
            wait_before(1, &gateway::Error::CallLimit { limit: 1 }),
            None
        );
    }

    #[test]
    fn a_plan_that_is_refused_gives_way_to_one_job_only_where_nobody_insisted_on_it() {
        let refused = || ledger::Error::Plan(domain::plan::Error::Empty);
        assert!(
            one_job_instead(Planning::Auto, &refused()).is_some_and(|note| {
                note.contains("the plan has no jobs") && note.contains("as one job")
            })
        );
        for planning in [Planning::Required, Planning::Given, Planning::None] {
            assert_eq!(one_job_instead(planning, &refused()), None);
        }
        let other = ledger::Error::Invalid("x".into());
        assert_eq!(one_job_instead(Planning::Auto, &other), None);
    }
}
