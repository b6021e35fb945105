//! `skep sandbox create`.

use super::{
    holder::{self, Wanted},
    span,
};
use crate::{
    config::shares::Image,
    context::Context,
    exit::Exit,
    more::{self, Secrets, Wishes},
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
    sources::Others,
};
use server::standing::Order;
use std::time::Duration;

/// Make a sealed workspace that stays, and print its id
///
/// It is there until `skep sandbox destroy`, or until its time is over.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox create\n  skep sandbox create --name try --ref v1.2 --for 2h\n  skep sandbox create --image docker.io/library/debian:12\n  skep sandbox create --secret token=token.txt --device gpu\n  skep sandbox create --also ../lib --also docs=https://github.com/OWNER/NAME"
)]
pub(super) struct Args {
    /// The commit to work on: a branch, a tag, a commit [default: HEAD]
    #[arg(long = "ref", value_name = "REV")]
    revision: Option<String>,
    #[command(flatten)]
    others: Others,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    wishes: Wishes,
    /// Without the setup of `skep.toml`
    #[arg(long)]
    no_setup: bool,
    /// Make it in a container with the root of this image, which the engine must have
    #[arg(long, value_name = "IMAGE")]
    image: Option<Image>,
    /// A name for it, beside its id
    #[arg(long)]
    name: Option<String>,
    /// How long it stays: a number with `s`, `m`, `h` or `d` behind it, 30d at most
    #[arg(long = "for", value_name = "TIME", value_parser = span, default_value = "12h")]
    lasts: Duration,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let named = args.others.read(context)?;
    let flags = Flags {
        image: args.image.clone(),
        ..Flags::default()
    };
    let settings = Settings::read(context, flags)?;
    let data = settings.options.data;
    let order = Order {
        name: args.name.clone(),
        lasts: Some(args.lasts),
    };
    order.check(&data).map_err(server::Error::from)?;
    // Before anything is written there.
    let room = settings.options.disk.check(&data);
    room.map_err(server::Error::from)?;
    let fetches = args.wishes.check(context)? || named.is_remote();
    let secrets = args.secrets.read(context, true)?;
    let mut of = Vec::new();
    if let Some(revision) = &args.revision {
        of.push(format!("--ref={revision}").into());
    }
    if let Some(Image(image)) = &args.image {
        of.push(format!("--image={image}").into());
    }
    of.extend(args.others.words().map(Into::into));
    of.extend(args.wishes.words().map(Into::into));
    if args.no_setup {
        of.push("--no-setup".into());
    }
    let wanted = Wanted {
        stopped: None,
        name: args.name,
        lasts: Some(args.lasts),
        of,
        secrets,
        without: args.secrets.variables(),
        fetches,
    };
    for record in holder::start(context, &data, &[wanted], &mut Signals::listen()?).await? {
        if context.output.is_json() {
            context.output.object(&record)?;
        } else {
            context.output.say(&format!("{}\n", record.id))?;
            context.output.aside(&more::told(&record.given));
        }
    }
    Ok(Exit::Done)
}
