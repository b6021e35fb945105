//! Running requests while a person, or a program, looks on.

mod view;

use crate::{
    exit::Exit,
    output::Output,
    report::{Error, Report},
    signals::Signals,
    view::story::Story,
};
use domain::{RequestId, RequestState, SessionId, entity::Request, event::Envelope};
use ledger::Ledger;
use server::{Node, Room};
use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use view::View;

/// How often the clock of the live view moves.
const TICK: Duration = Duration::from_millis(200);
/// How many events are read at once.
const PAGE: usize = 1_000;
/// The most requests that are worked on at once; each has its roles, which look at every change.
const TOGETHER: usize = 32;
/// How many events wait to be shown.
const TOLD: usize = 256;

/// What a request came to.
pub(crate) struct Ended {
    /// The request.
    pub(crate) request: RequestId,
    /// What happened.
    pub(crate) story: Story,
    /// How the program should end.
    pub(crate) exit: Exit,
}

/// A note that is found out while the request runs.
pub(crate) type Note<'a> = Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

/// Works on one request until it has ended, and shows what goes on.
///
/// # Errors
/// As [`Watch::next`].
pub(crate) async fn work(
    node: &Node,
    request: RequestId,
    session: SessionId,
    output: Output,
    signals: &mut Signals,
    mut note: Option<Note<'_>>,
) -> Result<Ended, Error> {
    // What one request may have under way is its own limit.
    let mut watch = Watch::new(node, Room::new(u32::MAX), output);
    watch.add(request, session);
    let ended = watch.next(signals, &mut note).await?;
    ended.ok_or_else(|| Error::Internal(format!("{request} was not worked on")))
}

/// Works on requests at the same time, and shows what goes on.
///
/// `Ctrl-C`, a closed terminal, the request to terminate and an output that nobody reads cancel
/// those that are under way and let them clean up; a second signal ends the program at once.
pub(crate) struct Watch<'a> {
    node: &'a Node,
    room: Room,
    waiting: VecDeque<(RequestId, SessionId)>,
    working: JoinSet<Result<Request, Error>>,
    tell: mpsc::Sender<Envelope>,
    told: mpsc::Receiver<Envelope>,
    cancel: CancellationToken,
    /// How the program ends, once something has told it to.
    ending: Option<Exit>,
    view: View,
    ticks: Interval,
}

