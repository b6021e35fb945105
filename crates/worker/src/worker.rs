//! Claiming jobs and working on them.

use crate::attempt;
use agents::Agent;
use domain::{Failure, RequestId};
use gateway::Gateway;
use ledger::{Ledger, Owner};
use site::Sites;
use std::{path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

/// What a worker works with.
#[derive(Clone)]
pub struct Options {
    /// The durable truth.
    pub ledger: Ledger,
    /// Where sites are opened.
    pub sites: Sites,
    /// The way to models.
    pub gateway: Gateway,
    /// Finds agents by the names of their profiles.
    pub agents: Arc<dyn Agents>,
}

/// Finds agents by the names of their profiles.
pub trait Agents: Send + Sync {
    /// The agent of a profile.
    ///
    /// # Errors
    /// Why it cannot run here, with what to do.
    fn find(&self, name: &str) -> Result<Ready, Failure>;
}

/// An agent that can run here.
#[derive(Clone)]
pub struct Ready {
    /// The agent.
    pub agent: Arc<dyn Agent>,
    /// The programs that it needs inside.
    pub programs: Vec<PathBuf>,
    /// The dialects that it speaks, best first; empty if it needs no model.
    pub dialects: Vec<dialects::Dialect>,
    /// Whether it cannot work without a model.
    pub needs_model: bool,
    /// Whether its loop runs on the trusted side.
    pub is_trusted_loop: bool,
}

/// Takes jobs to checked changes. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    pub(crate) ledger: Ledger,
    pub(crate) sites: Sites,
    pub(crate) gateway: Gateway,
    pub(crate) agents: Arc<dyn Agents>,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be used.
    #[error("the worker cannot use the ledger")]
    Ledger(#[from] ledger::Error),
}

impl Worker {
    /// A worker.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options {
            ledger,
            sites,
            gateway,
            agents,
        } = options;
        Self {
            ledger,
            sites,
            gateway,
            agents,
        }
    }

    /// Claims one job, of this request if one is named, and works on it until it is settled. False
    /// if there is none.
    ///
    /// # Errors
    /// When the ledger cannot be used. A job that fails is no error.
    pub async fn step(
        &self,
        owner: &Owner,
        only: Option<RequestId>,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let Some(claimed) = self.ledger.claim_job(owner, only).await? else {
            return Ok(false);
        };
        let lost = cancel.child_token();
        let lease = claimed.lease.clone();
        ledger::held(
            &self.ledger,
            &lease,
            &lost,
            attempt::work(self, claimed, &lost),
        )
        .await;
        Ok(true)
    }
}
