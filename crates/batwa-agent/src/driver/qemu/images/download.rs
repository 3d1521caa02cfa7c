//! Downloads that go on where they were cut off, and count only when their checksum is right.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use batwa_api::{operation::Stage, size::ByteSize};
use batwa_tls::{SystemRoots, Trust};
use reqwest::{StatusCode, Url, header, redirect};
use sha2::Digest as _;

use super::super::{files, space};
use crate::{
    driver::{DriverError, Progress},
    policy::PolicyFile,
};

/// Time to reach a server.
const CONNECT: Duration = Duration::from_secs(8);
/// A server that sends nothing for this long is given up on, for this try.
const SILENCE: Duration = Duration::from_secs(30);
/// Tries in a row that bring nothing new.
const TRIES: u32 = 4;
/// How often a server may send us on; more is a loop.
const REDIRECTS: usize = 5;
/// Largest image: what a server sends without end must end.
const LARGEST: u64 = 256 << 30;
/// How much is written between two looks at how much room is left.
const STRIDE: u64 = 16 << 20;
/// Largest list or catalogue.
const TEXT_LIMIT: usize = 64 << 20;

/// The checksum that a file must have, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Checksum {
    /// 64 digits.
    Sha256(String),
    /// 128 digits.
    Sha512(String),
}

impl Checksum {
    /// Reads a checksum by its length; `None` when it is none.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let hex = hex.to_ascii_lowercase();
        if !hex.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        match hex.len() {
            64 => Some(Self::Sha256(hex)),
            128 => Some(Self::Sha512(hex)),
            _ => None,
        }
    }

    /// The file in which a download lies until it is whole.
    pub(super) fn part(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.part", self.hex()))
    }

    /// The digits.
    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Sha512(hex) => hex,
        }
    }

    fn of_file(&self, path: &Path) -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        Ok(match self {
            Self::Sha256(_) => {
                let mut hasher = Hashing(sha2::Sha256::new());
                std::io::copy(&mut file, &mut hasher)?;
                hex::encode(hasher.0.finalize())
            }
            Self::Sha512(_) => {
                let mut hasher = Hashing(sha2::Sha512::new());
                std::io::copy(&mut file, &mut hasher)?;
                hex::encode(hasher.0.finalize())
            }
        })
    }
}

impl std::fmt::Display for Checksum {
    /// As it stands in an image's name: `sha256=…`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        };
        write!(f, "{kind}={}", self.hex())
    }
}

struct Hashing<H>(H);

impl<H: sha2::Digest> Write for Hashing<H> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Where it is.
    pub(super) url: String,
    /// What it must be.
    pub(super) checksum: Checksum,
    /// Its size, where the catalogue says it.
    pub(super) size: Option<u64>,
}

/// Speaks to the image servers that the policy of this machine lets it speak to.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    policy: PolicyFile,
    /// [`STRIDE`], but in tests.
    stride: u64,
}

impl Client {
    /// A client that trusts what this machine trusts.
    pub(super) fn new(policy: &PolicyFile) -> Result<Self, DriverError> {
        let follow = policy.clone();
        reqwest::Client::builder()
            // A server that is named may send us on to one that is not.
            .redirect(redirect::Policy::custom(move |attempt| {
                if attempt.previous().len() > REDIRECTS {
                    return attempt.error("it sends us on and on");
                }
                let from = attempt.previous().last();
                if from.is_some_and(|from| leaves_tls(from, attempt.url())) {
                    return attempt.error(InTheClear);
                }
                match follow.check_url("image", attempt.url().as_str()) {
                    Ok(()) => attempt.follow(),
                    Err(refusal) => attempt.error(refusal),
                }
            }))
            .tls_backend_preconfigured(Trust::Roots.client_config(&SystemRoots::default()))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map(|http| Self {
                http,
                policy: policy.clone(),
                stride: STRIDE,
            })
            .map_err(|error| DriverError::failed(format!("cannot use TLS: {}", chain(&error))))
    }

    /// Refuses a server that the policy does not name.
    ///
    /// # Errors
    /// [`DriverError::Policy`].
    pub(super) fn check(&self, url: &str) -> Result<(), DriverError> {
        Ok(self.policy.check_url("image", url)?)
    }

