//! What users are promised of the gateway, tried against a scripted provider on loopback.

mod fixture;
mod in_process;
mod refusals;
mod replay;
mod secrecy;
mod served;
mod upstream;
