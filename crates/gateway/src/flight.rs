//! One call on its way: reserve, send, stream, settle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use dialects::{Dialect, Meter, Report, Usage};
use domain::{Amount, Micros, Reason};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    body::{Body, End},
    classify::Answerer,
    client::Pieces,
    error::Error,
    funds::{Funds, Settlement},
    gateway::Shared,
    grant::Last,
    headers,
    provider::Times,
    providers::Route,
    redact::Scrubber,
};

/// Chunks of an answer that wait for a slow reader.
const CHUNKS: usize = 16;

/// What a call may use, before it is known what it did use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    input: u64,
    output: u64,
}

impl Estimate {
    pub(crate) fn new(request: &dialects::Request, default_output: u64) -> Self {
        let each = request.max_output.unwrap_or(default_output);
        Self {
            input: request.input_estimate,
            output: each.saturating_mul(request.answers),
        }
    }

    fn amount(self, route: &Route) -> Amount {
        let price = route.price;
        Amount {
            tokens: self
                .input
                .saturating_add(self.output)
                .min(Amount::UNBOUNDED),
            money: price.map_or(Micros(0), |price| {
                Micros(
                    price
                        .ceiling(self.input, self.output)
                        .0
                        .min(Amount::UNBOUNDED),
                )
            }),
            iterations: 1,
            ..Amount::ZERO
        }
    }

    /// What was used, and whether that is known. What is not known is taken to be what was
    /// reserved, or more where more is known.
    fn spent(self, route: &Route, usage: &Usage) -> (Amount, bool) {
        let cost = |usage: &Usage| {
            let money = route.price.and_then(|price| price.cost(usage));
            Amount {
                tokens: usage.total().unwrap_or(0).min(Amount::UNBOUNDED),
                money: Micros(money.map_or(0, |m| m.0.min(Amount::UNBOUNDED))),
                iterations: 1,
                ..Amount::ZERO
            }
        };
        if usage.is_known() {
            return (cost(usage), true);
        }
        let filled = Usage {
            input: usage.input.or(Some(self.input)),
            output: usage.output.or(Some(self.output)),
            ..*usage
        };
        let (reserved, filled) = (self.amount(route), cost(&filled));
        // The larger of the two in each measure.
        (reserved.plus(filled.minus(reserved)), false)
    }
}

/// The head of an answer, with its body to come.
pub(crate) struct Head {
    /// `provider/model` that answers.
    pub(crate) model: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// What is recorded and paid of a call; a call that costs nothing has none of it.
pub(crate) struct Account {
    pub(crate) funds: Arc<dyn Funds>,
    pub(crate) estimate: Estimate,
    /// How many calls the grant has made so far.
    pub(crate) made: Arc<AtomicU64>,
    /// Held while a call gets its number.
    pub(crate) numbers: Arc<tokio::sync::Mutex<()>>,
    /// How many calls the grant has begun or made; given back when the budget refuses.
    pub(crate) begun: Arc<AtomicU64>,
    pub(crate) path: String,
    pub(crate) asked: Bytes,
}

/// One call on its way. It owns the connection to the provider until the end, and is the only
/// one to settle.
pub(crate) struct Flight {
    pub(crate) gateway: Arc<Shared>,
    pub(crate) cancel: CancellationToken,
    pub(crate) route: Route,
    pub(crate) dialect: Dialect,
    /// Whether what is wrong with the content of an answer is an error of the call: for callers
    /// in this process. Others see the provider's bytes as they are.
    pub(crate) strict: bool,
    /// Where it is kept why the last call failed.
    pub(crate) last: Arc<Last>,
    pub(crate) account: Option<Account>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What came of a call.
#[derive(Default)]
struct Outcome {
    status: Option<u16>,
    headers: HeaderMap,
    recorded: BytesMut,
    report: Option<Report>,
    tail: Bytes,
    error: Option<Error>,
    /// Whether the request surely never left.
    unsent: bool,
    /// Where the end is told, once the head was.
    end: Option<oneshot::Sender<End>>,
}

impl Flight {
    /// Makes the call. Ends when the answer is over and settled, by itself, because the caller
    /// dropped the head or the body, because the grant was revoked, or at a limit of time.
    pub(crate) async fn run(
        mut self,
        request: Request<Pieces>,
        mut head: oneshot::Sender<Result<Head, Error>>,
    ) {
        let started = Instant::now();
        let account = self.account.take();
        if let Some(over) = self.over(&head) {
            drop(head.send(Err(over)));
            return;
        }
        let mut reserved = Amount::ZERO;
        let mut call = 0;
        if let Some(account) = &account {
            reserved = account.estimate.amount(&self.route);
            // One after the other: a call that is refused leaves its number to the next one.
            let turn = account.numbers.lock().await;
            call = account.made.load(Ordering::Relaxed) + 1;
            if let Err(refused) = account.funds.reserve(call, reserved).await {
                account.begun.fetch_sub(1, Ordering::Relaxed);
                // Nobody may be waiting any more, which changes nothing.
                drop(head.send(Err(Error::Funds(refused))));
                return;
            }
            account.made.store(call, Ordering::Relaxed);
            drop(turn);
        }

        let sent = match self.over(&head) {
            Some(over) => Err((over, true)),
            None => {
                let sent = self.send(request, &mut head, started).await;
                sent.map_err(|error| (error, false))
            }
        };
        let (mut outcome, waiting) = match sent {
            Ok(answer) => (self.stream(answer, head, started).await, None),
            Err((error, unsent)) => {
                let outcome = Outcome {
                    unsent: unsent || matches!(error, Error::Unreachable { .. }),
                    error: Some(error),
                    ..Outcome::default()
                };
                (outcome, Some(head))
            }
        };

        if let Some(account) = account {
            let settlement =
                self.settlement(&account, reserved, call, &mut outcome, started.elapsed());
            if let Err(failed) = account.funds.settle(settlement).await {
                tracing::error!(call, model = %self.route.name(), error = %failed, "a call could not be settled");
                outcome.error.get_or_insert(Error::Funds(failed));
            }
        }
        if let Some(error) = &outcome.error {
            self.last.failed(error);
        }
        let Outcome {
            tail, error, end, ..
        } = outcome;
        if let Some(end) = end {
            // A reader that has gone needs no end.
            drop(end.send(End { tail, error }));
        } else if let (Some(head), Some(error)) = (waiting, error) {
            drop(head.send(Err(error)));
        }
    }