    /// A small file.
    pub(super) async fn text(&self, url: &str) -> Result<Vec<u8>, DriverError> {
        self.check(url)?;
        let get = async {
            let mut response = self.http.get(url).send().await?.error_for_status()?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if bytes.len() + chunk.len() > TEXT_LIMIT {
                    break;
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>(bytes)
        };
        get.await.map_err(|error| unreachable(url, &chain(&error)))
    }

    /// Downloads into `dir`, or goes on with what lies there, and returns the verified file's path. What is not
    /// complete stays for the next call, unless it filled the disk or is more than there should be.
    pub(super) async fn fetch(
        &self,
        remote: &Remote,
        dir: &Path,
        progress: &Progress,
    ) -> Result<PathBuf, DriverError> {
        self.check(&remote.url)?;
        files::make_dir(dir)?;
        let part = remote.checksum.part(dir);
        progress.stage(Stage::Downloading);
        progress.message(remote.url.clone());
        let mut tries = 0;
        loop {
            let before = length(&part);
            match self.go_on(remote, &part, progress).await {
                Ok(()) => break,
                Err(Cut::Local(error)) => return Err(error),
                Err(Cut::TooMuch(error)) => {
                    files::remove(&part)?;
                    return Err(error);
                }
                Err(Cut::Remote(why)) => {
                    tries = if length(&part) > before { 1 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(unreachable(&remote.url, &why));
                    }
                    progress.log(format!("the download was cut off ({why}): going on"));
                    tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                }
            }
        }
        progress.stage(Stage::Verifying);
        let (checksum, path) = (remote.checksum.clone(), part.clone());
        let found = tokio::task::spawn_blocking(move || checksum.of_file(&path))
            .await
            .map_err(|error| DriverError::failed(format!("checking broke off: {error}")))?
            .map_err(|error| files::io_error("read", &part, &error))?;
        if found != remote.checksum.hex() {
            files::remove(&part)?;
            return Err(DriverError::Failed {
                detail: format!(
                    "{} is not what it should be: its checksum is {found}, expected {}",
                    remote.url,
                    remote.checksum.hex()
                ),
                hint: Some(
                    "the file was thrown away; try again, or ask who runs that server".to_owned(),
                ),
                log: Vec::new(),
            });
        }
        Ok(part)
    }

    async fn go_on(&self, remote: &Remote, part: &Path, progress: &Progress) -> Result<(), Cut> {
        let local = |error: &std::io::Error| match files::io_error("write", part, error) {
            full @ DriverError::NoSpace(_) => Cut::TooMuch(full),
            other => Cut::Local(other),
        };
        let have = length(part);
        let mut request = self.http.get(&remote.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().await.map_err(|error| {
            // Where it sends us it will send us again.
            if error.is_redirect() {
                Cut::Local(unreachable(&remote.url, &chain(&error)))
            } else {
                Cut::Remote(chain(&error))
            }
        })?;
        let mut done = match response.status() {
            StatusCode::PARTIAL_CONTENT => have,
            // All of it is here already, or more than there is: the checksum tells.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(()),
            StatusCode::OK => 0,
            status => return Err(Cut::Remote(format!("the server answers {status}"))),
        };
        let total = remote
            .size
            .or_else(|| response.content_length().map(|rest| done + rest));
        let what = format!("download {}", remote.url);
        if let Some(to_come) = total.and_then(|total| total.checked_sub(done)) {
            space::require(part, ByteSize::bytes(to_come), &what).map_err(Cut::Local)?;
        }
        let mut file = if done == 0 {
            files::create(part)
        } else {
            std::fs::OpenOptions::new().append(true).open(part)
        }
        .map_err(|error| local(&error))?;
        let most = total.unwrap_or(LARGEST).min(LARGEST);
        let mut looked_at = None;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Cut::Remote(chain(&error)))?
        {
            done += chunk.len() as u64;
            if done > most {
                return Err(Cut::TooMuch(endless(&remote.url, most)));
            }
            // What was free at the start is not all for us, and without a length nobody asked for it yet.
            if looked_at.is_none_or(|at| done - at >= self.stride) {
                let next = ByteSize::bytes(self.stride);
                space::require(part, next, &what).map_err(Cut::TooMuch)?;
                looked_at = Some(done);
            }
            file.write_all(&chunk).map_err(|error| local(&error))?;
            progress.bytes(ByteSize::bytes(done), total.map(ByteSize::bytes));
        }
        match total {
            Some(total) if done < total => {
                Err(Cut::Remote(format!("{done} of {total} bytes came")))
            }
            _ => file.sync_all().map_err(|error| local(&error)),
        }
    }
}

/// Why a try ended early.
enum Cut {
    /// By the server or the network: worth another try.
    Remote(String),
    /// By this machine.
    Local(DriverError),
    /// By this machine, as there is no room for it: what came is of no use.
    TooMuch(DriverError),
}

/// A server that was reached safely sends us on to where anybody on the way could read and change what comes.
#[derive(Debug, thiserror::Error)]
#[error("it sends us on from https to an address without TLS")]
struct InTheClear;

fn leaves_tls(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() != "https"
}

fn endless(url: &str, most: u64) -> DriverError {
    DriverError::Failed {
        detail: format!(
            "cannot download {url}: the server sends more than {}",
            ByteSize::bytes(most)
        ),
        hint: Some("what came was thrown away; ask who runs that server".to_owned()),
        log: Vec::new(),
    }
}

fn unreachable(url: &str, why: &str) -> DriverError {
    DriverError::Failed {
        detail: format!("cannot download {url}: {why}"),
        hint: Some(
            "check this machine's way to that server; `tiny` and `debian:12` can be made without an image server"
                .to_owned(),
        ),
        log: Vec::new(),
    }
}

/// An error with its causes: reqwest's own text leaves them out.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{body::Body, extract::State, http::HeaderMap, response::Response, routing::get};

