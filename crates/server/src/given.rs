//! The plan that a person wrote: each of its jobs with a model that can be called.
//!
//! A planner's answer needs none of this: what it says of models is left out
//! ([`Plan::from_model`]), so that its jobs have the request's.

use crate::{Error, Node};
use domain::plan::{Job, Plan};

impl Node {
    /// The plan with every model as `provider/name`: jobs count towards the limit of the provider
    /// that is written there. `agent` and `model` are the request's, for jobs that name none.
    ///
    /// # Errors
    /// The first job whose agent cannot run here, or whose model leads to no provider.
    pub(crate) fn given(
        &self,
        mut plan: Plan,
        agent: &str,
        model: Option<&str>,
    ) -> Result<Plan, Error> {
        for job in &mut plan.jobs {
            // One that names neither has what was found for the request.
            if job.agent.is_some() || job.model.is_some() {
                self.resolve(job, agent, model)?;
            }
        }
        Ok(plan)
    }

    fn resolve(&self, job: &mut Job, agent: &str, model: Option<&str>) -> Result<(), Error> {
        let agent = job.agent.as_deref().unwrap_or(agent);
        let ready = self.agents.find(agent).map_err(|failure| Error::JobAgent {
            job: job.name.clone(),
            failure,
        })?;
        let wanted = job.model.as_deref().or(model);
        match self.gateway.providers().route(wanted, &ready.dialects) {
            Ok(route) => {
                let name = route.name();
                if job.model.is_some() || model != Some(name.as_str()) {
                    job.model = Some(name);
                }
                Ok(())
            }
            // Nobody asked for a model.
            Err(_) if job.model.is_none() && !ready.needs_model => Ok(()),
            Err(source) => Err(Error::JobModel {
                job: job.name.clone(),
                source,
            }),
        }
    }
}
