//! An agent that joins with a token and dials in.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Caller, INSTANT, Lab, Process, ProcessBuilder, batwa};

/// Such an agent.
pub(crate) struct Member {
    /// Its state folder.
    pub(crate) folder: PathBuf,
    /// The process; `None` while it is down.
    pub(crate) process: Option<Process>,
}

/// A token, whole.
pub(crate) async fn join_token(admin: &Caller, body: Value) -> String {
    let created = admin.post("/api/v1/join-tokens", body).await.expect(201);
    created["token"].as_str().expect("a token").to_owned()
}

impl Lab {
    /// `batwa agent join`, not started yet.
    pub(crate) fn joining(&self, id: &str, token: &str) -> ProcessBuilder {
        batwa()
            .args(["agent", "join", &self.url, token, "--agent-id", id])
            .args(["--driver", "fake", "--fake", INSTANT])
            .args(["--tunnel-retry", "1s", "--state-dir"])
            .arg(self.folder(id))
    }

    /// An agent that joins with a fresh token, and is online.
    pub(crate) async fn member(&self, id: &str) -> Member {
        let token = join_token(&self.admin, json!({})).await;
        let member = Member {
            folder: self.folder(id),
            process: Some(self.joining(id, &token).start()),
        };
        self.agent_is(id, "online").await;
        member
    }
}

impl Member {
    /// `batwa agent` with its folder alone, as its service manager starts it.
    pub(crate) fn again(&self) -> ProcessBuilder {
        batwa()
            .args(["agent", "--driver", "fake", "--fake", INSTANT])
            .args(["--tunnel-retry", "1s", "--state-dir"])
            .arg(&self.folder)
    }

    /// Starts it again.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.process = Some(self.again().start());
    }

    /// Pulls its plug.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }
}
