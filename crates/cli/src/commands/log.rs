//! `skep log`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    signals::Signals,
    view::{
        event, format,
        paint::{FAINT, paint},
        story::Story,
    },
};
use domain::{
    AttemptId, ChangeId, JobId, RequestId, SessionId,
    event::{Body, Envelope, schema as event_schema},
    machine::Machine as _,
};
use jiff::tz::TimeZone;
use ledger::{Found, Ledger};

/// How many events are read at once.
const PAGE: usize = 1_000;

/// Print what happened, event by event
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep log\n  skep log r-7k2\n  skep log -f r-7k2\n  skep log --json a-3fd | jq .payload\n  skep log --schema > events.schema.json"
)]
pub(crate) struct Args {
    /// The session, request, job, attempt or change, by its id or the beginning of it [default: the
    /// newest request of the repository]
    id: Option<String>,
    /// Go on as it happens, until the request has ended
    #[arg(long, short)]
    follow: bool,
    /// Print the JSON Schema of events instead
    #[arg(long, conflicts_with_all = ["id", "follow"])]
    schema: bool,
}

/// Which events are asked for.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    All,
    Job(JobId),
    Attempt(AttemptId),
    Change(ChangeId),
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    if args.schema {
        context.output.say(&schema())?;
        return Ok(Exit::Done);
    }
    let ledger = context.ledger().await?;
    let found = super::named_or_newest(&ledger, args.id.as_deref(), context).await?;
    let mut log = Log::open(&ledger, found, context).await?;
    let exit = log.past(&ledger).await?;
    let exit = if args.follow && exit.is_none() {
        log.present(&ledger).await?
    } else {
        Exit::Done
    };
    ledger.close().await;
    Ok(exit)
}

/// The schema of events, as it is published.
fn schema() -> String {
    format!("{:#}\n", event_schema())
}

/// What the command takes.
const TAKEN: &str = "a session, a request, a job, an attempt or a change";

struct Log<'a> {
    context: &'a Context,
    session: SessionId,
    request: Option<RequestId>,
    wanted: Wanted,
    story: Story,
    zone: TimeZone,
    after: u64,
}

impl<'a> Log<'a> {
    async fn open(ledger: &Ledger, found: Found, context: &'a Context) -> Result<Self, Error> {
        let (request, wanted) = match found {
            Found::Session(_) => (None, Wanted::All),
            Found::Request(id) => (Some(id), Wanted::All),
            Found::Job(id) => (Some(ledger.job(id).await?.request), Wanted::Job(id)),
            Found::Attempt(id) => (Some(ledger.attempt(id).await?.request), Wanted::Attempt(id)),
            Found::Change(id) => (Some(ledger.change(id).await?.request), Wanted::Change(id)),
            Found::Notification(_) => return Err(super::wrong_kind(found, "log", TAKEN)),
        };
        let session = match (found, request) {
            (Found::Session(id), _) => id,
            (_, Some(request)) => ledger.request(request).await?.session,
            _ => return Err(Error::Internal("an id is of nothing".into())),
        };
        Ok(Self {
            context,
            session,
            request,
            wanted,
            story: request.map(Story::new).unwrap_or_default(),
            zone: TimeZone::system(),
            after: 0,
        })
    }

    /// Prints what has happened; gives the exit code if it has come to its end.
    async fn past(&mut self, ledger: &Ledger) -> Result<Option<Exit>, Error> {
        loop {
            let page = match self.request {
                Some(request) => ledger.request_events(request, self.after, PAGE).await?,
                None => match ledger.events(self.session, self.after, PAGE).await {
                    Err(ledger::Error::CursorExpired { first, .. }) => {
                        self.context.output.aside(&format!(
                            "Events before number {first} were removed by `skep ledger prune`.\n"
                        ));
                        self.after = first.saturating_sub(1);
                        continue;
                    }
                    page => page?,
                },
            };
            for envelope in &page {
                self.after = envelope.sequence;
                self.print(envelope)?;
            }
            if page.len() < PAGE {
                return Ok(self.is_over().then_some(Exit::Done));
            }
        }
    }

