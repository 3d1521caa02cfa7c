//! Images: what can be launched where, asked of the agents, and what is done with it there.

use std::time::Duration;

use axum::body::Body;
use batwa_api::{
    agent::{AgentStatus, DriverKind},
    id::AgentId,
    image::{
        AddImage, AgentImages, Image, ImageActions, ImageContent, ImageList, ImageName,
        ImageSource, ListedImage,
    },
    operation::{Operation, OperationRequest, PullOptions},
    problem::{Problem, ProblemCode},
};
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use tokio::time::timeout;

use super::{
    App, Error,
    audit::{Outcome, Record},
    auth::{Caller, Right},
    operations::{Ask, Delivery, agent_error},
};
use crate::{client::ClientError, fleet::hygiene};

/// How many agents are asked at a time when nobody names one.
const ASKED_AT_A_TIME: usize = 16;
/// How long one of many may take; whoever wants that one names it.
const PATIENCE: Duration = Duration::from_secs(3);

/// An image of one agent.
#[derive(Debug, Clone)]
pub(crate) struct ImageRef {
    /// The agent.
    pub(crate) agent: AgentId,
    /// The name.
    pub(crate) name: ImageName,
}

impl ImageRef {
    fn target(&self) -> String {
        format!("{}/{}", self.agent, self.name)
    }
}

/// Words that all have to be in an image's names, title or machine, whatever their case.
#[derive(Debug, Default)]
pub(crate) struct ImageSearch(Vec<String>);

impl ImageSearch {
    /// Most words of one search.
    const MAX_WORDS: usize = 16;

    /// Reads the words of a search.
    pub(crate) fn parse(text: &str) -> Self {
        Self(
            text.split_whitespace()
                .take(Self::MAX_WORDS)
                .map(str::to_lowercase)
                .collect(),
        )
    }

    fn matches(&self, listed: &ListedImage) -> bool {
        let image = &listed.image;
        let texts = [&image.name, &image.title, &image.origin];
        let texts: Vec<String> = texts
            .into_iter()
            .chain(&image.aliases)
            .map(|text| text.to_lowercase())
            .chain([listed.agent_id.as_str().to_lowercase()])
            .collect();
        self.0
            .iter()
            .all(|word| texts.iter().any(|text| text.contains(word)))
    }
}

impl App {
    /// The images of one agent, or of all that are online and answer soon.
    pub(crate) async fn images(
        &self,
        agent: Option<&AgentId>,
        search: &ImageSearch,
    ) -> Result<ImageList, Error> {
        let (mut items, agents) = match agent {
            Some(agent) => {
                let (items, of_agent) = self.images_of(agent).await?;
                (items, vec![of_agent])
            }
            None => self.images_of_all().await,
        };
        items.retain(|image| search.matches(image));
        Ok(ImageList { items, agents })
    }

    async fn images_of_all(&self) -> (Vec<ListedImage>, Vec<AgentImages>) {
        let known: Vec<AgentId> = self.fleet().read(|state| {
            let of_fleet = |status| {
                matches!(
                    status,
                    AgentStatus::Online | AgentStatus::Offline | AgentStatus::Error
                )
            };
            state
                .agents
                .iter()
                .filter(|(_, entry)| of_fleet(entry.standing.status))
                .map(|(id, _)| id.clone())
                .collect()
        });
        let answers: Vec<_> = stream::iter(known)
            .map(|agent| async move {
                let error = match timeout(PATIENCE, self.images_of(&agent)).await {
                    Ok(Ok(answer)) => return answer,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!(
                        "{} did not answer within {} s",
                        Self::agent_words(&agent),
                        PATIENCE.as_secs()
                    ),
                };
                let silent = AgentImages {
                    agent_id: agent,
                    stores: Vec::new(),
                    error: Some(error),
                };
                (Vec::new(), silent)
            })
            .buffered(ASKED_AT_A_TIME)
            .collect()
            .await;
        let (items, agents): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        (items.into_iter().flatten().collect(), agents)
    }

    async fn images_of(&self, agent: &AgentId) -> Result<(Vec<ListedImage>, AgentImages), Error> {
        let contact = self.online(agent)?;
        let (images, stores) = if self.is_legacy(agent) {
            (old_images(), Vec::new())
        } else {
            let heard = contact
                .client
                .images()
                .await
                .map_err(|error| agent_error(agent, error))?;
            let heard = hygiene::images(heard);
            (heard.items, heard.stores)
        };
        let items = images
            .into_iter()
            .map(|image| ListedImage {
                agent_id: agent.clone(),
                image,
            })
            .collect();
        let of_agent = AgentImages {
            agent_id: agent.clone(),
            stores,
            error: None,
        };
        Ok((items, of_agent))
    }

    /// Brings an image to a machine before a VM wants it.
    pub(crate) async fn pull_image(
        &self,
        caller: &Caller,
        image: ImageRef,
        options: PullOptions,
        delivery: Delivery,
    ) -> Result<Operation, Error> {
        let ask = Ask {
            agent: image.agent,
            subject: image.name.into(),
            request: OperationRequest::PullImage(options),
            delivery,
        };
        self.start_operation(caller, ask, Self::check_pull).await
    }

