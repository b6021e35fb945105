//! `skep resume`.

use super::run::{About, header, to_the_end};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
};
use domain::RequestState;
use ledger::Found;
use server::{Node, Submitted};

/// Go on with requests that were paused, or whose process has ended
///
/// Everything that was done is kept: a finished turn of an agent is not run again, and a change
/// lands once. Requests that another process works on are left to it. What is paused goes on only
/// where it is named; the process that works on its request, if there is one, takes it up.
/// Notifications that no process has told yet are told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep resume\n  skep resume r-7k2")]
pub(crate) struct Args {
    /// The request, or a paused job, by its id or the beginning of it [default: every request that
    /// was interrupted, the oldest first]
    id: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let sandbox = settings.options.sandbox;
    let mut signals = Signals::listen()?;
    let node = signals.or(Node::open(settings.options)).await??;
    node.tidy().await?;
    let submitted = match &args.id {
        Some(id) => match node.ledger().find(id).await? {
            Found::Request(request) => {
                if node.ledger().request(request).await?.state == RequestState::Paused {
                    node.ledger().resume_request(request).await?;
                }
                one(&node, request).await?
            }
            Found::Job(job) => {
                node.ledger().resume_job(job).await?;
                one(&node, node.ledger().job(job).await?.request).await?
            }
            other => return Err(super::wrong_kind(other, "resume", "a request or a job")),
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
    node.tell_due().await?;
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
