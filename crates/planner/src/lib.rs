//! From a request to a plan.
//!
//! A plan is written by a person, by a model against a schema with one repair round, or is the one
//! job that does all that is asked. The planner never executes anything.
//!
//! - [`Planner`] claims requests and plans them: [`Planner::step`].
//! - [`prompt::Repository`] is what a model is told of the repository.

mod planner;
pub mod prompt;

pub use planner::{Error, Options, Planner};
