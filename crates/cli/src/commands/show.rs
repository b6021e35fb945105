//! `skep show`.

use super::run::stat;
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    view::{
        format,
        result::FileStat,
        show::{self, Frame},
    },
    watch,
};
use domain::{
    Amount, AttemptId, BlobId, ChangeId, JobId, RequestId,
    entity::{Attempt, Change, Evidence, Job, Request},
    event::Body,
};
use ledger::{Found, Ledger};
use serde::Serialize;
use server::Node;

/// The longest output of a check that is shown, in bytes.
const MAX_OUTPUT: u64 = 4 << 20;

/// Show a request, job, attempt or change, with its evidence
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep show\n  skep show r-7k2\n  skep show a-3fd --full\n  skep show r-7k2 --json"
)]
pub(crate) struct Args {
    /// The request, job, attempt or change, by its id or the beginning of it [default: the newest
    /// request of the repository]
    id: Option<String>,
    /// Of an attempt: the whole output of its checks, not only the end
    #[arg(long)]
    full: bool,
}

#[derive(Serialize)]
struct RequestObject {
    request: Request,
    spent: Amount,
    jobs: Vec<JobObject>,
}

#[derive(Serialize)]
struct JobObject {
    job: Job,
    attempts: Vec<AttemptObject>,
}

#[derive(Serialize)]
struct AttemptObject {
    attempt: Attempt,
    evidence: Vec<EvidenceObject>,
    change: Option<Change>,
}

#[derive(Serialize)]
struct EvidenceObject {
    round: u32,
    change: Option<ChangeId>,
    #[serde(flatten)]
    evidence: Evidence,
}

#[derive(Serialize)]
struct ChangeObject {
    change: Change,
    files: Vec<FileStat>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let found = super::named_or_newest(&ledger, args.id.as_deref(), context).await?;
    let frame = Frame {
        width: context.output.width(),
        now: format::now(),
        zone: jiff::tz::TimeZone::system(),
    };
    let shown = match found {
        Found::Request(id) => request(&ledger, id, context, &frame).await,
        Found::Job(id) => job(&ledger, id, context, &frame).await,
        Found::Attempt(id) => attempt(&ledger, id, args.full, context, &frame).await,
        Found::Change(id) => change(&ledger, id, context, &frame).await,
        Found::Session(_) | Found::Notification(_) => Err(super::wrong_kind(
            found,
            "show",
            "a request, a job, an attempt or a change",
        )),
    };
    ledger.close().await;
    shown?;
    Ok(Exit::Done)
}

async fn request(
    ledger: &Ledger,
    id: RequestId,
    context: &Context,
    frame: &Frame,
) -> Result<(), Error> {
    let request = ledger.request(id).await?;
    let spent = ledger.spent(id).await?;
    if !context.output.is_json() {
        let story = watch::story(ledger, id).await?;
        let text = show::request(&request, &story, spent, frame);
        return context.output.say(&text);
    }
    let mut jobs = Vec::new();
    for job in ledger.jobs(id).await? {
        jobs.push(job_object(ledger, job).await?);
    }
    context.output.object(&RequestObject {
        request,
        spent,
        jobs,
    })
}

async fn job(ledger: &Ledger, id: JobId, context: &Context, frame: &Frame) -> Result<(), Error> {
    let job = ledger.job(id).await?;
    if context.output.is_json() {
        return context.output.object(&job_object(ledger, job).await?);
    }
    let story = watch::story(ledger, job.request).await?;
    let text = show::job(&job, story.job(id), frame);
    context.output.say(&text)
}

async fn attempt(
    ledger: &Ledger,
    id: AttemptId,
    full: bool,
    context: &Context,
    frame: &Frame,
) -> Result<(), Error> {
    let attempt = ledger.attempt(id).await?;
    if context.output.is_json() {
        return context
            .output
            .object(&attempt_object(ledger, attempt).await?);
    }
    let change = ledger.change_of(id).await?;
    let story = watch::story(ledger, attempt.request).await?;
    let told = story
        .job_of(id)
        .and_then(|job| job.attempts.iter().find(|other| other.id == id));
    let mut outputs: Vec<(BlobId, String)> = Vec::new();
    if full {
        let wanted = told.into_iter().flat_map(|attempt| &attempt.checks);
        for blob in wanted.filter_map(|check| check.evidence.output) {
            let bytes = ledger.blob(blob, MAX_OUTPUT).await?;
            outputs.push((blob, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    let text = show::attempt(&attempt, told, change.as_ref(), &outputs, frame);
    context.output.say(&text)
}

async fn change(
    ledger: &Ledger,
    id: ChangeId,
    context: &Context,
    frame: &Frame,
) -> Result<(), Error> {
    let change = ledger.change(id).await?;
    let settings = Settings::read(context, Flags::default())?;
    let node = Node::open(settings.options).await?;
    let files = match node.diff(Found::Change(id), 0).await {
        Ok(diff) => diff.files.iter().map(stat).collect(),
        Err(server::Error::NoDiff { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    node.close().await;
    if context.output.is_json() {
        return context.output.object(&ChangeObject { change, files });
    }
    let job = ledger.job(change.job).await?;
    let text = show::change(&change, &job.spec.name, &files, frame);
    context.output.say(&text)
}

async fn job_object(ledger: &Ledger, job: Job) -> Result<JobObject, Error> {
    let mut attempts = Vec::new();
    for attempt in ledger.attempts(job.id).await? {
        attempts.push(attempt_object(ledger, attempt).await?);
    }
    Ok(JobObject { job, attempts })
}

async fn attempt_object(ledger: &Ledger, attempt: Attempt) -> Result<AttemptObject, Error> {
    let checked = ledger.evidence(attempt.id).await?;
    let evidence = checked
        .into_iter()
        .filter_map(|body| match body {
            Body::Checked {
                change,
                round,
                evidence,
                ..
            } => Some(EvidenceObject {
                round,
                change,
                evidence,
            }),
            _ => None,
        })
        .collect();
    let change = ledger.change_of(attempt.id).await?;
    Ok(AttemptObject {
        attempt,
        evidence,
        change,
    })
}
