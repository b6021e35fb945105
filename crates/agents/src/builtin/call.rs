//! One step of the model: a call, with tries and waits, decoded as it comes.

use std::time::Duration;

use dialects::{Decoder, Delta, End, Reply};

use super::Options;
use crate::agent::{Context, Stopped, ToolResults};
use crate::event::AgentEvent;
use crate::guard::Guard;
use crate::model::{self, Model};
use crate::turn::halted;

/// Asks the model, again if need be, and returns its reply.
///
/// Waits between tries are bounded, honour what the provider asks for, and are left out in a
/// replay.
///
/// # Errors
///
/// Why the turn must stop: for good, or after the last try.
pub(super) async fn ask(
    model: &dyn Model,
    body: &[u8],
    options: &Options,
    guard: &Guard,
    context: &Context<'_>,
) -> Result<Reply, Stopped> {
    let mut tried = 0;
    let mut unreached = 0;
    loop {
        tried += 1;
        let error = match once(model, body, options, guard, context).await? {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        unreached = match error {
            model::Error::Network { .. } => unreached + 1,
            _ => 0,
        };
        let wait = wait_before(tried, &error, options);
        let wait = wait.filter(|_| unreached < options.network_tries);
        let Some(wait) = wait.filter(|wait| *wait < guard.left()) else {
            return Err(match error {
                model::Error::Budget { .. } => Stopped::Budget,
                model::Error::Cancelled => Stopped::Cancelled,
                other => Stopped::Failed(other.into()),
            });
        };
        let wait = if context.recorded.is_some_and(ToolResults::is_past) {
            Duration::ZERO
        } else {
            wait
        };
        let event = AgentEvent::Retry {
            reason: error.to_string(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        context.observer.record(event).await.map_err(halted)?;
        guard.run(tokio::time::sleep(wait)).await?;
    }
}

/// How long to wait before the next try, or `None` when there is to be none.
fn wait_before(tried: u32, error: &model::Error, options: &Options) -> Option<Duration> {
    if !error.is_retryable() || tried >= options.tries {
        return None;
    }
    match error.retry_after() {
        // Who asks for more than is bearable is not to be asked sooner.
        Some(asked) => (asked <= options.longest_wait).then_some(asked),
        None => {
            let factor = 2_u32.saturating_pow(tried.saturating_sub(1));
            Some(
                options
                    .first_wait
                    .saturating_mul(factor)
                    .min(options.longest_wait),
            )
        }
    }
}

/// One try. The outer error ends the turn; the inner one may be tried again.
async fn once(
    model: &dyn Model,
    body: &[u8],
    options: &Options,
    guard: &Guard,
    context: &Context<'_>,
) -> Result<Result<Reply, model::Error>, Stopped> {
    let mut chunks = match guard.run(model.call(body.to_vec())).await? {
        Ok(chunks) => chunks,
        Err(error) => return Ok(Err(error)),
    };
    let mut decoder = Decoder::new(model.dialect(), 200);
    loop {
        let next = tokio::time::timeout(options.silence, chunks.next());
        match guard.run(next).await? {
            Ok(Ok(Some(chunk))) => record(decoder.feed(&chunk), context).await?,
            Ok(Ok(None)) => break,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => {
                let reason = format!("no answer for {} s", options.silence.as_secs());
                return Ok(Err(model::Error::Network { reason }));
            }
        }
    }
    let (reply, deltas) = decoder.finish();
    record(deltas, context).await?;
    Ok(match (reply.fault.clone(), reply.end) {
        (Some(fault), _) => Err(model::Error::Provider {
            status: 200,
            fault,
            retry_after: None,
        }),
        (None, End::Cut) if reply.blocks.is_empty() && reply.usage.input.is_none() => {
            Err(model::Error::Nonsense {
                reason: "it holds nothing of its dialect".into(),
            })
        }
        (None, End::Cut) => Err(model::Error::Network {
            reason: "the answer broke off".into(),
        }),
        (None, End::Complete | End::Unterminated | End::Failed) => Ok(reply),
    })
}

async fn record(deltas: Vec<Delta>, context: &Context<'_>) -> Result<(), Stopped> {
    for delta in deltas {
        let event = match delta {
            Delta::Text(text) => AgentEvent::Text {
                text: crate::event::bounded(&text),
            },
            Delta::Reasoning(text) => AgentEvent::Reasoning {
                text: crate::event::bounded(&text),
            },
        };
        context.observer.record(event).await.map_err(halted)?;
    }
    Ok(())
}
