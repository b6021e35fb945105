//! The way out: model proxy, grants, recordings; spends from the ledger's budgets.
//!
//! Owns the providers and their keys, the connections to them, and the grants by which a
//! spender reaches a model. It never trusts the agent's account of anything: it checks what is
//! asked, reserves before it calls, meters what passes from the bytes themselves, settles once,
//! and records the exchange without any key. It never reads the environment, nor a
//! file but the system's certificates, its table of hosts and what it keeps of package registries
//! ([`Packages`]), and never tries a call again.
//!
//! What leaves a sandbox besides such calls passes here, too: [`Egress`] decides, measures and
//! records every request.
//!
//! The three main types are [`Gateway`] (the providers and the pool of connections), [`Grant`]
//! (what one spender may use, revocable) and [`Cassette`] (recorded exchanges in place of a
//! provider). Besides, a [`Hook`] takes a message to an address that a person has configured.

mod body;
mod cassette;
mod classify;
mod client;
mod diff;
mod egress;
mod error;
mod flight;
mod funds;
mod gateway;
mod grant;
mod headers;
mod hook;
mod ledger_funds;
mod packages;
mod page;
mod provider;
mod providers;
mod redact;
mod refusal;
mod secret;
mod serve;
mod splice;

pub use body::Body;
pub use cassette::{Cassette, Diverged, Recorded};
#[doc(hidden)]
#[cfg(feature = "fuzzing")]
pub use egress::hostile;
pub use egress::{
    Configured, Egress, EgressBounds, EgressSpec, Fixed, Outlet, Policies, Resolver, Seen,
    Standing, SystemResolver, Witness, rules,
};
pub use error::Error;
pub use funds::{Error as FundsError, Funds, Settlement};
pub use gateway::{Bounds, Gateway, Options};
pub use grant::{Call, Grant, GrantSpec, Limits, Mode, Response};
pub use hook::{Error as HookError, Hook};
pub use ledger_funds::{CassetteError, LedgerFunds, cassette, plan_cassette};
pub use packages::{PACKAGES_BYTES, Packages};
pub use page::{Error as PageError, read as read_page};
pub use provider::{Provider, Settings, Times};
pub use providers::{Error as RouteError, Providers, Route};
pub use secret::Secret;
pub use serve::{Admits, Served};
