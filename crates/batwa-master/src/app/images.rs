//! Images: what can be launched where, asked of the agents.

use std::time::Duration;

use batwa_api::{
    agent::{AgentStatus, DriverKind},
    id::AgentId,
    image::{Image, ListedImage},
};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{App, Error, operations::agent_error};

/// How many agents are asked at a time when nobody names one.
const ASKED_AT_A_TIME: usize = 16;
/// How long one of many may take; whoever wants that one names it.
const PATIENCE: Duration = Duration::from_secs(3);

impl App {
    /// The images of one agent, or of all that are online and answer soon.
    pub(crate) async fn images(&self, agent: Option<&AgentId>) -> Result<Vec<ListedImage>, Error> {
        if let Some(agent) = agent {
            return self.images_of(agent).await;
        }
        let online: Vec<AgentId> = self.fleet().read(|state| {
            state
                .agents
                .iter()
                .filter(|(_, entry)| entry.standing.status == AgentStatus::Online)
                .map(|(id, _)| id.clone())
                .collect()
        });
        let answers: Vec<Vec<ListedImage>> = stream::iter(online)
            .map(|agent| async move {
                match timeout(PATIENCE, self.images_of(&agent)).await {
                    Ok(Ok(images)) => images,
                    _ => Vec::new(),
                }
            })
            .buffered(ASKED_AT_A_TIME)
            .collect()
            .await;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn images_of(&self, agent: &AgentId) -> Result<Vec<ListedImage>, Error> {
        let contact = self.online(agent)?;
        let images = if self.is_legacy(agent) {
            old_images()
        } else {
            contact
                .client
                .images()
                .await
                .map_err(|error| agent_error(agent, error))?
        };
        Ok(images
            .into_iter()
            .map(|image| ListedImage {
                agent_id: agent.clone(),
                image,
            })
            .collect())
    }
}

/// What Multipass on an old agent launches by these names; the agent itself cannot be asked.
fn old_images() -> Vec<Image> {
    [("24.04", "noble", true), ("22.04", "jammy", false)]
        .into_iter()
        .map(|(version, codename, default)| Image {
            name: version.to_owned(),
            aliases: vec![codename.to_owned()],
            title: format!("Ubuntu {version} LTS"),
            driver: DriverKind::Multipass,
            download_size: None,
            cached: false,
            min_disk: None,
            min_memory: None,
            origin: "by Multipass on that machine".to_owned(),
            cloud_config: false,
            default,
        })
        .collect()
}
