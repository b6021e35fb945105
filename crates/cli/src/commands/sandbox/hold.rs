//! `skep sandbox hold`: the process that holds a sandbox. `skep sandbox create` and `fork` start it.

use super::{holder::Said, span};
use crate::commands::run::kind;
use crate::{
    config::shares::Image,
    context::Context,
    exit::Exit,
    more::{self, Wishes},
    report::{Error, Report},
    settings::{Flags, Settings},
    signals::Signals,
    sources::Others,
};
use domain::SandboxId;
use sandbox::Kind;
use server::{
    Node,
    standing::{self, Berth, Fork, Hearing, Of, Order, Record, Wish},
};
use std::{fs::File, os::fd::AsFd as _, time::Duration};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::watch};

/// Hold a sandbox: started by `skep sandbox create`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    id: SandboxId,
    #[arg(long = "ref")]
    revision: Option<String>,
    #[arg(long)]
    no_setup: bool,
    #[arg(long, requires = "at", conflicts_with_all = ["revision", "no_setup"])]
    fork_of: Option<String>,
    #[arg(long, requires = "fork_of")]
    at: Option<String>,
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    #[command(flatten)]
    others: Others,
    #[arg(long)]
    image: Option<Image>,
    #[command(flatten)]
    wishes: Wishes,
    /// Secrets come through the output, which is a socket.
    #[arg(long)]
    handed: bool,
    #[arg(long)]
    name: Option<String>,
    #[arg(long = "for", value_parser = span, required_unless_present = "start")]
    lasts: Option<Duration>,
    /// It was stopped.
    #[arg(long, conflicts_with_all = ["revision", "no_setup", "fork_of", "name"])]
    start: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    // Whoever started it may close the terminal. That it leads a session already is as good.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "it has a session of its own");
    }
    let mut told = false;
    let held = hold(args, context, &mut told).await;
    match held {
        Ok(()) => Ok(Exit::Done),
        Err(error) if told => Err(error),
        Err(error) => {
            let report = Report::of(&error);
            let exit = report.exit;
            say(
                context,
                &Said {
                    ready: None,
                    error: Some(report),
                },
            );
            Ok(exit)
        }
    }
}

async fn hold(args: Args, context: &Context, told: &mut bool) -> Result<(), Error> {
    let secrets = match args.handed {
        true => more::take()?,
        false => Vec::new(),
    };
    let mut signals = Signals::listen()?;
    let named = args.others.read(context)?;
    let flags = Flags {
        sandbox: args.kind,
        host_root: args.kind.is_some() && args.image.is_none(),
        image: args.image,
        ..Flags::default()
    };
    let settings = Settings::read(context, flags)?;
    let berth = Berth::join(&settings.options.data, args.id).map_err(server::Error::from)?;
    let node = Node::open(settings.options).await?;
    let word = word();
    let mut deserted = std::pin::pin!(deserted(word.clone()));
    let fetch = async {
        let (also, beside) = named.fetch(&node, context, &mut signals).await?;
        let more = args
            .wishes
            .fetch(secrets, &node, context, &mut signals)
            .await?;
        Ok((also, beside, more))
    };
    let fetched = tokio::select! {
        fetched = fetch => fetched,
        () = &mut deserted => Err(server::Error::Ended.into()),
    };
    let (also, beside, more) = match fetched {
        Ok(all) => all,
        Err(error) => {
            node.close().await;
            if !args.start {
                berth.remove();
            }
            return Err(error);
        }
    };
    let of = match (args.fork_of, args.at) {
        (Some(of), Some(at)) => Of::Snapshot(Fork { of, at, more }),
        _ if args.start => Of::Stopped(more),
        _ => Of::Commit(Wish {
            path: context.directory.clone(),
            revision: args.revision,
            setup: !args.no_setup,
            also,
            beside,
            more,
        }),
    };
    let order = Order {
        name: args.name,
        lasts: args.lasts,
    };
    let hearing = Hearing {
        ready: Box::new(|record: &Record| {
            *told = true;
            let said = Said {
                ready: Some(record.clone()),
                error: None,
            };
            context.output.object(&said).is_ok()
        }),
        stands: Box::pin(stands(word)),
        // Who waits for that sees the end of the output.
        settled: Box::new(let_go),
    };
    let stop = async {
        tokio::select! {
            _ = signals.next() => {}
            () = &mut deserted => {}
        }
    };
    standing::hold(node, berth, &of, order, hearing, stop).await?;
    Ok(())
}

/// What whoever started this says of it: that it stands alone now, or, with false, nothing until they were
/// gone. Where nobody can say anything, it stands alone.
fn word() -> Word {
    let (say, word) = watch::channel(None);
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    match input.and_then(pipe::Receiver::from_owned_fd) {
        Ok(mut input) => {
            tokio::spawn(async move {
                let stands = matches!(input.read(&mut [0]).await, Ok(1..));
                if stands {
                    let nowhere = File::open("/dev/null");
                    let let_go = nowhere.and_then(|it| Ok(rustix::stdio::dup2_stdin(it)?));
                    if let Err(error) = let_go {
                        tracing::debug!(%error, "the input stays open");
                    }
                }
                say.send_replace(Some(stands));
            });
        }
        Err(_) => {
            say.send_replace(Some(true));
        }
    }
    word
}

type Word = watch::Receiver<Option<bool>>;

/// Waits until whoever started this is gone without having said that it stands alone; else for ever.
async fn deserted(mut word: Word) {
    if word.wait_for(|word| *word == Some(false)).await.is_err() {
        std::future::pending().await
    }
}

/// Waits until it is said that it stands alone; false where nobody is left to say it.
async fn stands(mut word: Word) -> bool {
    let said = word.wait_for(Option::is_some).await;
    said.is_ok_and(|word| *word == Some(true))
}

/// Says the one thing that is waited for, and lets go of the output.
fn say(context: &Context, what: &Said) {
    if let Err(error) = context.output.object(what) {
        tracing::debug!(%error, "nobody hears what is said");
    }
    let_go();
}

fn let_go() {
    let nowhere = File::options().write(true).open("/dev/null");
    if let Ok(nowhere) = nowhere
        && let Err(error) = rustix::stdio::dup2_stdout(nowhere)
    {
        tracing::debug!(%error, "the output stays open");
    }
}
