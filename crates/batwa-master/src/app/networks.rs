//! Networks of machines that new VMs can be put on, as their agents tell of them when asked.

use batwa_api::{
    id::AgentId,
    problem::{Problem, ProblemCode},
    vm::HostNetwork,
};

use super::{
    App, Error,
    auth::{Caller, Right},
    operations::agent_error,
};
use crate::fleet::hygiene;

impl App {
    /// The networks of one machine.
    pub(crate) async fn networks(
        &self,
        caller: &Caller,
        agent: &AgentId,
    ) -> Result<Vec<HostNetwork>, Error> {
        caller.require(Right::Manage)?;
        let contact = self.online(agent)?;
        if self.is_legacy(agent) {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Unsupported,
                format!(
                    "{} runs an agent of the old kind, which knows nothing of networks: run `batwa agent` there",
                    Self::agent_words(agent)
                ),
            ))));
        }
        let heard = contact
            .client
            .networks()
            .await
            .map_err(|error| agent_error(agent, error))?;
        Ok(hygiene::networks(heard))
    }
}
