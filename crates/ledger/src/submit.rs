//! Submission: what a person asks becomes a request, once.

use crate::{
    account, admission,
    blob::references,
    error::{Error, Trouble},
    key::{self, Key},
    later,
    ledger::Ledger,
    queue::{self, Kind, Offer, Queue},
    sql::{Key as _, run, to_json},
    writer::Verb,
};
use domain::{RequestId, RequestState, SessionId, entity::Ask, event::Body, plan};
use std::sync::Arc;

/// The longest ask, in bytes of JSON.
pub(crate) const MAX_ASK: usize = 16 << 20;

impl Ledger {
    /// Accepts a request. With a key, the same ask is accepted once: the second time the first
    /// one's id is the answer. Its account opens with all of `ask.budget` free.
    ///
    /// # Errors
    /// [`Error::KeyTaken`] when the key came with another ask or session; [`Error::NotFound`]
    /// when there is no such session or repository; [`Error::Invalid`] when it is too long, or begins
    /// more than [`crate::MOST_AHEAD`] from now; [`Error::Busy`] when there is too much already.
    pub async fn submit(
        &self,
        session: SessionId,
        ask: Ask,
        key: Option<&str>,
    ) -> Result<RequestId, Error> {
        const DOING: &str = "accept a request";
        let key = key::valid(key)?;
        // Whatever needs no row is done before the verb, for which others wait.
        let body = to_json(&ask).map_err(|trouble| trouble.during(DOING))?;
        if body.len() > MAX_ASK {
            return Err(Error::Invalid(format!(
                "a request of {} bytes is longer than the {MAX_ASK} that are taken",
                body.len()
            )));
        }
        let parts: [&[u8]; 2] = [&session.bits().to_le_bytes(), body.as_bytes()];
        let key = key.map(|name| Key::new(&name, &parts));
        let told = Arc::new((ask, body, key));
        self.write(DOING, move |verb| {
            let (ask, body, key) = &*told;
            submit(verb, session, ask, body, key.as_ref())
        })
        .await
    }
}

fn submit(
    verb: &mut Verb<'_>,
    session: SessionId,
    ask: &Ask,
    body: &str,
    key: Option<&Key>,
) -> Result<RequestId, Trouble> {
    if let Some(key) = key
        && let Some(request) = key.used(verb)?
    {
        return Ok(request);
    }
    verb.known.repository(verb.sql, ask.repository)?;
    let later = later::wanted(&ask.placement, verb.now)?;
    admission::admit(verb, &ask.placement)?;
    let request: RequestId = verb.id();
    let account = account::create(verb, ask.budget, None)?;
    let patience = queue::patience(ask.placement.priority);
    let (kind, queue, place) = match later {
        Some(time) => {
            verb.known.waits_until(time);
            (Kind::Later, later::QUEUE.known(verb)?, time.0)
        }
        None => (
            Kind::Request,
            queue_of(ask)?.known(verb)?,
            queue::place(verb.now, patience),
        ),
    };
    run(
        verb,
        "INSERT INTO requests (id, session, repository, branch, parallel, held, account, state, \
         created, queue, place, patience) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9, ?10, ?11)",
        (
            request.key(),
            session.key(),
            ask.repository.key(),
            &ask.policy.integration.branch,
            ask.parallel.max(1),
            account,
            RequestState::Queued.as_str(),
            verb.now.0,
            queue,
            place,
            patience,
        ),
    )?;
    let row = verb.last_insert_rowid();
    verb.known.submitted(request, row);
    queue::insert(
        verb,
        Offer {
            kind: Kind::Request,
            queue,
            place,
            subject: row,
            request: request.key(),
        },
    )?;
    verb.count(kind, queue, 1, 0);
    references::refer(verb, ask.blobs())?;
    run(
        verb,
        "INSERT INTO asks (request, body) VALUES (?1, ?2)",
        (row, body),
    )?;
    if let Some(key) = key {
        key.uses(verb, request)?;
    }
    verb.event(
        session,
        Some(request),
        Body::RequestSubmitted {
            request,
            title: plan::title(&ask.prompt),
            base: ask.base.clone(),
            budget: ask.budget,
        },
    );
    Ok(request)
}

/// The queue in which a request waits to be planned. Any worker can plan, so only those that it is
/// pinned to matter.
pub(crate) fn queue_of(ask: &Ask) -> Result<Queue<'_>, Trouble> {
    Ok(Queue {
        kind: Kind::Request,
        repository: ask.repository.key(),
        branch: "",
        user: &ask.placement.user,
        agent: "",
        provider: queue::provider(ask.model.as_deref()),
        needs: "",
        pin: ask.placement.pin.as_deref().unwrap_or_default(),
    })
}
