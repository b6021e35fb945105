//! `skep top-up`.

use crate::{config::Budget, context::Context, exit::Exit, report::Error, view::format};
use domain::{Amount, Micros, RequestId};
use ledger::Found;

/// Add to the budget of a request that has not ended
///
/// Its jobs that have not ended get equal parts of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep top-up r-7k2 500k\n  skep top-up r-7k2 500k '$2'")]
pub(crate) struct Args {
    /// The request, by its id or the beginning of it
    id: String,
    /// What to add: tokens like 200k, money like '$2'
    #[arg(required = true, value_name = "AMOUNT", value_parser = Budget::parse)]
    amount: Vec<Budget>,
    /// The same key is the same addition: it is not added twice
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(serde::Serialize)]
struct Object {
    request: RequestId,
    added: Amount,
    total: Amount,
    free: Amount,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let request = match ledger.find(&args.id).await? {
        Found::Request(id) => id,
        other => return Err(super::wrong_kind(other, "top-up", "a request")),
    };
    let asked = args
        .amount
        .into_iter()
        .fold(Budget::default(), |sum, one| one.or(sum));
    let added = Amount {
        tokens: asked.tokens.unwrap_or(0),
        money: asked.money.unwrap_or(Micros(0)),
        ..Amount::ZERO
    };
    ledger.top_up(request, added, args.key.as_deref()).await?;
    let account = ledger.account(request).await?;
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Object {
            request,
            added,
            total: account.total,
            free: account.free,
        })?;
    } else {
        context.output.say(&format!(
            "{request} may spend {} in all now.\n",
            format::budget(account.total)
        ))?;
    }
    Ok(Exit::Done)
}
