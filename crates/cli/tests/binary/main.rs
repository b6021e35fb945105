//! What users are promised, tried through the program itself: real repositories, a scripted model
//! over real HTTP, real sandboxes. One file for each subject; one test program, so that it is
//! linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod bad_agents;
mod bad_input;
mod bad_models;
mod claude_code;
mod containers;
mod copies;
mod demo;
mod dice;
mod docs;
mod egress;
mod extras;
mod full_disk;
mod images;
mod init_doctor;
mod integration_branch;
mod kills;
mod lands;
mod later;
mod leaks;
mod lifecycle;
mod lifecycle_contained;
mod looking_after;
mod lost_mirror;
mod notify;
mod odd_repositories;
mod operations;
mod ordinary_user;
mod outcomes;
mod policy;
mod reach;
mod refusals;
mod registries;
mod repositories;
mod resume;
mod resume_together;
mod sandboxes;
mod secrets;
mod several;
mod shell;
mod signals;
mod sources;
mod speed;
mod taking;
mod terminal;
mod world;
