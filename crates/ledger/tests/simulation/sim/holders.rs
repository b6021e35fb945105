//! Who holds what, and until when: by what was claimed, and by the clock of the run.

use super::Broken;
use domain::Timestamp;
use skep_ledger::{Lease, Subject, options::LEASE};
use std::collections::BTreeMap;

/// A lease that is held.
pub(crate) struct Holder {
    subject: Subject,
    token: u64,
    /// The process; none once it has ended.
    process: Option<usize>,
    deadline: Timestamp,
    /// When somebody first looked after the deadline.
    late: Option<Timestamp>,
}

/// All that are held, by what they hold: no two things have the same id.
#[derive(Default)]
pub(crate) struct Holders {
    held: BTreeMap<u64, Holder>,
    newest: u64,
    /// The latest time at which somebody looked: the clock may have been put back since.
    looked: Timestamp,
}

fn key(subject: Subject) -> u64 {
    match subject {
        Subject::Request(id) => id.bits(),
        Subject::Job(id) => id.bits(),
        Subject::Change(id) => id.bits(),
        Subject::Notification(id) => id.bits(),
    }
}

impl Holders {
    /// Whether the lease still holds.
    pub(crate) fn stands(&self, lease: &Lease) -> bool {
        self.held
            .get(&key(lease.subject))
            .is_some_and(|holder| holder.token == lease.token)
    }

    pub(crate) fn claimed(&mut self, lease: &Lease, process: usize) -> Result<(), Broken> {
        Broken::unless(lease.token > self.newest, || {
            format!("the token {} came before", lease.token)
        })?;
        self.newest = lease.token;
        let holder = Holder {
            subject: lease.subject,
            token: lease.token,
            process: Some(process),
            deadline: lease.deadline,
            late: None,
        };
        match self.held.insert(key(lease.subject), holder) {
            None => Ok(()),
            Some(_) => Err(Broken::new(format!(
                "{:?} is claimed, and somebody holds it",
                lease.subject
            ))),
        }
    }

    /// Nobody tells when a notification is lost by its holder, so this is known only when it is
    /// claimed again or its holder is refused.
    pub(crate) fn lost(&mut self, subject: Subject, now: Timestamp) -> Result<(), Broken> {
        self.ended(key(subject), true, now)
    }

    /// What was held is not there any more.
    pub(crate) fn forget(&mut self, id: u64) {
        self.held.remove(&id);
    }

    /// Its holder has settled it.
    pub(crate) fn settled(&mut self, lease: &Lease) {
        self.held.remove(&key(lease.subject));
    }

    /// The holder has said that it lives.
    pub(crate) fn beat(&mut self, lease: &Lease, now: Timestamp) {
        if let Some(holder) = self.held.get_mut(&key(lease.subject)) {
            holder.deadline = now.plus(LEASE);
            holder.late = None;
        }
    }

    /// A process has ended.
    pub(crate) fn orphan(&mut self, process: usize) {
        for holder in self.held.values_mut() {
            holder.process = holder.process.filter(|known| *known != process);
        }
    }

    /// Somebody looks for leases whose time has come.
    pub(crate) fn look(&mut self, now: Timestamp) {
        self.looked = self.looked.max(now);
        for holder in self.held.values_mut() {
            if holder.deadline <= now {
                holder.late.get_or_insert(now);
            }
        }
    }

    /// What it held is free: by its own word, or because its time has come. A holder that lives
    /// has had time for a heartbeat since somebody first found it late.
    pub(crate) fn ended(&mut self, id: u64, expired: bool, now: Timestamp) -> Result<(), Broken> {
        let Some(holder) = self.held.remove(&id) else {
            return Ok(());
        };
        let until = now.max(self.looked);
        let had_time = holder
            .late
            .is_some_and(|late| late.plus(LEASE / 3) <= until);
        Broken::unless(!expired || holder.process.is_none() || had_time, || {
            format!(
                "{:?} was taken from a holder that lives: late since {:?}, now {now:?}",
                holder.subject, holder.late
            )
        })
    }

    /// What is held, but for notifications.
    pub(crate) fn told(&self) -> impl Iterator<Item = String> {
        let held = self.held.values();
        let held = held.filter(|holder| !matches!(holder.subject, Subject::Notification(_)));
        held.map(|holder| format!("{:?} is held under {}", holder.subject, holder.token))
    }
}