impl<'a> Watch<'a> {
    /// Works on nothing yet. All requests share the room.
    pub(crate) fn new(node: &'a Node, room: Room, output: Output) -> Self {
        let (tell, told) = mpsc::channel(TOLD);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            node,
            room,
            waiting: VecDeque::new(),
            working: JoinSet::new(),
            tell,
            told,
            cancel: CancellationToken::new(),
            ending: None,
            view: View::new(output),
            ticks,
        }
    }

    /// Works on this request too: at once, unless there are very many.
    pub(crate) fn add(&mut self, request: RequestId, session: SessionId) {
        self.waiting.push_back((request, session));
    }

    /// Waits until the next request has ended; none when all have that were begun.
    ///
    /// # Errors
    /// When the ledger fails, or a second signal comes. What is under way then is dropped, and can
    /// be gone on with.
    pub(crate) async fn next(
        &mut self,
        signals: &mut Signals,
        note: &mut Option<Note<'_>>,
    ) -> Result<Option<Ended>, Error> {
        self.begin();
        let joined = loop {
            // A signal comes first; then what has happened; then the end of it.
            tokio::select! {
                biased;
                exit = signals.next() => self.signalled(exit)?,
                Some(event) = self.told.recv() => self.take(&event),
                // It may read the whole tree: not before the agents are at work.
                found = async { note.as_mut()?.await }, if note.is_some() && self.view.has_begun() => {
                    *note = None;
                    if let Some(words) = found {
                        self.view.note(&words);
                    }
                }
                joined = self.working.join_next() => match joined {
                    Some(joined) => break joined,
                    None => return Ok(None),
                },
                _ = self.ticks.tick(), if self.view.is_drawn() => self.view.draw(&[]),
            }
        };
        // All of its events were sent before it ended.
        while let Ok(event) = self.told.try_recv() {
            self.take(&event);
        }
        let request = match joined.map_err(ended_badly).flatten() {
            Ok(request) => request,
            Err(error) => {
                self.view.clear();
                return Err(error);
            }
        };
        if let (Some(note), None) = (note.take(), self.ending)
            && let Some(words) = note.await
        {
            self.view.note(&words);
        }
        self.view.draw(&[]);
        self.view.clear();
        let story = self.view.remove(request.id);
        Ok(Some(Ended {
            request: request.id,
            exit: self
                .ending
                .unwrap_or_else(|| exit_of(request.state, &story)),
            story,
        }))
    }

    /// Nobody reads what is printed any more: what is under way is cancelled.
    pub(crate) fn unheard(&mut self, error: &Error) {
        self.view.mute();
        self.ending.get_or_insert(Report::of(error).exit);
        self.cancel.cancel();
    }

    /// Begins with what waits, unless the end was called for: it can be gone on with later.
    fn begin(&mut self) {
        while self.ending.is_none()
            && self.working.len() < TOGETHER
            && let Some((request, session)) = self.waiting.pop_front()
        {
            self.view.add(request);
            let (node, room) = (self.node.clone(), self.room.clone());
            let (tell, cancel) = (self.tell.clone(), self.cancel.clone());
            self.working
                .spawn(async move { follow(&node, request, session, &room, &cancel, &tell).await });
        }
    }

    fn signalled(&mut self, exit: Exit) -> Result<(), Error> {
        if self.ending.is_some() {
            self.view.clear();
            return Err(Error::Quit(exit));
        }
        self.ending = Some(exit);
        self.cancel.cancel();
        self.view.note(
            "cancelling: agents are stopped and their sandboxes removed; once more quits at once",
        );
        Ok(())
    }

    fn take(&mut self, event: &Envelope) {
        if let Err(error) = self.view.take(event) {
            self.unheard(&error);
        }
    }
}

/// Works on a request until it has ended, and tells each of its events, in order.
async fn follow(
    node: &Node,
    request: RequestId,
    session: SessionId,
    room: &Room,
    cancel: &CancellationToken,
    tell: &mpsc::Sender<Envelope>,
) -> Result<Request, Error> {
    let ledger = node.ledger();
    let mut after = catch_up(ledger, request, 0, tell).await?;
    let mut events = ledger.subscribe(session, after).await?;
    let work = node.work_within(request, room, cancel);
    tokio::pin!(work);
    let worked = loop {
        tokio::select! {
            biased;
            event = events.next() => {
                let event = event?;
                after = event.sequence;
                send(tell, request, event).await;
            }
            worked = &mut work => break worked?,
        }
    };
    catch_up(ledger, request, after, tell).await?;
    Ok(worked)
}

/// Tells what has happened up to now; gives the sequence of the last event.
async fn catch_up(
    ledger: &Ledger,
    request: RequestId,
    mut after: u64,
    tell: &mpsc::Sender<Envelope>,
) -> Result<u64, Error> {
    loop {
        let page = ledger.request_events(request, after, PAGE).await?;
        let is_last = page.len() < PAGE;
        for event in page {
            after = event.sequence;
            send(tell, request, event).await;
        }
        if is_last {
            return Ok(after);
        }
    }
}

/// Tells an event, if it is of this request: a session has others.
async fn send(tell: &mpsc::Sender<Envelope>, request: RequestId, event: Envelope) {
    if event.request == Some(request) {
        // Who looks on drops the task with the channel.
        drop(tell.send(event).await);
    }
}

fn ended_badly(error: JoinError) -> Error {
    Error::Internal(format!("the task that works on a request ended: {error}"))
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
