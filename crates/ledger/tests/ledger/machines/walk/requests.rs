//! Verbs of planners, and of persons on a request and its jobs.

use super::{Walk, agree};
use crate::support::plan;
use domain::{
    ChangeState, Failure, JobState, Reason,
    machine::Machine,
    state::{AttemptCommand, JobCommand, RequestCommand},
};

impl Walk<'_> {
    pub(super) async fn claim_request(&mut self) {
        let claimed = self.place.ledger.claim_request(&self.place.owner, None);
        let claimed = claimed.await.unwrap();
        assert_eq!(claimed.is_some(), self.model.is_offered());
        if let Some(claimed) = claimed {
            self.model.tell_request(RequestCommand::Plan);
            self.planner = Some(claimed.lease);
        }
    }

    pub(super) async fn plan(&mut self) {
        let Some(lease) = self.planner.take() else {
            return;
        };
        let lines: Vec<String> = self
            .after
            .iter()
            .enumerate()
            .map(|(job, after)| {
                let names: Vec<String> = after.iter().map(|at| format!("j{at}")).collect();
                format!("j{job} {}", names.join(",")).trim().to_owned()
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let planned = self.place.ledger.plan_request(&lease, plan(&lines), None);
        self.ids = planned.await.unwrap();
        self.model.plan(self.after.clone());
    }

    pub(super) async fn fail_request(&mut self) {
        if let Some(lease) = self.planner.take() {
            let failure = Failure::new(Reason::Stuck, "");
            let failed = self.place.ledger.fail_request(&lease, failure);
            failed.await.unwrap();
            self.model.tell_request(RequestCommand::Fail);
        }
    }

    pub(super) async fn postpone_request(&mut self) {
        let Some(lease) = self.planner.take() else {
            return;
        };
        let ledger = &self.place.ledger;
        let failure = Failure::new(Reason::Storage, "");
        ledger.postpone_request(&lease, failure).await.unwrap();
        if self.model.postpone_request() {
            self.model.until = self.request_until().await;
        }
    }

    pub(super) async fn pause_request(&mut self) {
        let result = self.place.ledger.pause_request(self.request).await;
        let next = self.model.request.next(RequestCommand::Pause);
        agree(&result, next.is_some(), "pausing the request");
        if next.is_some() {
            self.model.pause();
            let planner = self.planner.take();
            let holders = self.held.drain(..).map(|(_, claimed)| claimed.lease);
            self.late = holders.chain(planner).last().or(self.late.take());
        }
    }

    pub(super) async fn resume_request(&mut self) {
        let result = self.place.ledger.resume_request(self.request).await;
        let command = if self.model.jobs.is_empty() {
            RequestCommand::ResumeQueued
        } else {
            RequestCommand::ResumeWorking
        };
        let next = self.model.request.next(command);
        agree(&result, next.is_some(), "resuming the request");
        if next.is_some() {
            self.model.tell_request(command);
            self.model.follow();
        }
    }

    pub(super) async fn cancel_request(&mut self) {
        let result = self.place.ledger.cancel_request(self.request).await;
        let next = self.model.request.next(RequestCommand::Cancel);
        agree(&result, next.is_some(), "cancelling the request");
        if next.is_none() {
            return;
        }
        self.model.cancel();
        self.planner = None;
        self.held.clear();
        let rejected = |job: usize| self.model.jobs[job].change == Some(ChangeState::Rejected);
        self.merging.take_if(|(job, _)| rejected(*job));
    }

    pub(super) async fn pause_job(&mut self, at: usize) {
        let Some(job) = at.checked_rem(self.ids.len()) else {
            return;
        };
        let result = self.place.ledger.pause_job(self.ids[job]).await;
        let state = self.model.jobs[job].state;
        let next = state.next(JobCommand::Pause);
        agree(&result, next.is_some(), "pausing a job");
        if next.is_none() {
            return;
        }
        if state.is_held() {
            self.model.let_go(job);
            self.drop_holder(job);
        }
        self.model.tell(job, JobCommand::Pause);
        self.model.follow();
    }

    /// One that is paused, or any where none is.
    pub(super) async fn resume_job(&mut self, at: usize) {
        let paused = |job: &usize| self.model.jobs[*job].state == JobState::Paused;
        let mut jobs: Vec<usize> = (0..self.ids.len()).filter(paused).collect();
        if jobs.is_empty() {
            jobs = (0..self.ids.len()).collect();
        }
        let Some(place) = at.checked_rem(jobs.len()) else {
            return;
        };
        let job = jobs[place];
        let result = self.place.ledger.resume_job(self.ids[job]).await;
        let command = if self.after[job].is_empty() {
            JobCommand::ResumeReady
        } else {
            JobCommand::ResumeBlocked
        };
        let next = self.model.jobs[job].state.next(command);
        agree(&result, next.is_some(), "resuming a job");
        if next.is_some() {
            self.model.tell(job, command);
            self.model.follow();
        }
    }

    pub(super) async fn cancel_job(&mut self, at: usize) {
        let Some(job) = at.checked_rem(self.ids.len()) else {
            return;
        };
        let result = self.place.ledger.cancel_job(self.ids[job]).await;
        let next = self.model.jobs[job].state.next(JobCommand::Cancel);
        agree(&result, next.is_some(), "cancelling a job");
        if next.is_some() {
            self.model.jobs[job].attempt(AttemptCommand::Cancel);
            self.model.tell(job, JobCommand::Cancel);
            self.model.follow();
            self.drop_holder(job);
        }
    }
}
