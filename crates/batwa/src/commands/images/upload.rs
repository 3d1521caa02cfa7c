//! `images upload`: a file here becomes an image there. What is cut off is gone on with.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use batwa_api::{
    file::{UploadId, header},
    id::AgentId,
    image::{AddImage, ImageName, ListedImage},
};
use reqwest::{Body, Method, Response};

use super::say_added;
use crate::{
    client::Client,
    commands::sending::{Meter, Source, content, is_cut, look},
    failure::{Exit, Failure},
    output::{Progress, ProgressLine},
};

/// How long an upload may take: a large image over a slow line.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where it goes, and what is said of it.
struct Target<'a> {
    client: &'a Client,
    path: [&'a str; 5],
    query: Vec<(&'a str, &'a str)>,
}

pub(super) async fn upload(
    client: &Client,
    agent: &AgentId,
    add: &AddImage,
    source: &Path,
) -> Result<(), Failure> {
    let mut line = ProgressLine::new();
    line.show(&Progress::words(format!("reading {}", source.display())));
    let source = look(source).await?;
    line.clear();
    let aliases: Vec<&str> = add.aliases.iter().map(ImageName::as_str).collect();
    let aliases = aliases.join(",");
    let driver = add.driver.map(|driver| driver.to_string());
    let id = UploadId::random();
    let query = [
        (
            "aliases",
            Some(aliases.as_str()).filter(|text| !text.is_empty()),
        ),
        ("title", add.title.as_deref()),
        ("user", add.user.as_deref()),
        ("driver", driver.as_deref()),
        ("upload", Some(id.as_str())),
    ];
    let target = Target {
        client,
        path: [
            "agents",
            agent.as_str(),
            "images",
            add.name.as_str(),
            "content",
        ],
        query: query
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    };
    let words = format!("uploading {}", source.path.display());
    let mut meter = Meter::new(&words, Some(source.size));
    let mut offset = 0;
    let answer = loop {
        let cut = match send(&source, &target, offset, &mut meter).await {
            Ok(answer) if is_cut(answer.status()) => refusal(client, answer).await,
            Ok(answer) => break answer,
            Err(error) => client.unreachable(error),
        };
        meter.again(cut).await?;
        // Where to go on; not to be reached yet is asked again by the next try.
        let look = client.request(Method::HEAD, &target.path, &target.query);
        if let Ok(answer) = look.send().await
            && answer.status().is_success()
        {
            let held = answer.headers().get(header::UPLOAD_OFFSET);
            offset = held
                .and_then(|held| held.to_str().ok()?.parse().ok())
                .unwrap_or(0)
                .min(source.size);
        }
    };
    meter.done();
    if !answer.status().is_success() {
        return Err(refusal(client, answer).await);
    }
    let body = answer
        .bytes()
        .await
        .map_err(|error| client.unreachable(error))?;
    let added: ListedImage = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot read the answer: {error}")))?;
    say_added(&added);
    Ok(())
}

async fn send(
    source: &Source,
    target: &Target<'_>,
    offset: u64,
    meter: &mut Meter,
) -> Result<Response, reqwest::Error> {
    let came = Arc::new(AtomicU64::new(offset));
    let content = content(source.path.clone(), offset, Arc::clone(&came));
    let request = target
        .client
        .request(Method::PUT, &target.path, &target.query)
        .timeout(TIMEOUT)
        .header("content-range", source.range_from(offset))
        .header(header::DIGEST, &source.digest)
        .header("content-length", source.size - offset)
        .body(Body::wrap_stream(content));
    meter.follow(request.send(), &came).await
}

async fn refusal(client: &Client, answer: Response) -> Failure {
    let status = answer.status();
    match answer.bytes().await {
        Ok(body) => client.refusal(status, &body),
        Err(error) => client.unreachable(error),
    }
}
