//! The threads that read: each has a connection and takes the next question.
//!
//! What wakes one: a question. What it owns: its connection. How it ends: the queue's end.

use crate::{
    durable::Durable,
    error::{Error, Trouble},
    schema,
    sql::{Sql, run},
};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// How many threads read.
pub(crate) const READERS: usize = 2;
/// The most questions that wait.
pub(crate) const QUEUE: usize = 1_024;

/// A question that waits.
pub(crate) type Question = Box<dyn FnOnce(&Sql, &Durable) + Send>;

/// What the readers are told.
pub(crate) enum Message {
    Ask(Question),
    Close,
}

/// A question with its answer's way back.
pub(crate) fn question<T, F>(
    doing: &'static str,
    work: F,
) -> (Question, oneshot::Receiver<Result<T, Error>>)
where
    T: Send + 'static,
    F: FnOnce(&Sql) -> Result<T, Trouble> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let question = move |sql: &Sql, durable: &Durable| {
        // One transaction, so that all statements of the question see the same moment.
        let outcome = run(sql, "BEGIN", []).and_then(|_| {
            let outcome = schema::verify_version(sql).and_then(|()| work(sql));
            run(sql, "COMMIT", [])?;
            outcome
        });
        if !sql.is_autocommit()
            && let Err(trouble) = run(sql, "ROLLBACK", [])
        {
            tracing::warn!(?trouble, "a reading transaction did not end");
        }
        let outcome = outcome.map_err(|trouble| trouble.during(doing));
        // A caller that no longer waits does not need it.
        durable.after(move |durable| drop(reply.send(durable.and(outcome))));
    };
    (Box::new(question), answer)
}

/// Answers questions until there are no more.
pub(crate) fn work(sql: &Sql, queue: &Mutex<mpsc::Receiver<Message>>, durable: &Durable) {
    loop {
        let message = {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.blocking_recv() {
                Some(Message::Close) => {
                    queue.close();
                    continue;
                }
                other => other,
            }
        };
        match message {
            Some(Message::Ask(question)) => question(sql, durable),
            _ => return,
        }
    }
}
