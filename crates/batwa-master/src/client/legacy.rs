//! The paths of agents from before v1 (COMPAT.md, "Agent").
//!
//! Such an agent runs `multipass` for every call and blocks in it, so the caller asks for one thing at a time.

use std::time::Duration;

use batwa_api::{
    legacy::{CreateVm, VmRequest},
    name::VmName,
    size::ByteSize,
};
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{AgentClient, ClientError, to_json};

/// How long an old agent may take for its list: it runs `multipass list`, which itself may be slow.
const LIST_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take for one VM's details.
const INFO_DEADLINE: Duration = Duration::from_secs(35);

/// One VM of an old agent's list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ListedByOld {
    /// Its name, unchecked.
    pub(crate) name: String,
    /// Its state as Multipass names it.
    #[serde(default)]
    pub(crate) state: String,
    /// Its addresses.
    #[serde(default)]
    pub(crate) ipv4: Vec<String>,
    /// Its system.
    #[serde(default)]
    pub(crate) release: Option<String>,
}

#[derive(Deserialize)]
struct OldList {
    list: Vec<ListedByOld>,
}

#[derive(Deserialize)]
struct OldInfo {
    info: Map<String, Value>,
}

/// What can be asked of an old agent's VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldAction {
    /// Power on.
    Start,
    /// Power off.
    Stop,
    /// Remove for good.
    Delete,
}

impl AgentClient {
    /// The old `GET /api/vm/list`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn old_list(&self) -> Result<Vec<ListedByOld>, ClientError> {
        let list: OldList = self
            .json(Method::GET, "/api/vm/list", None::<&()>, LIST_DEADLINE)
            .await?;
        Ok(list.list)
    }

    /// The old `GET /api/vm/info/{vm}`: what `multipass info` prints under the VM's name.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn old_info(&self, vm: &VmName) -> Result<Map<String, Value>, ClientError> {
        let path = format!("/api/vm/info/{}", path_segment(vm.as_str()));
        let mut answer: OldInfo = self
            .json(Method::GET, &path, None::<&()>, INFO_DEADLINE)
            .await?;
        match answer.info.remove(vm.as_str()) {
            Some(Value::Object(info)) => Ok(info),
            _ => Err(ClientError::Garbage(format!(
                "its details are not of VM `{vm}`"
            ))),
        }
    }

    /// The old `POST /api/vm/create`, which answers when the VM runs or Multipass gave up.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn old_create(
        &self,
        vm: &CreateVm,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let body = serde_json::json!({
            "name": vm.name,
            "cpus": vm.cpus,
            "memory": size_text(vm.memory),
            "disk": size_text(vm.disk),
            "image": vm.image,
        });
        self.send(
            Method::POST,
            "/api/vm/create",
            Some(to_json(&body)?),
            deadline,
        )
        .await?;
        Ok(())
    }

    /// The old `POST /api/vm/start`, `/stop` or `/delete`, which answers when it is done.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn old_action(
        &self,
        vm: &VmName,
        action: OldAction,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let path = match action {
            OldAction::Start => "/api/vm/start",
            OldAction::Stop => "/api/vm/stop",
            OldAction::Delete => "/api/vm/delete",
        };
        let body = to_json(&VmRequest {
            name: vm.to_string(),
            agent_id: None,
        })?;
        self.send(Method::POST, path, Some(body), deadline).await?;
        Ok(())
    }
}

/// A size as old agents hand it to Multipass: text, exact, in the largest unit that divides it.
fn size_text(size: ByteSize) -> String {
    let bytes = size.as_u64();
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{}G", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ => bytes.to_string(),
    }
}

/// `text` as one segment of a path or one value of a query, whatever it holds.
#[must_use]
pub(crate) fn path_segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_reach_old_agents_exactly() {
        assert_eq!(size_text(ByteSize::gib(2)), "2G");
        assert_eq!(size_text(ByteSize::mib(512)), "512M");
        assert_eq!(size_text(ByteSize::bytes(1_000_000_001)), "1000000001");
    }

    #[test]
    fn names_cannot_leave_their_path_segment() {
        assert_eq!(path_segment("web-1"), "web-1");
        assert_eq!(path_segment("a/b?c#ü%"), "a%2Fb%3Fc%23%C3%BC%25");
    }
}
