//! `images`: list, `pull`, `remove`, `add`, `upload`.

mod upload;

use batwa_api::{
    Timestamp,
    id::AgentId,
    image::{AddImage, Image, ImageContent, ImageList, ImageName, ListedImage},
    operation::PullOptions,
};

use super::wait;
use crate::{
    ask,
    cli::{ImagesArgs, ImagesTask, NewImageArgs, PlaceArgs},
    client::Client,
    failure::Failure,
    output::{self, Cell, Table, plain, say},
};

/// `batwa images`
pub(crate) async fn run(args: ImagesArgs) -> Result<(), Failure> {
    match args.task {
        None => list(args).await,
        Some(ImagesTask::Pull {
            image,
            place,
            wait,
            master,
        }) => {
            let client = Client::new(master)?;
            let (agent, name) = (agent(&place)?, image_name(&image)?);
            let path = ["agents", agent.as_str(), "images", name.as_str(), "pull"];
            let options = PullOptions {
                driver: place.driver,
            };
            let accepted = client.post(&path, &options).await?;
            wait::finish(&client, accepted, &wait).await
        }
        Some(ImagesTask::Remove {
            image,
            place,
            confirm,
            master,
        }) => {
            let client = Client::new(master)?;
            let (agent, name) = (agent(&place)?, image_name(&image)?);
            ask::confirm(confirm, &format!("Remove image {agent}/{name}?"))?;
            let path = ["agents", agent.as_str(), "images", name.as_str()];
            let driver = place.driver.map(|driver| driver.to_string());
            let query: Vec<_> = driver
                .iter()
                .map(|kind| ("driver", kind.as_str()))
                .collect();
            client.delete(&path, &query).await?;
            say(&format!("image {agent}/{name} is removed"));
            Ok(())
        }
        Some(ImagesTask::Add {
            about,
            source,
            sha256,
            place,
            master,
        }) => {
            let client = Client::new(master)?;
            let agent = agent(&place)?;
            let is_file = source.starts_with('/');
            let add = AddImage {
                url: (!is_file).then(|| source.clone()),
                file: is_file.then_some(source),
                sha256,
                ..describe(about, &place)?
            };
            check(&add, ImageContent::Named)?;
            let path = ["agents", agent.as_str(), "images"];
            let added: ListedImage = client.read(client.post(&path, &add).await?)?;
            say_added(&added);
            Ok(())
        }
        Some(ImagesTask::Upload {
            about,
            source,
            place,
            master,
        }) => {
            let client = Client::new(master)?;
            let agent = agent(&place)?;
            let add = describe(about, &place)?;
            check(&add, ImageContent::Uploaded)?;
            upload::upload(&client, &agent, &add, &source).await
        }
    }
}

async fn list(args: ImagesArgs) -> Result<(), Failure> {
    let client = Client::new(args.read.master)?;
    let search = args.search.join(" ");
    let mut query: Vec<(&str, &str)> = args.agent.iter().map(|id| ("agent", id.as_str())).collect();
    if !search.is_empty() {
        query.push(("q", &search));
    }
    let value = client.get(&["images"], &query).await?;
    let list: ImageList = client.read(value.clone())?;
    let now = Timestamp::now();
    output::show(args.read.format, &value, || {
        let mut table = Table::new(&[
            "IMAGE", "ALIASES", "MACHINE", "DRIVER", "HERE", "USED", "VMS", "TITLE", "ORIGIN",
        ]);
        for ListedImage { agent_id, image } in &list.items {
            table.row([
                image.name.clone().into(),
                image.aliases.join(", ").into(),
                agent_id.to_string().into(),
                image.driver.to_string().into(),
                here(image),
                Cell::maybe_ago(image.last_used_at, now),
                match image.used_by.len() {
                    0 => Cell::nothing(),
                    count => count.to_string().into(),
                },
                image.title.clone().into(),
                image.origin.clone().into(),
            ]);
        }
        Ok(table)
    })?;
    for agent in list.agents {
        let stores = agent.stores.into_iter().filter_map(|store| store.error);
        for error in agent.error.into_iter().chain(stores) {
            say(&plain(&format!("{}: {error}", agent.agent_id)));
        }
    }
    Ok(())
}

/// What lies on the machine of an image, or what it would have to fetch.
fn here(image: &Image) -> Cell {
    match (image.cached, image.size_on_disk, image.download_size) {
        (true, Some(size), _) => Cell::size(Some(size)),
        (true, None, _) => "yes".into(),
        (false, _, Some(size)) => Cell::of(format!("no, {size} to fetch"), "0"),
        (false, _, None) => Cell::of("no", "0"),
    }
}

fn agent(place: &PlaceArgs) -> Result<AgentId, Failure> {
    AgentId::parse(&place.agent).map_err(Failure::usage)
}

fn image_name(text: &str) -> Result<ImageName, Failure> {
    ImageName::parse(text).map_err(Failure::usage)
}

fn describe(about: NewImageArgs, place: &PlaceArgs) -> Result<AddImage, Failure> {
    Ok(AddImage {
        name: image_name(&about.name)?,
        aliases: about
            .aliases
            .iter()
            .map(|alias| image_name(alias))
            .collect::<Result<_, _>>()?,
        title: about.title,
        user: about.user,
        driver: place.driver,
        url: None,
        sha256: None,
        file: None,
    })
}

/// Refuses here what the machine would refuse: before gigabytes are sent.
fn check(add: &AddImage, content: ImageContent) -> Result<(), Failure> {
    match add.check(content).first() {
        None => Ok(()),
        Some(error) => Err(Failure::usage(format!(
            "{}: {}",
            error.field, error.message
        ))),
    }
}

fn say_added(added: &ListedImage) {
    let name = &added.image.name;
    say(&plain(&format!("image {}/{name} is added", added.agent_id)));
}
