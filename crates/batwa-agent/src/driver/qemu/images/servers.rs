//! The servers on which images are looked up, and what was last heard of them.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    super::vms::lock,
    debian,
    download::{Checksum, Client, Remote},
    simplestreams::{self, Release},
};

/// How old a catalogue may be before it is asked for anew.
const CATALOGUE_AGE: Duration = Duration::from_secs(3600);
/// When a server that did not answer is asked again.
const RETRY_AGE: Duration = Duration::from_secs(60);
/// How long a list waits for a catalogue.
pub(super) const LIST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the check of a name waits for it.
pub(super) const CHECK_PATIENCE: Duration = Duration::from_secs(5);

/// Servers that images are looked up on; addresses end with a slash.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Ubuntu's, with its simplestreams catalogue.
    pub ubuntu: String,
    /// The folder of Debian's images.
    pub debian: String,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            ubuntu: "https://cloud-images.ubuntu.com/releases/".to_owned(),
            debian: "https://cloud.debian.org/images/cloud/bookworm/latest/".to_owned(),
        }
    }
}

/// What the servers offer.
pub(super) struct Offers {
    servers: Servers,
    client: Client,
    last: Mutex<Last>,
}

/// What was last heard of Ubuntu's releases.
#[derive(Default)]
struct Last {
    asked: Option<Instant>,
    releases: Option<Vec<Release>>,
}

impl Offers {
    /// Asks nothing yet.
    pub(super) fn new(servers: Servers, client: Client) -> Self {
        Self {
            servers,
            client,
            last: Mutex::default(),
        }
    }

    /// The server that has Ubuntu's images.
    pub(super) fn ubuntu(&self) -> &str {
        &self.servers.ubuntu
    }

    /// Ubuntu's releases: those last heard of, or heard of now, or known without a server.
    pub(super) async fn releases(&self, patience: Duration) -> Vec<Release> {
        let asked = {
            let last = lock(&self.last);
            last.asked.is_some_and(|at| {
                at.elapsed()
                    < if last.releases.is_some() {
                        CATALOGUE_AGE
                    } else {
                        RETRY_AGE
                    }
            })
        };
        if !asked {
            let url = format!("{}{}", self.servers.ubuntu, simplestreams::INDEX);
            let answer = tokio::time::timeout(patience, self.client.text(&url)).await;
            let found = answer.ok().and_then(Result::ok).and_then(|json| {
                simplestreams::releases(&json, debian_arch(), &self.servers.ubuntu).ok()
            });
            let mut last = lock(&self.last);
            last.asked = Some(Instant::now());
            last.releases = found.or(last.releases.take());
        }
        self.known_releases()
    }

    /// Ubuntu's releases as far as they are known without asking.
    pub(super) fn known_releases(&self) -> Vec<Release> {
        lock(&self.last).releases.clone().unwrap_or_else(|| {
            // Named though their server was not heard: it may be, by the time they are wanted.
            [("24.04", "noble"), ("22.04", "jammy")]
                .map(|(version, codename)| Release {
                    version: version.to_owned(),
                    codename: codename.to_owned(),
                    title: format!("{version} LTS"),
                    serial: String::new(),
                    remote: Remote {
                        url: String::new(),
                        checksum: Checksum::Sha256(String::new()),
                        size: None,
                    },
                })
                .to_vec()
        })
    }

    /// Whether Ubuntu's server has been heard.
    pub(super) fn is_online(&self) -> bool {
        lock(&self.last).releases.is_some()
    }

    /// Debian's image, where its server answers.
    pub(super) async fn debian(&self) -> Option<Remote> {
        let url = format!("{}SHA512SUMS", self.servers.debian);
        let sums = tokio::time::timeout(CHECK_PATIENCE, self.client.text(&url)).await;
        let sums = String::from_utf8(sums.ok()?.ok()?).ok()?;
        debian::remote(&sums, &self.servers.debian, debian_arch())
    }
}

/// This machine's architecture in Debian's and Ubuntu's words.
fn debian_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
