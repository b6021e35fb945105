//! `skep demo`: a small repository, a scripted model, and everything else for real.

pub(crate) mod model;
pub(crate) mod probe;
pub(crate) mod repository;
pub(crate) mod script;
pub(crate) mod tell;
