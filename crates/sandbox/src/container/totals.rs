//! What all containers of a process may use together.

use std::sync::Arc;

use super::engine::Engine;
use super::{Shared, blocking};
use crate::namespace::cgroup::Above;

/// The group above all containers, or why there is none.
pub(super) type Bound = Result<Arc<Above>, String>;

impl Shared {
    /// The group above all containers, if there is anything to bound.
    pub(super) async fn bound(&self, engine: &Engine) -> Option<Bound> {
        let total = self.options.total;
        if !total.is_some() {
            return None;
        }
        let make = async || {
            let made = match engine.takes_groups().await? {
                Err(why) => Err(why),
                Ok(()) => {
                    let made = blocking("make a control group", move || Ok(Above::create(&total)));
                    made.await.map_err(|error| error.to_string())?
                }
            };
            if let Err(why) = &made {
                tracing::warn!(why, "what all containers use together is not limited");
            }
            Ok(made.map(Arc::new))
        };
        // An engine that does not answer now may answer the next time.
        let bound = self.above.get_or_try_init(make).await;
        Some(bound.cloned().unwrap_or_else(Err))
    }
}

impl Engine {
    /// Whether it makes its groups where it is told to, and if not, why; or why that cannot be said.
    async fn takes_groups(&self) -> Result<Result<(), String>, String> {
        if self.rootless {
            return Ok(Err(
                "an engine without root makes its groups itself".to_owned()
            ));
        }
        let told = self
            .docker
            .info()
            .await
            .map_err(|error| error.to_string())?;
        let driver = told.cgroup_driver.map(|driver| driver.to_string());
        Ok(match driver.as_deref() {
            Some("cgroupfs") => Ok(()),
            other => Err(format!(
                "the engine has its groups made by {}, which takes no group of ours",
                other.unwrap_or("something unknown")
            )),
        })
    }
}
