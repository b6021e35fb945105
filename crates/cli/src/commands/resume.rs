//! `skep resume`.

use super::run::{About, header, outcome};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings, kind_of},
    signals::Signals,
    view::{
        format,
        paint::{STRONG, paint},
        text,
    },
    watch::{Ended, Watch},
};
use domain::{RequestState, entity::Request};
use ledger::{Found, Ledger};
use sandbox::Kind;
use server::{Node, Room, Submitted};

/// Go on with requests that were paused, or whose process has ended
///
/// They are worked on at the same time, with as many jobs at once as $SKEP_PARALLEL or the
/// configuration says, or as one of them asked for, if that is more. The exit code is that of the
/// first of them that did not end well.
///
/// Everything that was done is kept: a finished turn of an agent is not run again, and a change
/// lands once. Each request goes on in the kind of sandbox that it was asked for in. Requests that
/// another process works on are left to it. What is paused, and what is
/// not to begin yet, goes on only where it is named; the process that works on its request, if
/// there is one, takes it up.
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
    let mut signals = Signals::listen()?;
    let kinds = kinds(&args, context, settings.options.sandbox);
    let kinds = signals.or(kinds).await??;
    let mut come = Ok(Exit::Done);
    for kind in kinds {
        let options = server::Options {
            sandbox: kind,
            ..settings.options.clone()
        };
        let this = go_on(&args, context, (options, settings.parallel), &mut signals).await;
        let is_over = matches!(
            this,
            Ok(Exit::Cancelled | Exit::HungUp | Exit::OutputClosed | Exit::Terminated)
                | Err(Error::Quit(_) | Error::OutputClosed)
        );
        // Where no sandbox of one kind can be made, there is still work for the others.
        if is_over || matches!(come, Ok(Exit::Done)) {
            come = this;
        }
        if is_over {
            break;
        }
    }
    come
}

/// The kinds of sandboxes that there is work for, in the order of the oldest request of each: a
/// process has one kind at a time. One at least.
async fn kinds(args: &Args, context: &Context, configured: Kind) -> Result<Vec<Kind>, Error> {
    let ledger = context.ledger().await?;
    let requests = requests(args, &ledger).await;
    ledger.close().await;
    let mut kinds: Vec<Kind> = Vec::new();
    for request in &requests? {
        let kind = kind_of(&request.ask, configured);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        kinds.push(configured);
    }
    Ok(kinds)
}

/// Those that are meant.
async fn requests(args: &Args, ledger: &Ledger) -> Result<Vec<Request>, Error> {
    Ok(match &args.id {
        Some(id) => match ledger.find(id).await? {
            Found::Request(id) => vec![ledger.request(id).await?],
            Found::Job(id) => vec![ledger.request(ledger.job(id).await?.request).await?],
            // It is refused with what can be named.
            _ => Vec::new(),
        },
        None => ledger.interrupted().await?,
    })
}

/// Goes on with those that are in sandboxes of one kind.
async fn go_on(
    args: &Args,
    context: &Context,
    (options, parallel): (server::Options, u32),
    signals: &mut Signals,
) -> Result<Exit, Error> {
    let sandbox = options.sandbox;
    let node = signals.or(Node::open(options)).await??;
    let done = go_on_at(&node, args, context, (sandbox, parallel), signals).await;
    node.close().await;
    done
}

async fn go_on_at(
    node: &Node,
    args: &Args,
    context: &Context,
    (sandbox, parallel): (Kind, u32),
    signals: &mut Signals,
) -> Result<Exit, Error> {
    node.tidy().await?;
    let submitted = match &args.id {
        Some(id) => match node.ledger().find(id).await? {
            Found::Request(request) => {
                if node.ledger().request(request).await?.state == RequestState::Paused {
                    node.ledger().resume_request(request).await?;
                }
                one(node, request).await?
            }
            Found::Job(job) => {
                node.ledger().resume_job(job).await?;
                one(node, node.ledger().job(job).await?.request).await?
            }
            other => return Err(super::wrong_kind(other, "resume", "a request or a job")),
        },
        None => {
            let mut all = Vec::new();
            for one in node.interrupted().await? {
                let ask = node.ledger().request(one.request).await?.ask;
                if kind_of(&ask, sandbox) == sandbox {
                    all.push(one);
                }
            }
            let (later, now): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|one| one.not_before.is_some());
            say_later(&later, context);
            now
        }
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
    let mut asks = Vec::new();
    for one in &submitted {
        asks.push(node.ledger().request(one.request).await?.ask);
    }
    let jobs = asks.iter().map(|ask| ask.parallel).max();
    let mut watch = Watch::new(
        node,
        Room::new(parallel.max(jobs.unwrap_or(1))),
        context.output,
    );
    for (one, ask) in submitted.iter().zip(&asks) {
        if !context.output.is_json() {
            let about = About {
                agent: &ask.agent,
                sandbox,
                devices: node.devices(),
                nested: node.nested(),
                parallel: ask.parallel,
            };
            context.output.aside(&header(one, &about));
        }
        watch.add(one.request, one.session);
    }
    let mut ended = Vec::new();
    while let Some(one) = watch.next(signals, &mut None).await? {
        match say(node, &submitted, &one, context).await {
            Err(error @ Error::OutputClosed) => watch.unheard(&error),
            said => said?,
        }
        ended.push((one.request, one.exit));
    }
    node.tell_due().await?;
    let exits = submitted.iter().filter_map(|one| {
        let found = ended.iter().find(|(request, _)| *request == one.request)?;
        Some(found.1)
    });
    let mut bad = exits.filter(|exit| *exit != Exit::Done);
    Ok(bad.next().unwrap_or(Exit::Done))
}

/// Says which requests are left alone because their time has not come.
fn say_later(later: &[Submitted], context: &Context) {
    if context.output.is_json() {
        return;
    }
    for one in later {
        let (request, now) = (one.request, format::now());
        let Some(time) = one.not_before else { continue };
        let waits = format::waits_until(time, now, &jiff::tz::TimeZone::system());
        context.output.aside(&format!(
            "{request} {waits}: `skep resume {request}` stays until then.\n"
        ));
    }
}

/// Says what came of a request, under its name where there are several.
async fn say(
    node: &Node,
    submitted: &[Submitted],
    ended: &Ended,
    context: &Context,
) -> Result<(), Error> {
    let of = |one: &&Submitted| one.request == ended.request;
    let Some(one) = submitted.iter().find(of) else {
        return Ok(());
    };
    let is_heard = !matches!(ended.exit, Exit::OutputClosed | Exit::HungUp);
    if submitted.len() > 1 && is_heard && !context.output.is_json() {
        let title = text::line(&ended.story.title);
        let name = paint(STRONG, ended.request);
        context.output.say(&format!("{name}  {title}\n"))?;
    }
    outcome(node, one, ended, context.output).await
}

/// The request, if it is there to go on with.
async fn one(node: &Node, request: domain::RequestId) -> Result<Vec<Submitted>, Error> {
    let all = node.interrupted().await?;
    Ok(all
        .into_iter()
        .filter(|one| one.request == request)
        .collect())
}