    use super::*;

    const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

    /// Serves [`CONTENT`]; the first `cuts` answers break off after ten bytes.
    async fn server(cuts: usize) -> (String, Arc<AtomicUsize>, tokio::task::JoinSet<()>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let state = (Arc::clone(&asked), cuts);
        let app = axum::Router::new()
            .route("/image", get(serve))
            .with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (url, asked, tasks)
    }

    async fn serve(
        State((asked, cuts)): State<(Arc<AtomicUsize>, usize)>,
        headers: HeaderMap,
    ) -> Response {
        let n = asked.fetch_add(1, Ordering::SeqCst);
        let from = headers
            .get(header::RANGE)
            .and_then(|range| range.to_str().ok())
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .unwrap_or(0_usize);
        let rest = &CONTENT[from..];
        let response = Response::builder()
            .status(if from > 0 { 206 } else { 200 })
            .header(header::CONTENT_LENGTH, rest.len());
        let body = if n < cuts {
            let first = Ok(bytes::Bytes::copy_from_slice(&rest[..10]));
            let cut = Err(std::io::Error::other("cut"));
            Body::from_stream(futures_util::stream::iter([first, cut]))
        } else {
            Body::from(rest)
        };
        response.body(body).unwrap()
    }

    fn remote(url: String, content: &[u8]) -> Remote {
        Remote {
            url,
            checksum: Checksum::Sha256(hex::encode(sha2::Sha256::digest(content))),
            size: None,
        }
    }