    /// Refuses a pull that its machine cannot even be asked for.
    pub(super) fn check_pull(&self, ask: &Ask) -> Result<(), Error> {
        self.knows_images(&ask.agent)
    }

    fn knows_images(&self, agent: &AgentId) -> Result<(), Error> {
        if self.is_legacy(agent) {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Unsupported,
                format!(
                    "{} runs an agent of the old kind, which knows nothing of images: run `batwa agent` there",
                    Self::agent_words(agent)
                ),
            ))));
        }
        Ok(())
    }

    /// Adds an image to a machine by its address or file.
    pub(crate) async fn add_image(
        &self,
        caller: &Caller,
        agent: &AgentId,
        add: AddImage,
    ) -> Result<ListedImage, Error> {
        caller.require(Right::Administer)?;
        let errors = add.check(ImageContent::Named);
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let contact = self.online(agent)?;
        self.knows_images(agent)?;
        let added = contact.client.add_image(&add).await;
        let image = ImageRef {
            agent: agent.clone(),
            name: add.name,
        };
        let source = add.url.or(add.file);
        self.conclude(caller, "image.add", &image, source, added)
            .await
    }

    /// Passes an image on to a machine as it comes in; nothing of it is held here.
    pub(crate) async fn upload_image(
        &self,
        caller: &Caller,
        image: &ImageRef,
        query: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<ListedImage, Error> {
        caller.require(Right::Administer)?;
        let contact = self.online(&image.agent)?;
        self.knows_images(&image.agent)?;
        let send = contact
            .client
            .upload_image(&image.name, query, headers, body);
        // The answer comes when all has been sent: no deadline but the reasons to end.
        let uploaded = tokio::select! {
            uploaded = send => uploaded,
            ending = self.ending_of(caller, Right::Administer, &contact) => {
                return Err(Error::Conflict(ending.reason));
            }
        };
        self.conclude(caller, "image.upload", image, None, uploaded)
            .await
    }

    /// How many bytes a machine has of an upload that was cut off.
    pub(crate) async fn held_of_upload(
        &self,
        caller: &Caller,
        image: &ImageRef,
        query: &str,
    ) -> Result<u64, Error> {
        caller.require(Right::Administer)?;
        let contact = self.online(&image.agent)?;
        self.knows_images(&image.agent)?;
        let held = contact.client.held_of_upload(&image.name, query).await;
        held.map_err(|error| agent_error(&image.agent, error))
    }

    /// Removes what a machine has of an image.
    pub(crate) async fn remove_image(
        &self,
        caller: &Caller,
        image: &ImageRef,
        driver: Option<DriverKind>,
    ) -> Result<(), Error> {
        caller.require(Right::Administer)?;
        let contact = self.online(&image.agent)?;
        self.knows_images(&image.agent)?;
        let removed = contact.client.remove_image(&image.name, driver).await;
        self.conclude_with(caller, "image.remove", image, None, removed)
            .await
    }

    async fn conclude(
        &self,
        caller: &Caller,
        action: &str,
        image: &ImageRef,
        detail: Option<String>,
        answer: Result<Image, ClientError>,
    ) -> Result<ListedImage, Error> {
        let mut heard = self
            .conclude_with(caller, action, image, detail, answer)
            .await?;
        hygiene::image(&mut heard);
        Ok(ListedImage {
            agent_id: image.agent.clone(),
            image: heard,
        })
    }

    /// Writes down what became of something that was asked of an agent, and hands it on.
    async fn conclude_with<T>(
        &self,
        caller: &Caller,
        action: &str,
        image: &ImageRef,
        detail: Option<String>,
        answer: Result<T, ClientError>,
    ) -> Result<T, Error> {
        let answer = answer.map_err(|error| agent_error(&image.agent, error));
        let (outcome, detail) = match &answer {
            Ok(_) => (Outcome::Ok, detail),
            Err(error) => (Outcome::Failed, Some(error.to_string())),
        };
        let record = Record {
            outcome,
            detail,
            ..Record::ok(action, image.target())
        };
        self.audit(caller, record).await?;
        answer
    }
}

/// What Multipass on an old agent launches by these names; the agent itself cannot be asked.
fn old_images() -> Vec<Image> {
    const OLD: &str = "this machine runs an agent of the old kind, which knows nothing of images";
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
            source: ImageSource::Catalogue,
            own: false,
            architecture: None,
            size_on_disk: None,
            last_used_at: None,
            used_by: Vec::new(),
            actions: ImageActions::none_because(OLD),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_search_is_somewhere_in_an_image() {
        let image = ListedImage {
            agent_id: AgentId::parse("lab-2").unwrap(),
            image: old_images().remove(0),
        };
        for (search, found) in [
            ("", true),
            ("UBUNTU noble", true),
            ("24.04 lab", true),
            ("jammy", false),
            ("noble lab-3", false),
        ] {
            assert_eq!(
                ImageSearch::parse(search).matches(&image),
                found,
                "{search}"
            );
        }
    }
}