    /// Prints what happens, until it has come to its end or the person has seen enough.
    async fn present(&mut self, ledger: &Ledger) -> Result<Exit, Error> {
        let mut signals = Signals::listen()?;
        let mut events = ledger.subscribe(self.session, self.after).await?;
        loop {
            let envelope = tokio::select! {
                exit = signals.next() => return Ok(exit),
                envelope = events.next() => envelope?,
            };
            if self.request.is_some() && envelope.request != self.request {
                continue;
            }
            self.print(&envelope)?;
            if self.is_over() {
                return Ok(Exit::Done);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.request.is_some() && self.story.state.is_some_and(|state| state.is_terminal())
    }

    fn print(&mut self, envelope: &Envelope) -> Result<(), Error> {
        self.story.apply(envelope);
        if !self.concerns(&envelope.body) {
            return Ok(());
        }
        if self.context.output.is_json() {
            return self.context.output.object(envelope);
        }
        if is_said_by_the_gateway(&envelope.body) {
            return Ok(());
        }
        let time = paint(FAINT, format::time_of_day(envelope.time, &self.zone));
        let text = event::full(envelope, &self.story);
        self.context.output.say(&format!("{time}  {text}\n"))
    }

    fn concerns(&self, body: &Body) -> bool {
        let (job, attempt, change) = about(body);
        match self.wanted {
            Wanted::All => true,
            Wanted::Job(wanted) => {
                job == Some(wanted)
                    || attempt
                        .and_then(|id| self.story.job_of(id))
                        .is_some_and(|job| job.id == wanted)
                    || change
                        .and_then(|id| self.story.job_of_change(id))
                        .is_some_and(|job| job.id == wanted)
            }
            Wanted::Attempt(wanted) => attempt == Some(wanted),
            Wanted::Change(wanted) => change == Some(wanted),
        }
    }
}

/// What an agent says of its own calls is in the events of the calls already.
const fn is_said_by_the_gateway(body: &Body) -> bool {
    matches!(
        body,
        Body::Agent {
            event: domain::event::Agent::Usage { .. },
            ..
        }
    )
}

/// The job, attempt and change that an event names.
const fn about(body: &Body) -> (Option<JobId>, Option<AttemptId>, Option<ChangeId>) {
    match body {
        Body::JobChanged { job, .. } => (Some(*job), None, None),
        Body::AttemptStarted { job, attempt, .. } => (Some(*job), Some(*attempt), None),
        Body::AttemptChanged { attempt, .. } | Body::Agent { attempt, .. } => {
            (None, Some(*attempt), None)
        }
        Body::ModelCalled { attempt, .. } => (None, *attempt, None),
        Body::Egress { attempt, .. } | Body::SetUp { attempt, .. } => (None, Some(*attempt), None),
        Body::Checked {
            attempt, change, ..
        } => (None, Some(*attempt), *change),
        Body::ChangeMade {
            change, attempt, ..
        } => (None, Some(*attempt), Some(*change)),
        Body::ChangeChanged { change, .. } => (None, None, Some(*change)),
        _ => (None, None, None),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        docs,
        view::{event, paint::plain, sample, story::Story},
    };

    #[test]
    fn the_published_schema_is_that_of_the_events() {
        docs::is_current("docs/events.schema.json", &super::schema());
    }

    #[test]
    fn every_event_has_its_line() {
        let events = sample::done_events();
        let mut story = Story::new(sample::REQUEST);
        let mut text = String::new();
        for envelope in &events.0 {
            story.apply(envelope);
            text.push_str(&plain(&event::full(envelope, &story)));
            text.push('\n');
        }
        insta::assert_snapshot!("log", text);
    }

    #[test]
    fn without_a_terminal_there_is_a_line_for_each_change_of_state() {
        let events = sample::done_events();
        let mut story = Story::new(sample::REQUEST);
        let mut text = String::new();
        for envelope in &events.0 {
            story.apply(envelope);
            if let Some(line) = event::progress(envelope, &story) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        insta::assert_snapshot!("progress", text);
    }
}
