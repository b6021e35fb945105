//! `skep why`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{STRONG, TYPE, paint},
        text, why,
    },
};
use domain::machine::Machine as _;
use ledger::{Delivery, Found, Ledger, Restoration};

/// Say what a request or job waits for, or what broke it
///
/// What matters most comes first; each line says what to do about it, where something can be done.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep why\n  skep why r-7k2\n  skep why j-01h --json")]
pub(crate) struct Args {
    /// The request, job, attempt, change or notification, by its id or the beginning of it [default:
    /// the newest request of the repository]
    id: Option<String>,
}

#[derive(serde::Serialize)]
struct Object {
    id: String,
    state: String,
    causes: Vec<why::Cause>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let found = super::named_or_newest(&ledger, args.id.as_deref(), context).await?;
    let restored = ledger.restoration().await?;
    let object = look(&ledger, found, restored).await?;
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&object)?;
    } else {
        context.output.say(&render(&object))?;
    }
    Ok(Exit::Done)
}

async fn look(
    ledger: &Ledger,
    found: Found,
    restored: Option<Restoration>,
) -> Result<Object, Error> {
    let now = format::now();
    let (state, is_over, mut causes) = match found {
        Found::Request(id) => {
            let request = ledger.request(id).await?;
            let waits = ledger.request_waits(id).await?;
            let mut causes = why::of_request(&request, &waits, now);
            if !ledger.is_sealed(id, None).await? {
                causes.push(why::of_unsealed());
            }
            (waits.state.to_string(), waits.state.is_terminal(), causes)
        }
        Found::Session(_) => return Err(super::wrong_kind(found, "why", "a request or a job")),
        Found::Notification(id) => match ledger.delivery(id).await? {
            Delivery::GivenUp(lost) => ("given up".into(), true, why::of_undelivered(&lost)),
            Delivery::Waits => ("to be told".into(), false, Vec::new()),
            Delivery::Over => ("told".into(), true, Vec::new()),
        },
        Found::Job(_) | Found::Attempt(_) | Found::Change(_) => {
            let job = match found {
                Found::Attempt(id) => ledger.attempt(id).await?.job,
                Found::Change(id) => ledger.change(id).await?.job,
                Found::Job(id) => id,
                Found::Session(_) | Found::Request(_) | Found::Notification(_) => {
                    return Err(Error::Internal(String::new()));
                }
            };
            let waits = ledger.job_waits(job).await?;
            let state = waits.job.state;
            let mut causes = why::of_job(&waits, now);
            if !ledger.is_sealed(waits.job.request, Some(job)).await? {
                causes.push(why::of_unsealed());
            }
            (state.to_string(), state.is_terminal(), causes)
        }
    };
    // Whatever else it waits for, nothing of it is done before that.
    if let Some(restored) = restored.filter(|_| !is_over) {
        causes.insert(0, why::of_restored(restored));
    }
    Ok(Object {
        id: found.to_string(),
        state,
        causes,
    })
}

fn render(object: &Object) -> String {
    let mut out = format!("{} is {}\n", paint(STRONG, &object.id), object.state);
    for cause in &object.causes {
        let (what, below) = text::parts(&cause.what);
        out.push_str(&format!("  {what}\n"));
        for line in below {
            out.push_str(&format!("      {line}\n"));
        }
        if let Some(remedy) = &cause.remedy {
            out.push_str(&format!(
                "    {} {}\n",
                paint(TYPE, "hint:"),
                text::line(remedy)
            ));
        }
    }
    out
}
