//! `skep retry`.

mod notification;

use super::run::{About, header, to_the_end};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings, kind_of},
    signals::Signals,
};
use ledger::Found;
use sandbox::Kind;
use server::Node;

/// Try again what did not work, from the tip of the integration branch
///
/// A request tries again those of its jobs that are not integrated; a job, attempt or change
/// tries its job again, in the kind of sandbox that the request was asked for in. A request that no process works on any more goes on where it was. What a
/// request took along (`skep run --dirty`) is taken along again. A notification that was given up is
/// told again, to those only that it did not reach.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep retry\n  skep retry r-7k2\n  skep retry j-01h\n  skep retry e-9qd        # have a notification told again"
)]
pub(crate) struct Args {
    /// The request, job, attempt, change or notification, by its id or the beginning of it [default:
    /// the newest request of the repository]
    id: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let mut options = settings.options;
    let mut signals = Signals::listen()?;
    let mut node = signals.or(Node::open(options.clone())).await??;
    let meant = meant(&args, &node, context, options.sandbox).await;
    if let Ok((_, kind)) = meant
        && kind != options.sandbox
    {
        node.close().await;
        options.sandbox = kind;
        node = signals.or(Node::open(options.clone())).await??;
    }
    let done = match meant {
        Ok((found, kind)) => again(&node, found, kind, context, &mut signals).await,
        Err(error) => Err(error),
    };
    node.close().await;
    done
}

/// What is to be tried again, and in which kind of sandbox.
async fn meant(
    args: &Args,
    node: &Node,
    context: &Context,
    configured: Kind,
) -> Result<(Found, Kind), Error> {
    let found = match &args.id {
        Some(id) => node.ledger().find(id).await?,
        None => Found::Request(node.latest(&context.directory).await?),
    };
    Ok((found, asked_in(node, found, configured).await?))
}

async fn again(
    node: &Node,
    found: Found,
    sandbox: Kind,
    context: &Context,
    signals: &mut Signals,
) -> Result<Exit, Error> {
    if let Found::Notification(id) = found {
        return signals.or(notification::run(node, id, context)).await?;
    }
    let submitted = signals.or(node.retry(found)).await??;
    let ask = node.ledger().request(submitted.request).await?.ask;
    if !context.output.is_json() {
        let about = About {
            agent: &ask.agent,
            sandbox,
            devices: node.devices(),
            nested: node.nested(),
            parallel: ask.parallel,
        };
        context.output.aside(&header(&submitted, &about));
    }
    to_the_end(node, &submitted, context.output, signals, None).await
}

/// The kind of sandbox that the request of this was asked for in.
async fn asked_in(node: &Node, found: Found, configured: Kind) -> Result<Kind, Error> {
    let ledger = node.ledger();
    let request = match found {
        Found::Request(id) => id,
        Found::Job(id) => ledger.job(id).await?.request,
        Found::Attempt(id) => ledger.attempt(id).await?.request,
        Found::Change(id) => ledger.change(id).await?.request,
        // Neither is tried again.
        Found::Session(_) | Found::Notification(_) => return Ok(configured),
    };
    Ok(kind_of(&ledger.request(request).await?.ask, configured))
}
