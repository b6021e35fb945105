//! Running a request while a person, or a program, looks on.

use crate::{
    exit::Exit,
    output::Output,
    report::Error,
    signals::Signals,
    view::{
        event, live,
        paint::{LOOK, paint},
        screen::{self, Screen},
        story::Story,
        text,
    },
};
use anstream::{AutoStream, ColorChoice};
use domain::{RequestId, RequestState, SessionId, event::Envelope};
use ledger::Ledger;
use server::Node;
use std::{future::Future, io, pin::Pin, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often the clock of the live view moves.
const TICK: Duration = Duration::from_millis(200);
/// How many events are read at once.
const PAGE: usize = 1_000;

/// What a request came to.
pub(crate) struct Ended {
    /// What happened.
    pub(crate) story: Story,
    /// How the program should end.
    pub(crate) exit: Exit,
}

/// A note that is found out while the request runs.
pub(crate) type Note<'a> = Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

/// Works on the request until it has ended, and shows what goes on.
///
/// `Ctrl-C`, a closed terminal, the request to terminate and an output that nobody reads cancel
/// the request and let it clean up; a second signal ends the program at once.
///
/// # Errors
/// When the ledger fails, or a second signal comes.
pub(crate) async fn work(
    node: &Node,
    request: RequestId,
    session: SessionId,
    output: Output,
    signals: &mut Signals,
    mut note: Option<Note<'_>>,
) -> Result<Ended, Error> {
    let cancel = CancellationToken::new();
    let mut view = View::new(request, output);
    let mut after = 0;
    after = catch_up(node.ledger(), request, after, &mut view).await?;
    let mut events = node.ledger().subscribe(session, after).await?;
    let mut work = Box::pin(node.work(request, &cancel));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ending: Option<Exit> = None;
    let worked = loop {
        // A signal comes first; then what has happened; then the end of it.
        tokio::select! {
            biased;
            exit = signals.next() => {
                if ending.is_some() {
                    view.clear();
                    return Err(Error::Quit(exit));
                }
                ending = Some(exit);
                cancel.cancel();
                view.note("cancelling: agents are stopped and their sandboxes removed; once more quits at once");
            }
            event = events.next() => {
                let event = event?;
                after = event.sequence;
                if let Err(error) = view.take(&event) {
                    view.mute();
                    ending.get_or_insert(report_exit(&error));
                    cancel.cancel();
                }
            }
            // It may read the whole tree: not before the agents are at work.
            found = async { note.as_mut()?.await }, if note.is_some() && view.has_begun() => {
                note = None;
                if let Some(words) = found {
                    view.note(&words);
                }
            }
            worked = &mut work => break worked,
            _ = ticks.tick(), if view.is_drawn() => view.draw(&[]),
        }
    };
    drop(work);
    let request_now = match worked {
        Ok(request) => request,
        Err(error) => {
            view.clear();
            return Err(error.into());
        }
    };
    if let Err(error) = catch_up(node.ledger(), request, after, &mut view).await {
        ending.get_or_insert(report_exit(&error));
    }
    if let (Some(note), None) = (note, ending)
        && let Some(words) = note.await
    {
        view.note(&words);
    }
    view.draw(&[]);
    view.clear();
    Ok(Ended {
        exit: ending.unwrap_or_else(|| exit_of(request_now.state, &view.story)),
        story: view.story,
    })
}

/// A request that failed because nothing can run here is told apart from one that was tried.
fn exit_of(state: RequestState, story: &Story) -> Exit {
    let mut reasons = story
        .failure
        .iter()
        .chain(story.jobs.iter().filter_map(|job| job.failure.as_ref()))
        .map(|failure| Exit::of_reason(failure.reason));
    match state {
        RequestState::Failed if reasons.any(|exit| exit == Exit::Unavailable) => Exit::Unavailable,
        state => Exit::of_request(state),
    }
}

fn report_exit(error: &Error) -> Exit {
    crate::report::Report::of(error).exit
}

/// Shows what has happened up to now; gives the sequence of the last event.
async fn catch_up(
    ledger: &Ledger,
    request: RequestId,
    mut after: u64,
    view: &mut View,
) -> Result<u64, Error> {
    loop {
        let page = ledger.request_events(request, after, PAGE).await?;
        for event in &page {
            after = event.sequence;
            view.take(event)?;
        }
        if page.len() < PAGE {
            return Ok(after);
        }
    }
}

/// Every event of a request.
///
/// # Errors
/// When the ledger fails.
pub(crate) async fn story(ledger: &Ledger, request: RequestId) -> Result<Story, Error> {
    let mut story = Story::new(request);
    let mut after = 0;
    loop {
        let page = ledger.request_events(request, after, PAGE).await?;
        for event in &page {
            after = event.sequence;
            story.apply(event);
        }
        if page.len() < PAGE {
            return Ok(story);
        }
    }
}

/// How what goes on is shown.
enum Mode {
    /// An object for each event, on standard output.
    Json,
    /// A line for each change of state.
    Plain,
    /// Lines that are drawn again and again.
    Drawn(Screen),
    /// Not at all.
    Muted,
}

struct View {
    request: RequestId,
    output: Output,
    story: Story,
    mode: Mode,
}

impl View {
    fn new(request: RequestId, output: Output) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let mode = if output.is_json() {
            Mode::Json
        } else if output.progress_is_seen() && !dumb {
            Mode::Drawn(Screen::default())
        } else {
            Mode::Plain
        };
        Self {
            request,
            output,
            story: Story::new(request),
            mode,
        }
    }

    /// Whether an agent has begun to work.
    fn has_begun(&self) -> bool {
        self.story
            .jobs
            .iter()
            .any(|job| job.attempt().is_some() && !job.action.is_empty())
    }

    const fn is_drawn(&self) -> bool {
        matches!(self.mode, Mode::Drawn(_))
    }

    fn mute(&mut self) {
        self.mode = Mode::Muted;
    }

    fn take(&mut self, event: &Envelope) -> Result<(), Error> {
        if event.request != Some(self.request) {
            return Ok(());
        }
        let notes = self.story.notes.len();
        self.story.apply(event);
        match &mut self.mode {
            Mode::Json => self.output.object(event)?,
            Mode::Plain => {
                if let Some(line) = event::progress(event, &self.story) {
                    let at = event.time.since(self.story.started);
                    let at = crate::view::format::span(at);
                    self.output.aside(&format!("{at:>7}  {line}\n"));
                }
            }
            Mode::Drawn(_) => {
                let new: Vec<String> = self
                    .story
                    .notes
                    .iter()
                    .skip(notes)
                    .map(|note| noted(note))
                    .collect();
                // Everything else waits for the clock: many events come at once.
                if !new.is_empty() {
                    self.draw(&new);
                }
            }
            Mode::Muted => {}
        }
        Ok(())
    }

    /// Says something that is no event. Programs do not need it.
    fn note(&mut self, words: &str) {
        match self.mode {
            Mode::Json | Mode::Muted => {}
            Mode::Plain => self.output.aside(&format!("{}\n", noted(words))),
            Mode::Drawn(_) => self.draw(&[noted(words)]),
        }
    }

    fn draw(&mut self, above: &[String]) {
        let Mode::Drawn(screen) = &mut self.mode else {
            return;
        };
        let (width, height) = screen::size(io::stderr());
        let now = crate::view::format::now();
        // The last column stays empty: some terminals wrap as soon as it is filled.
        let lines = live::lines(&self.story, now, width.saturating_sub(1), height);
        let colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        let frame = screen.frame(&styled(above, colour), &styled(&lines, colour), width);
        // A terminal that is gone is told of by a signal.
        drop(screen::put(io::stderr().lock(), &frame));
    }

    /// Takes away what is drawn.
    fn clear(&mut self) {
        if let Mode::Drawn(screen) = &mut self.mode {
            let (width, _) = screen::size(io::stderr());
            drop(screen::put(io::stderr().lock(), &screen.rewind(width)));
        }
    }
}

fn noted(words: &str) -> String {
    words
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let line = text::lines(line);
            if index == 0 {
                format!("{} {line}", paint(LOOK, "note:"))
            } else {
                line
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn styled(lines: &[String], colour: bool) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            if colour {
                line.clone()
            } else {
                anstream::adapter::strip_str(line).to_string()
            }
        })
        .collect()
}
