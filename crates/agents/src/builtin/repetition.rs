//! Noticing that an agent goes in circles.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The longest circle that is noticed, in actions.
const LONGEST_CIRCLE: usize = 4;

/// After so many rounds of the same circle the model is told.
const NUDGE_AFTER: usize = 3;

/// After so many it is stopped.
const STOP_AFTER: usize = 6;

/// What to do about what was just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Nudge,
    Stop,
}

/// Remembers the last actions together with their results: doing the same again is no circle
/// while something else comes out of it.
#[derive(Debug, Default)]
pub(super) struct Repetition {
    recent: VecDeque<u64>,
}

impl Repetition {
    /// Takes an action and its result.
    pub(super) fn see(&mut self, action: &str, result: &str) -> Verdict {
        let mut hasher = DefaultHasher::new();
        (action, result).hash(&mut hasher);
        if self.recent.len() == LONGEST_CIRCLE * STOP_AFTER {
            self.recent.pop_front();
        }
        self.recent.push_back(hasher.finish());
        let rounds = (1..=LONGEST_CIRCLE)
            .map(|length| self.rounds(length))
            .max()
            .unwrap_or(0);
        match rounds {
            STOP_AFTER.. => Verdict::Stop,
            NUDGE_AFTER.. => Verdict::Nudge,
            _ => Verdict::Fine,
        }
    }

    /// How often the last `length` actions have come one after the other, ending now.
    fn rounds(&self, length: usize) -> usize {
        let backwards: Vec<u64> = self.recent.iter().rev().copied().collect();
        let mut circles = backwards.chunks_exact(length);
        let Some(last) = circles.next() else { return 0 };
        1 + circles.take_while(|circle| *circle == last).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(actions: &str) -> Vec<Verdict> {
        let mut repetition = Repetition::default();
        actions
            .chars()
            .map(|c| repetition.see(&c.to_string(), ""))
            .collect()
    }

    #[test]
    fn circles_of_one_to_four_actions_are_noticed() {
        for circle in ["a", "ab", "abc", "abcd"] {
            let verdicts = run(&circle.repeat(STOP_AFTER));
            assert_eq!(verdicts.last(), Some(&Verdict::Stop), "{circle}");
            let before = verdicts.get(circle.len() * NUDGE_AFTER - 1);
            assert_eq!(before, Some(&Verdict::Nudge), "{circle}");
            assert!(
                verdicts
                    .iter()
                    .take(circle.len() * NUDGE_AFTER - 1)
                    .all(|v| *v == Verdict::Fine)
            );
        }
    }

    #[test]
    fn ordinary_work_is_no_circle() {
        assert!(
            run("abacabadabacabaeabacabadabacaba")
                .iter()
                .all(|v| *v == Verdict::Fine)
        );
        let mut repetition = Repetition::default();
        for n in 0..50 {
            assert_eq!(
                repetition.see("make test", &format!("{n} failures")),
                Verdict::Fine
            );
        }
    }
}
