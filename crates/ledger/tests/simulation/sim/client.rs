//! Clients: they ask, ask again, change their minds, add to budgets and leave notes.

use super::{
    actor::{Actor, Heard, View},
    call::{Answer, Call},
    spend::put,
    world::WORKERS,
};
use domain::{
    Amount, BlobId, Micros, RequestId, SessionId,
    entity::{Ask, Included, Placement, Planning, Priority},
    policy::Policy,
};
use skep_ledger::Limited;
use std::time::Duration;

/// The most requests of one client.
const MOST: usize = 3;
/// The most requests of a run, for it to come to its end.
const MOST_AT_ALL: usize = 8;
/// What is asked under a key that was used for something else.
const OTHER: &str = "Something else";

/// Whether this is another ask than the first one under its key.
pub(crate) fn is_other(ask: &Ask) -> bool {
    ask.prompt == OTHER
}

pub(crate) struct Client {
    pub(crate) name: usize,
    /// What it has asked for under keys, and how often it has asked at all.
    keyed: Vec<(SessionId, Ask, String)>,
    asked: usize,
    /// A blob that was stored, for a request to take along.
    file: Option<BlobId>,
    /// What it has added to budgets under keys.
    added: Vec<(RequestId, Amount, String)>,
    /// It is another one each time its process starts, and does not use an old key for a new ask.
    life: u64,
}

impl Client {
    pub(crate) fn new(name: usize, life: u64) -> Self {
        Self {
            name,
            keyed: Vec::new(),
            asked: 0,
            file: None,
            added: Vec::new(),
            life,
        }
    }

    fn ask(&self, view: &mut View<'_>) -> Option<Ask> {
        let random = &mut *view.random;
        let repository = *random.pick(view.repositories)?;
        let tokens = if random.chance(200) { 60 } else { 5_000 };
        let priorities = [
            Priority::Interactive,
            Priority::Normal,
            Priority::Background,
        ];
        Some(Ask {
            repository,
            repository_path: "/r".into(),
            sources: Default::default(),
            sandbox: None,
            base: "a".repeat(40),
            prompt: "Mend the parser".into(),
            planning: Planning::Auto,
            plan: None,
            agent: "built-in".into(),
            model: None,
            budget: Amount {
                tokens,
                money: Micros(1_000_000),
                wall_ms: 100_000_000,
                iterations: 1_000,
            },
            policy: Policy::default(),
            parallel: 1 + u32::try_from(random.below(3)).unwrap(),
            placement: Placement {
                priority: *random.pick(&priorities)?,
                user: format!("user {}", self.name),
                needs: random
                    .chance(250)
                    .then(|| "gpu".to_owned())
                    .into_iter()
                    .collect(),
                pin: random.chance(250).then(|| {
                    random
                        .pick(&WORKERS)
                        .copied()
                        .unwrap_or_default()
                        .to_owned()
                }),
                not_before: random
                    .chance(100)
                    .then(|| view.now.plus(Duration::from_secs(random.below(600)))),
            },
            retry_of: None,
            included: self
                .file
                .map(|content| Included {
                    path: ".env".into(),
                    executable: false,
                    content,
                })
                .into_iter()
                .collect(),
            dirty: false,
        })
    }
}

impl Actor for Client {
    fn next(&mut self, view: &mut View<'_>) -> Option<Call> {
        if view.ending {
            return None;
        }
        match view.random.below(100) {
            0..15 if self.file.is_none() => put(view.random),
            0..40 if self.asked < MOST && view.requests.len() < MOST_AT_ALL => {
                self.asked += 1;
                let session = *view.random.pick(view.sessions)?;
                let ask = self.ask(view)?;
                let key = format!("{}-{}-{}", self.name, self.life, self.asked);
                let key = view.random.chance(700).then_some(key);
                if let Some(key) = &key {
                    self.keyed.push((session, ask.clone(), key.clone()));
                }
                Some(Call::Submit(session, Box::new(ask), key))
            }
            0..25 => {
                let (session, ask, key) = view.random.pick(&self.keyed)?.clone();
                let mut ask = ask;
                // Only what was answered: else the other ask could come to be the first one.
                if view.random.chance(400) && ask.retry_of.is_some() {
                    ask.prompt = OTHER.into();
                }
                ask.retry_of = None;
                Some(Call::Submit(session, Box::new(ask), Some(key)))
            }
            25..40 => {
                let (request, amount, key) = view.random.pick(&self.added)?.clone();
                // Another amount could come to be the first one, and then the first is refused.
                let tokens = amount.tokens + u64::from(view.random.chance(400));
                let amount = Amount { tokens, ..amount };
                Some(Call::TopUp(request, amount, Some(key)))
            }
            40..70 => {
                let tokens = 10 + view.random.below(500);
                let amount = Amount {
                    tokens,
                    ..Amount::ZERO
                };
                let request = *view.random.pick(view.requests)?;
                let key = format!("more-{}-{}-{}", self.name, self.life, self.added.len());
                let key = view.random.chance(600).then_some(key);
                if let Some(key) = &key {
                    self.added.push((request, amount, key.clone()));
                }
                Some(Call::TopUp(request, amount, key))
            }
            70..76 => {
                let most = view.random.below(3);
                let most = (most > 0).then(|| u32::try_from(most).unwrap());
                let of = match view.random.chance(500) {
                    true => Limited::Agent("built-in".into()),
                    false => Limited::Repository(*view.random.pick(view.repositories)?),
                };
                Some(Call::Limit(of, most))
            }
            76..84 => {
                let session = *view.random.pick(view.sessions)?;
                Some(Call::Note(session, format!("a note of {}", self.name)))
            }
            _ => None,
        }
    }

    fn hear(&mut self, _: &mut View<'_>, call: &Call, heard: Heard) {
        match &heard {
            Heard::Answer {
                answer: Answer::Blob(blob),
                ..
            } => self.file = Some(*blob),
            _ if matches!(call, Call::Submit(..)) => self.file = None,
            _ => {}
        }
        if let (Call::Submit(_, _, Some(key)), Heard::Answer { .. }) = (call, heard) {
            for (_, ask, known) in &mut self.keyed {
                if known == key {
                    // A mark for itself that the first ask was answered; it is never sent.
                    ask.retry_of = Some(domain::RequestId::from_bits(1));
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        true
    }
}
