//! `images`: list, `pull`, `remove`, `add`, `upload`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batwa_api::{
    Timestamp,
    file::header,
    id::AgentId,
    image::{AddImage, Image, ImageContent, ImageList, ImageName, ListedImage},
    operation::PullOptions,
    size::ByteSize,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::{Body, Method};
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncReadExt, time::interval};

use super::wait;
use crate::{
    ask,
    cli::{ImagesArgs, ImagesTask, NewImageArgs, PlaceArgs},
    client::Client,
    failure::{Exit, Failure},
    output::{self, Cell, Progress, ProgressLine, Table, plain, say},
};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// How long an upload may take: a large image over a slow line.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

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
            upload(&client, &agent, &add, &source).await
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

async fn upload(
    client: &Client,
    agent: &AgentId,
    add: &AddImage,
    source: &Path,
) -> Result<(), Failure> {
    let mut line = ProgressLine::new();
    line.show(&Progress::words(format!("reading {}", source.display())));
    let (size, digest) = look(source).await?;
    let aliases: Vec<&str> = add.aliases.iter().map(ImageName::as_str).collect();
    let aliases = aliases.join(",");
    let driver = add.driver.map(|driver| driver.to_string());
    let query: Vec<(&str, &str)> = [
        (
            "aliases",
            Some(aliases.as_str()).filter(|text| !text.is_empty()),
        ),
        ("title", add.title.as_deref()),
        ("user", add.user.as_deref()),
        ("driver", driver.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let path = [
        "agents",
        agent.as_str(),
        "images",
        add.name.as_str(),
        "content",
    ];
    let sent = Arc::new(AtomicU64::new(0));
    let file = File::open(source)
        .await
        .map_err(|error| cannot_read(source, &error))?;
    let request = client
        .request(Method::PUT, &path, &query)
        .timeout(UPLOAD_TIMEOUT)
        .header(header::DIGEST, digest)
        .header("content-length", size)
        .body(Body::wrap_stream(content(file, Arc::clone(&sent))))
        .send();
    tokio::pin!(request);
    let mut tick = interval(Duration::from_millis(250));
    let answer = loop {
        tokio::select! {
            answer = &mut request => break answer,
            _ = tick.tick() => {
                let done = ByteSize::bytes(sent.load(Ordering::Relaxed));
                #[expect(clippy::cast_precision_loss, reason = "a per cent needs no more")]
                let percent = (size > 0).then(|| done.as_u64() as f64 * 100.0 / size as f64);
                line.show(&Progress {
                    words: format!("uploading {}", source.display()),
                    percent,
                    figures: format!("({done} of {})", ByteSize::bytes(size)),
                });
            }
        }
    };
    line.clear();
    let answer = answer.map_err(|error| client.unreachable(error))?;
    let status = answer.status();
    let body = answer
        .bytes()
        .await
        .map_err(|error| client.unreachable(error))?;
    if !status.is_success() {
        return Err(client.refusal(status, &body));
    }
    let added: ListedImage = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot read the answer: {error}")))?;
    say_added(&added);
    Ok(())
}

/// How large a file is, and its checksum as a header has it.
async fn look(path: &Path) -> Result<(u64, String), Failure> {
    let cannot = |error: std::io::Error| cannot_read(path, &error);
    let mut file = File::open(path).await.map_err(cannot)?;
    if !file.metadata().await.map_err(cannot)?.is_file() {
        return Err(Failure::usage(format!("`{}` is no file", path.display())));
    }
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).await.map_err(cannot)? {
            0 => break,
            n => {
                sum.update(&piece[..n]);
                size += n as u64;
            }
        }
    }
    let digest = format!("sha-256=:{}:", STANDARD.encode(sum.finalize()));
    Ok((size, digest))
}

/// A file's content, counted as it is taken.
fn content(file: File, sent: Arc<AtomicU64>) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::try_unfold(file, move |mut file| {
        let sent = Arc::clone(&sent);
        async move {
            let mut piece = vec![0; PIECE];
            let n = file.read(&mut piece).await?;
            piece.truncate(n);
            sent.fetch_add(n as u64, Ordering::Relaxed);
            Ok((n > 0).then_some((Bytes::from(piece), file)))
        }
    })
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read `{}`: {error}", path.display()))
}