    #[tokio::test]
    async fn a_download_that_is_cut_goes_on_where_it_was() {
        let (url, asked, _tasks) = server(2).await;
        let dir = tempfile::tempdir().unwrap();
        let path = Client::new(&PolicyFile::default())
            .unwrap()
            .fetch(&remote(url, CONTENT), dir.path(), &Progress::ignored())
            .await
            .unwrap();
        assert_eq!(std::fs::read(path).unwrap(), CONTENT);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    /// Serves bytes without end and without a length.
    async fn endless_server() -> (String, tokio::task::JoinSet<()>) {
        let send = async || {
            let piece = bytes::Bytes::from_static(&[7; 4096]);
            Body::from_stream(futures_util::stream::repeat_with(move || {
                Ok::<_, std::convert::Infallible>(piece.clone())
            }))
        };
        let app = axum::Router::new().route("/image", get(send));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (url, tasks)
    }

    #[tokio::test]
    async fn what_a_server_sends_without_end_ends_and_leaves_nothing() {
        let (url, _tasks) = endless_server().await;
        let dir = tempfile::tempdir().unwrap();
        let fetch = async |stride, size| {
            let mut client = Client::new(&PolicyFile::default()).unwrap();
            client.stride = stride;
            let remote = Remote {
                size,
                ..remote(url.clone(), CONTENT)
            };
            let progress = Progress::ignored();
            let fetched = client.fetch(&remote, dir.path(), &progress);
            let fetched = tokio::time::timeout(SILENCE, fetched).await;
            let error = fetched.expect("it ends").unwrap_err();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{error}");
            error
        };
        let longer = fetch(STRIDE, Some(100_000)).await;
        assert!(longer.to_string().contains("sends more"), "{longer}");
        // No disk has room for this much more: as one that is nearly full.
        let full = fetch(LARGEST * 1024, None).await;
        assert!(matches!(full, DriverError::NoSpace(_)), "{full}");
    }

    #[tokio::test]
    async fn a_wrong_checksum_is_an_error_and_nothing_is_kept() {
        let (url, _, _tasks) = server(0).await;
        let dir = tempfile::tempdir().unwrap();
        let error = Client::new(&PolicyFile::default())
            .unwrap()
            .fetch(&remote(url, b"other"), dir.path(), &Progress::ignored())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let url = "http://127.0.0.1:1/image".to_owned();
        let dir = tempfile::tempdir().unwrap();
        let error = Client::new(&PolicyFile::default())
            .unwrap()
            .fetch(&remote(url, CONTENT), dir.path(), &Progress::ignored())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_named_cannot_send_us_to_one_that_is_not() {
        use batwa_api::policy::{ImageSources, Policy};
        let (url, asked, _tasks) = server(0).await;
        // The same server by a name that the policy does not have.
        let elsewhere = url.replace("127.0.0.1", "localhost");
        let app = axum::Router::new().route(
            "/image",
            get(move || async move { axum::response::Redirect::temporary(&elsewhere) }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = format!("http://{}/image", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let fetch = async |hosts: Option<Vec<String>>, url: &str| {
            let policy = PolicyFile::fixed(Policy {
                images: ImageSources {
                    hosts,
                    files: Vec::new(),
                },
                ..Policy::default()
            });
            let dir = tempfile::tempdir().unwrap();
            Client::new(&policy)
                .unwrap()
                .fetch(
                    &remote(url.to_owned(), CONTENT),
                    dir.path(),
                    &Progress::ignored(),
                )
                .await
        };
        let named = || Some(vec!["127.0.0.1".to_owned()]);
        let refused = fetch(named(), &from).await.unwrap_err();
        assert!(
            refused.to_string().contains("come from `localhost`"),
            "{refused}"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        let other = fetch(Some(Vec::new()), &url).await.unwrap_err();
        assert!(matches!(other, DriverError::Policy(_)), "{other}");
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        fetch(named(), &url).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn no_server_sends_us_on_from_https_to_what_others_can_change() {
        let (safe, clear) = (
            "https://a/b".parse().unwrap(),
            "http://a/b".parse().unwrap(),
        );
        assert!(leaves_tls(&safe, &clear));
        for (from, to) in [(&safe, &safe), (&clear, &safe), (&clear, &clear)] {
            assert!(!leaves_tls(from, to), "{from} {to}");
        }
    }

    #[test]
    fn checksums_are_known_by_their_length() {
        assert!(
            matches!(Checksum::parse(&"A".repeat(64)), Some(Checksum::Sha256(hex)) if hex == "a".repeat(64))
        );
        assert!(matches!(
            Checksum::parse(&"0".repeat(128)),
            Some(Checksum::Sha512(_))
        ));
        assert_eq!(Checksum::parse("abc"), None);
        assert_eq!(Checksum::parse(&"g".repeat(64)), None);
    }
}
