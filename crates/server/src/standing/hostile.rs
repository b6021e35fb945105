//! For the fuzzing of what a holder and its clients say to each other, and for nothing else: what they
//! made of some bytes.

use super::{
    error::Error,
    running::Nudge,
    talk::{Answer, Ask, Heard},
};
use sandbox::Command;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What was understood of what came in these pieces.
#[derive(Debug, Default)]
pub struct Understood {
    /// Each thing that was said, as it would be said again.
    pub said: Vec<Value>,
    /// Whether what came after it was refused.
    pub refused: bool,
    /// The commands that are asked for.
    pub commands: Vec<Command>,
}

impl Understood {
    fn next<T: Serialize + DeserializeOwned>(
        &mut self,
        heard: &mut Heard,
    ) -> Result<Option<T>, Error> {
        let Some(said) = heard.next::<T>()? else {
            return Ok(None);
        };
        let value = serde_json::to_value(&said).map_err(Error::Unreadable)?;
        self.said.push(value);
        Ok(Some(said))
    }
}

/// What a holder understands of a client: one question, and then nudges.
#[must_use]
pub fn asked(pieces: &[&[u8]]) -> Understood {
    understood(pieces, |all, heard| {
        if !all.said.is_empty() {
            return Ok(all.next::<Nudge>(heard)?.is_some());
        }
        let ask = all.next::<Ask>(heard)?;
        if let Some(Ask::Exec(run)) = &ask {
            let command = Command::new(run.argv.clone(), "/workspace/repository");
            let mut command = command.with_env(run.env.iter().cloned());
            command.timeout = run.timeout;
            all.commands.push(command);
        }
        Ok(ask.is_some())
    })
}

/// What a client understands of a holder.
#[must_use]
pub fn answered(pieces: &[&[u8]]) -> Understood {
    understood(pieces, |all, heard| {
        Ok(all.next::<Answer>(heard)?.is_some())
    })
}

fn understood(
    pieces: &[&[u8]],
    next: impl Fn(&mut Understood, &mut Heard) -> Result<bool, Error>,
) -> Understood {
    let (mut all, mut heard) = (Understood::default(), Heard::default());
    for piece in pieces {
        heard.take(piece);
        loop {
            match next(&mut all, &mut heard) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    all.refused = true;
                    return all;
                }
            }
        }
    }
    all
}

/// What a holder says, read and said again.
#[must_use]
pub fn answer_again(said: &Value) -> Option<Value> {
    again::<Answer>(said)
}

/// What a client asks, read and said again.
#[must_use]
pub fn ask_again(said: &Value) -> Option<Value> {
    again::<Ask>(said)
}

fn again<T: Serialize + DeserializeOwned>(said: &Value) -> Option<Value> {
    let said = serde_json::from_value::<T>(said.clone()).ok()?;
    serde_json::to_value(said).ok()
}
