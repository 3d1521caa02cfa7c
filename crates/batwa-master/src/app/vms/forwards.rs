//! Saved forwards: addresses of machines that lead to ports of their VMs. The VM's agent keeps them, and listens.

use std::net::SocketAddr;

use batwa_api::{
    problem::{Problem, ProblemCode},
    vm::{SaveForward, VmDetails},
};

use super::VmRef;
use crate::{
    app::{
        App, Error,
        audit::{Outcome, Record},
        auth::{Caller, Right},
        operations::agent_error,
    },
    client::ClientError,
};

impl App {
    /// Has a machine listen for one of its VMs.
    pub(crate) async fn save_forward(
        &self,
        caller: &Caller,
        vm: &VmRef,
        forward: SaveForward,
    ) -> Result<VmDetails, Error> {
        caller.require(Right::Host)?;
        self.knows_forwards(vm)?;
        let errors = forward.check();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let contact = self.online(&vm.agent)?;
        let mut follower = self.fleet().follow(None);
        let SaveForward { listen, port } = forward;
        let record = Record {
            detail: Some(format!("{listen} leads to port {port}")),
            ..Record::ok("vm.forward", format!("{}/{}", vm.agent, vm.name))
        };
        let saved = contact.client.save_forward(&vm.name, &forward).await;
        self.done_with_forward(caller, vm, saved, record).await?;
        self.wait_until_heard(&mut follower, vm, |vm| {
            vm.forwards
                .iter()
                .any(|there| there.listen == listen && there.port == port)
        })
        .await;
        self.vm(vm)
    }

    /// Has it listen there no more.
    pub(crate) async fn remove_forward(
        &self,
        caller: &Caller,
        vm: &VmRef,
        listen: SocketAddr,
    ) -> Result<(), Error> {
        caller.require(Right::Host)?;
        self.knows_forwards(vm)?;
        let contact = self.online(&vm.agent)?;
        let mut follower = self.fleet().follow(None);
        let record = Record {
            detail: Some(format!("{listen} leads there no more")),
            ..Record::ok("vm.unforward", format!("{}/{}", vm.agent, vm.name))
        };
        let removed = contact.client.remove_forward(&vm.name, listen).await;
        self.done_with_forward(caller, vm, removed, record).await?;
        self.wait_until_heard(&mut follower, vm, |vm| {
            vm.forwards.iter().all(|there| there.listen != listen)
        })
        .await;
        Ok(())
    }

    /// What the audit is to know of what an agent was asked.
    async fn done_with_forward<T>(
        &self,
        caller: &Caller,
        vm: &VmRef,
        answer: Result<T, ClientError>,
        record: Record,
    ) -> Result<(), Error> {
        match answer {
            Ok(_) => self.audit(caller, record).await,
            Err(error) => {
                let error = agent_error(&vm.agent, error);
                let record = Record {
                    outcome: Outcome::Failed,
                    detail: Some(error.to_string()),
                    ..record
                };
                self.audit(caller, record).await?;
                Err(error)
            }
        }
    }

    /// Refuses what there is no VM for, or no agent that could do it.
    fn knows_forwards(&self, vm: &VmRef) -> Result<(), Error> {
        self.found(vm)?;
        if !self.is_legacy(&vm.agent) {
            return Ok(());
        }
        Err(Error::Problem(Box::new(Problem::new(
            ProblemCode::Unsupported,
            format!(
                "{} runs an agent of the old kind, which listens for no VM: run `batwa agent` there",
                Self::agent_words(&vm.agent)
            ),
        ))))
    }
}
