//! What a person sees: pure functions from what is known to text.

pub(crate) mod egress;
pub(crate) mod event;
pub(crate) mod format;
pub(crate) mod live;
pub(crate) mod paint;
pub(crate) mod patch;
pub(crate) mod result;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod screen;
pub(crate) mod show;
pub(crate) mod story;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod why;
