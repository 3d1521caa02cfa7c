//! The images that Multipass lists, kept for an hour and refreshed in the background.
//!
//! Nobody waits for an image server twice: while an old list is there it is given, and a new one fetched beside.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use batwa_api::image::Image;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    call::Call,
    daemon::Daemon,
    output::{self, native_image},
};
use crate::driver::DriverError;

/// How long a list is taken as new.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// How long after a failure the next attempt is made.
const RETRY: Duration = Duration::from_secs(30);

/// The remotes that Multipass has, which hold more than it lists.
const REMOTES: [&str; 6] = ["", "release", "daily", "core", "snapcraft", "appliance"];

/// The list and who fetches it.
pub(super) struct Catalogue {
    daemon: Arc<Daemon>,
    wait: Duration,
    last: watch::Sender<Last>,
    /// At most one fetch; ends with the driver.
    fetch: Mutex<JoinSet<()>>,
}

#[derive(Clone, Default)]
struct Last {
    images: Option<Arc<[Image]>>,
    /// When the last fetch ended, and how it failed if it did.
    tried: Option<(Instant, Option<DriverError>)>,
}

impl Catalogue {
    /// Nothing is fetched before somebody asks; a first caller waits no longer than `wait`.
    pub(super) fn new(daemon: Arc<Daemon>, wait: Duration) -> Self {
        Self {
            daemon,
            wait,
            last: watch::Sender::default(),
            fetch: Mutex::default(),
        }
    }

    /// What can be launched.
    ///
    /// # Errors
    /// How the last fetch failed, while there has been none that did not.
    pub(super) async fn images(&self) -> Result<Vec<Image>, DriverError> {
        let mut last = self.last.subscribe();
        let now = last.borrow_and_update().clone();
        let age = now.tried.as_ref().map(|(at, _)| at.elapsed());
        let due = match &now.tried {
            Some((_, Some(_))) => age >= Some(RETRY),
            _ => age.is_none_or(|age| age >= FRESH),
        };
        if due {
            self.refresh();
        }
        match (now.images, now.tried) {
            (Some(images), _) => Ok(images.to_vec()),
            (None, Some((_, Some(error)))) if !due => Err(error),
            (None, _) => match timeout(self.wait, last.changed()).await {
                Ok(Ok(())) => {
                    let now = last.borrow().clone();
                    match (now.images, now.tried) {
                        (Some(images), _) => Ok(images.to_vec()),
                        (None, Some((_, Some(error)))) => Err(error),
                        (None, _) => Ok(Vec::new()),
                    }
                }
                Ok(Err(_)) | Err(_) => Err(DriverError::Timeout(
                    "Multipass is still looking up its images".to_owned(),
                )),
            },
        }
    }

    /// Why `image`, as Multipass names it, surely cannot be launched. What looks like a version, or names a
    /// remote, may exist although Multipass does not list it.
    pub(super) fn refusal(&self, image: &str) -> Option<String> {
        let last = self.last.borrow();
        let images = last.images.as_ref().filter(|images| !images.is_empty())?;
        let listed = images
            .iter()
            .flat_map(|known| known.aliases.iter().chain([&known.name]))
            .any(|name| native_image(name) == image);
        let may_exist = match image.split_once(':') {
            Some((remote, _)) => REMOTES.contains(&remote),
            None => image.starts_with(|c: char| c.is_ascii_digit()),
        };
        (!listed && !may_exist).then(|| {
            format!("Multipass lists no image `{image}`: see the list of images, or name a version such as `24.04`")
        })
    }

    fn refresh(&self) {
        let mut fetch = self.fetch.lock().unwrap_or_else(PoisonError::into_inner);
        while fetch.try_join_next().is_some() {}
        if !fetch.is_empty() {
            return;
        }
        let (daemon, last) = (Arc::clone(&self.daemon), self.last.clone());
        fetch.spawn(async move {
            let found = match daemon.ask(&Call::Find).await {
                Ok(stdout) => {
                    output::find(&stdout).map_err(|error| DriverError::failed(error.to_string()))
                }
                Err(error) => Err(error),
            };
            last.send_modify(|last| match found {
                Ok(images) => {
                    *last = Last {
                        images: Some(images.into()),
                        tried: Some((Instant::now(), None)),
                    };
                }
                Err(error) => last.tried = Some((Instant::now(), Some(error))),
            });
        });
    }
}
