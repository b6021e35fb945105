//! `skep resume`.

use super::run::{About, header, to_the_end};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
};
use ledger::Found;
use server::{Node, Submitted};

/// Go on with requests whose process has ended
///
/// Everything that was done is kept: a finished turn of an agent is not run again, and a change
/// lands once. Requests that another process works on are left to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep resume\n  skep resume r-7k2")]
pub(crate) struct Args {
    /// The request, by its id or the beginning of it [default: every one that was interrupted, the
    /// oldest first]
    id: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let sandbox = settings.options.sandbox;
    let mut signals = Signals::listen()?;
    let node = signals.or(Node::open(settings.options)).await??;
    let submitted = match &args.id {
        Some(id) => match node.ledger().find(id).await? {
            Found::Request(request) => one(&node, request).await?,
            other => return Err(super::wrong_kind(other, "resume", "a request")),
        },
        None => node.interrupted().await?,
    };
    if submitted.is_empty() && !context.output.is_json() {
        let why = match &args.id {
            Some(_) => "it has ended, or a process works on it: `skep why` says which",
            None => "nothing was interrupted",
        };
        context
            .output
            .aside(&format!("There is nothing to go on with: {why}.\n"));
    }
    let mut worst = Exit::Done;
    for one in &submitted {
        let ask = node.ledger().request(one.request).await?.ask;
        if !context.output.is_json() {
            let about = About {
                agent: &ask.agent,
                sandbox,
                parallel: ask.parallel,
            };
            context.output.aside(&header(one, &about));
        }
        let exit = to_the_end(&node, one, context.output, &mut signals, None).await?;
        if exit != Exit::Done {
            worst = exit;
        }
        if matches!(
            exit,
            Exit::Cancelled | Exit::HungUp | Exit::Terminated | Exit::OutputClosed
        ) {
            break;
        }
    }
    node.close().await;
    Ok(worst)
}

/// The request, if it is there to go on with.
async fn one(node: &Node, request: domain::RequestId) -> Result<Vec<Submitted>, Error> {
    let all = node.interrupted().await?;
    Ok(all
        .into_iter()
        .filter(|one| one.request == request)
        .collect())
}
