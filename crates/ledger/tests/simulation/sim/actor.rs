//! Actors: small machines that ask the ledger for one thing after the other. An actor knows only
//! what it was told; the run decides what it hears, and when.

use super::{
    call::{Answer, Call},
    outside::Outside,
    random::Random,
};
use domain::{JobId, RepositoryId, RequestId, SessionId, Timestamp};
use skep_ledger::Error;

/// What an actor may look at.
pub(crate) struct View<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) outside: &'a Outside,
    pub(crate) sessions: &'a [SessionId],
    pub(crate) repositories: &'a [RepositoryId],
    pub(crate) requests: &'a [RequestId],
    pub(crate) jobs: &'a [JobId],
    pub(crate) now: Timestamp,
    /// Whether nothing new is asked any more.
    pub(crate) ending: bool,
    /// Whether holders go on though their lease was lost: a mistake on purpose.
    pub(crate) stubborn: bool,
}

/// What an actor hears of its call.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The answer. `again`: the call was made before, and nobody knows what came of that.
    Answer {
        answer: Answer,
        again: bool,
    },
    Error {
        error: Error,
        again: bool,
    },
    /// Nothing, and it does not ask again.
    Nothing,
}

/// One actor.
pub(crate) trait Actor {
    /// What it asks for next, if anything.
    fn next(&mut self, view: &mut View<'_>) -> Option<Call>;

    /// What it hears of what it asked for.
    fn hear(&mut self, view: &mut View<'_>, call: &Call, heard: Heard);

    /// Whether it has nothing in hand.
    fn is_idle(&self) -> bool;
}
