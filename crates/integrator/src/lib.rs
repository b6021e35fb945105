//! From a change through the merge queue to the integration branch, and its publication.
//!
//! Changes of one branch land one at a time. A change whose base is the tip lands as it is; any other
//! is merged in the mirror and checked again, because the tree that was tested is the tree that lands.
//! It never runs an agent.
//!
//! What is durable before what: the intent (which commit will hold the change), then the mirror's tip
//! by compare-and-swap, then the change `integrated`, then the user's branch. After a crash at any of
//! these, the next integrator finds the intent and sees whether the tip already holds it.
//!
//! [`Integrator`] claims and lands: [`Integrator::step`].

mod land;

pub use land::{Error, Integrator, Options};