    /// Why nothing should be begun any more.
    fn over(&self, head: &oneshot::Sender<Result<Head, Error>>) -> Option<Error> {
        if self.cancel.is_cancelled() {
            Some(Error::Revoked)
        } else {
            head.is_closed().then_some(Error::Abandoned)
        }
    }

    async fn send(
        &self,
        request: Request<Pieces>,
        head: &mut oneshot::Sender<Result<Head, Error>>,
        started: Instant,
    ) -> Result<http::Response<Incoming>, Error> {
        let times = self.times();
        let wait = times.silence.min(times.call);
        let provider = || self.route.provider.name().to_owned();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Revoked),
            () = head.closed() => Err(Error::Abandoned),
            answer = self.gateway.client.send(request) => answer.map_err(|error| {
                if error.is_connect() {
                    Error::Unreachable {
                        provider: provider(),
                        address: self.route.provider.base_url().to_owned(),
                        source: error.into(),
                    }
                } else {
                    Error::Cut { provider: provider(), source: Some(error.into()) }
                }
            }),
            () = sleep_until(started + wait) => {
                let is_silence = times.silence <= times.call;
                Err(if is_silence { self.silent("no answer", wait) } else { self.late(wait) })
            }
        }
    }

    /// Passes the answer on and reads along. Wakes on a chunk, on room for one, on the reader's
    /// going, on revocation, and on the limits of time; owns the provider's body.
    async fn stream(
        &self,
        answer: http::Response<Incoming>,
        head: oneshot::Sender<Result<Head, Error>>,
        started: Instant,
    ) -> Outcome {
        let (bounds, times) = (&self.gateway.bounds, self.times());
        let (parts, mut incoming) = answer.into_parts();
        let status = parts.status.as_u16();
        let headers = headers::to_agent(&parts.headers, &self.gateway.redactor);
        let (chunks, receiver) = mpsc::channel(CHUNKS);
        let (end, end_receiver) = oneshot::channel();
        let mut outcome = Outcome {
            status: Some(status),
            headers: headers.clone(),
            end: Some(end),
            ..Outcome::default()
        };
        let is_refusal = Answerer::is_refusal(status, &headers);
        if !is_refusal {
            self.last.answered();
        }
        let told = head.send(Ok(Head {
            model: self.route.name(),
            status,
            headers,
            body: Body::streaming(receiver, end_receiver, incoming.size_hint().exact()),
        }));
        if told.is_err() {
            outcome.error = Some(Error::Abandoned);
            return outcome;
        }

        let mut meter = Meter::new(self.dialect, status);
        let mut scrubber = Scrubber::new(self.gateway.redactor.clone());
        let deadline = sleep_until(started + times.call);
        tokio::pin!(deadline);
        let idle = sleep_until(Instant::now() + times.silence);
        tokio::pin!(idle);
        outcome.error = loop {
            let frame = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break Some(Error::Revoked),
                () = chunks.closed() => break Some(Error::Abandoned),
                frame = incoming.frame() => frame,
                () = &mut deadline => break Some(self.late(times.call)),
                () = &mut idle => break Some(self.silent("not one byte came", times.silence)),
            };
            let data = match frame {
                None => {
                    outcome.tail = scrubber.finish();
                    outcome.recorded.extend_from_slice(&outcome.tail);
                    break None;
                }
                Some(Err(error)) => {
                    break Some(Error::Cut {
                        provider: self.route.provider.name().into(),
                        source: Some(error.into()),
                    });
                }
                // Trailers say nothing that is needed.
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            meter.feed(&data);
            let mut data = scrubber.push(data);
            let is_last = incoming.is_end_stream();
            if is_last {
                let held = scrubber.finish();
                if !held.is_empty() {
                    let mut joined = BytesMut::from(data.as_ref());
                    joined.extend_from_slice(&held);
                    data = joined.freeze();
                }
            }
            if outcome.recorded.len().saturating_add(data.len()) > bounds.response_bytes {
                break Some(Error::AnswerTooLarge {
                    provider: self.route.provider.name().into(),
                    limit: bounds.response_bytes,
                });
            }
            outcome.recorded.extend_from_slice(&data);
            if is_last {
                // The reader learns of the end only when the call is settled.
                outcome.tail = data;
                break None;
            }
            if !data.is_empty() {
                let room = tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => break Some(Error::Revoked),
                    room = chunks.reserve() => room,
                    () = &mut deadline => break Some(self.late(times.call)),
                };
                match room {
                    Ok(room) => room.send(data),
                    Err(_) => break Some(Error::Abandoned),
                }
            }
            idle.as_mut().reset(Instant::now() + times.silence);
        };
        let report = meter.finish();
        if self.strict && outcome.error.is_none() && status < 400 {
            outcome.error =
                self.answerer(&self.route.name())
                    .verdict(status, &outcome.headers, &report);
        }
        if !self.strict && outcome.error.is_none() {
            // Told to the agent in the provider's own bytes; kept here for the one who asks why.
            let name = self.route.name();
            let answerer = self.answerer(&name);
            let failed = if is_refusal {
                Some(answerer.refusal(status, &outcome.headers, &outcome.recorded))
            } else {
                answerer.verdict(status, &outcome.headers, &report)
            };
            if let Some(failed) = failed {
                self.last.failed(&failed);
            }
        }
        outcome.report = Some(report);
        outcome
    }

    fn answerer<'a>(&'a self, model: &'a str) -> Answerer<'a> {
        Answerer {
            provider: self.route.provider.name(),
            model,
            redactor: &self.gateway.redactor,
        }
    }

    fn times(&self) -> Times {
        self.gateway.times(&self.route.provider)
    }

    fn silent(&self, what: &'static str, after: Duration) -> Error {
        self.timed_out(what, after, "silence_timeout")
    }

    fn late(&self, after: Duration) -> Error {
        self.timed_out("its answer was not over", after, "call_timeout")
    }

    fn timed_out(&self, what: &'static str, after: Duration, setting: &'static str) -> Error {
        Error::TimedOut {
            provider: self.route.provider.name().into(),
            what,
            after,
            setting: Some(setting),
        }
    }

    fn settlement(
        &self,
        account: &Account,
        reserved: Amount,
        call: u64,
        outcome: &mut Outcome,
        duration: Duration,
    ) -> Settlement {
        let (spent, metered) = if did_nothing(outcome) {
            (Amount::ZERO, true)
        } else {
            let usage = outcome.report.as_ref().map(|r| r.usage).unwrap_or_default();
            account.estimate.spent(&self.route, &usage)
        };
        let redactor = &self.gateway.redactor;
        Settlement {
            reserved,
            spent,
            call,
            model: self.route.name(),
            metered,
            priced: self.route.price.is_some(),
            status: outcome.status,
            duration,
            request: redactor.bytes(account.asked.clone()),
            path: redactor.text(account.path.clone()),
            response: std::mem::take(&mut outcome.recorded).freeze(),
            headers: headers::stored(&outcome.headers),
            failure: outcome.error.as_ref().and_then(cause),
        }
    }
}

/// Whether it is known that the model did nothing: no connection, or the provider's own refusal
/// in place of an answer. Gateways between (502, 504 and a page in HTML) know nothing of it.
fn did_nothing(outcome: &Outcome) -> bool {
    if outcome.unsent {
        return true;
    }
    let (Some(status), Some(report)) = (outcome.status, &outcome.report) else {
        return false;
    };
    let untouched = report.usage.input.is_none() && report.usage.output.is_none();
    let own_words = report.fault.as_ref().is_some_and(|f| !f.kind.is_empty());
    match status {
        400..500 => untouched && status != 408,
        502 | 504 | 520..=527 => false,
        // An error as the first and only event of a stream too.
        _ => untouched && own_words && report.stop.is_none() && report.id.is_none(),
    }
}

/// Why an answer is not whole, where a replay could not find that out from its bytes.
fn cause(error: &Error) -> Option<Reason> {
    match error {
        Error::Provider { .. } | Error::BadAnswer { .. } | Error::Cut { source: None, .. } => None,
        other => Some(other.reason()),
    }
}
