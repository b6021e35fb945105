//! What users are promised of the gateway, tried against a scripted provider on loopback.

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod in_process;
#[cfg(test)]
mod ledgered;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod secrecy;
#[cfg(test)]
mod served;
#[cfg(test)]
mod upstream;
