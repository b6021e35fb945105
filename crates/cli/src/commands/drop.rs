//! `skep drop`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    sources,
    view::{format, text},
};
use server::Node;

/// Throw the integrated work away
///
/// The integration branch is deleted. Each change stays known: `skep apply CHANGE` still takes it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep drop\n  skep -C ../other drop\n  skep drop --repo https://github.com/OWNER/NAME"
)]
pub(crate) struct Args {
    /// The repository, as `skep run --repo` names it [default: the one of this directory]
    #[arg(long, value_name = "SOURCE")]
    repo: Option<String>,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    branch: &'a str,
    was: &'a str,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let node = Node::open(settings.options).await?;
    let directory = sources::known(&node, args.repo.as_deref(), context)?;
    let dropped = node.drop_work(&directory).await?;
    node.close().await;
    if context.output.is_json() {
        context.output.object(&Object {
            branch: &dropped.branch,
            was: &dropped.was,
        })?;
    } else {
        context.output.say(&format!(
            "{} is gone; it was at {}.\n",
            text::line(&dropped.branch),
            format::short(&dropped.was)
        ))?;
    }
    Ok(Exit::Done)
}
