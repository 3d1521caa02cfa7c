//! Operations that are kept for a machine that is offline, where the caller asked for that (`when_online`).
//!
//! One that is kept has never been sent: `waits_until` says so in the store, and is cleared there before it is sent. So
//! it may be given up here without asking anybody, and everything else is settled as after any cut link.

use std::sync::Arc;

use batwa_api::{
    Timestamp,
    agent::AgentStatus,
    id::AgentId,
    operation::{Operation, OperationRequest, OperationState},
    problem::ProblemCode,
};

use super::Ask;
use crate::{
    app::{App, Error, vms::VmRef},
    fleet::{contact::Contact, operations::Heard},
};

/// Why an operation is not kept any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// Somebody cancelled it.
    Cancelled,
    /// The machine did not come in time.
    InVain,
}

impl App {
    /// Whether a machine that cannot be reached may be reached again without anybody doing something here.
    pub(super) fn may_come_online(&self, agent: &AgentId) -> bool {
        matches!(
            self.fleet().status(agent),
            Some(AgentStatus::Offline | AgentStatus::Error)
        )
    }

    /// Refuses what cannot work whatever the machine will say; the VM's state is only known when it is back.
    pub(super) fn check_to_keep(&self, ask: &Ask) -> Result<(), Error> {
        match &ask.request {
            // Which images the machine knows is only heard when it is back.
            OperationRequest::PullImage(_) => Ok(()),
            OperationRequest::Create { .. } => self.check_room(&ask.agent, ask.vm()?),
            request => {
                let vm = ask.vm()?;
                if !self.fleet().has_operation_for(&ask.agent, vm) {
                    self.found(&VmRef {
                        agent: ask.agent.clone(),
                        name: vm.clone(),
                    })?;
                }
                self.check_fields(ask, None)?;
                match request.target() {
                    Some(target) => self.check_room(&ask.agent, target),
                    None => Ok(()),
                }
            }
        }
    }

    /// Shows that an operation waits for its machine.
    pub(super) fn say_that_it_waits(&self, operation: Operation) {
        let agent = operation.agent_id.clone();
        let waiting = Operation {
            message: Some("waits for the machine to come online".to_owned()),
            ..operation
        };
        self.fleet()
            .hear_operation(&agent, waiting, Heard::FromMaster);
    }

    /// Writes down that an operation is sent from now on, and returns it so.
    pub(super) async fn no_longer_kept(&self, operation: Operation) -> Result<Operation, Error> {
        if operation.waits_until.is_none() {
            return Ok(operation);
        }
        let sent = Operation {
            waits_until: None,
            message: None,
            ..operation
        };
        self.store()
            .save_operations(std::slice::from_ref(&sent))
            .await?;
        self.fleet()
            .hear_operation(&sent.agent_id.clone(), sent.clone(), Heard::AsChange);
        Ok(sent)
    }

    /// Begins an operation that was kept for a machine that turned out to be of the old kind.
    pub(super) async fn begin_kept_old(
        &self,
        contact: &Arc<Contact>,
        operation: Operation,
    ) -> Result<(), Error> {
        let Some(request) = self.store().operation_request(operation.id).await? else {
            return self.give_up(operation, GivenUp::InVain).await.map(drop);
        };
        let operation = self.no_longer_kept(operation).await?;
        self.begin_old(contact, operation, request);
        Ok(())
    }

    /// Ends an operation that was never sent.
    pub(super) async fn give_up(
        &self,
        operation: Operation,
        why: GivenUp,
    ) -> Result<Operation, Error> {
        let id = operation.id;
        match why {
            GivenUp::Cancelled => {
                self.end(Operation {
                    state: OperationState::Cancelled,
                    ..operation
                })
                .await?;
            }
            GivenUp::InVain => {
                let detail = "the machine did not come online in time: nothing was done";
                self.fail(operation, ProblemCode::AgentOffline, detail)
                    .await?;
            }
        }
        self.operation(id).await
    }

    /// Gives up what has waited for its machine long enough.
    pub(in crate::app) async fn give_up_in_vain(&self) -> Result<(), Error> {
        for operation in self.fleet().operations_in_vain(Timestamp::now()) {
            self.give_up(operation, GivenUp::InVain).await?;
        }
        Ok(())
    }
}
