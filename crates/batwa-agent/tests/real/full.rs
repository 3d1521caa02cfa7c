//! A disk that is full in the middle of something: a clear error, nothing broken, and it works once there is room.

use std::{path::Path, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use batwa_agent::driver::{
    Driver, DriverError, Progress, ProgressUpdate, StopMode, Upload,
    qemu::{ImageServers, QemuDriver, QemuOptions},
};
use batwa_api::{
    image::{AddImage, ImageName},
    name::SnapshotName,
    operation::Stage,
    size::ByteSize,
};
use sha2::Digest;

use crate::{
    lab::{Lab, end_vms, obstacle, tiny, vm, within},
    lab_or_skip,
    small_disk::{self, SmallDisk},
};

const MIB: u64 = 1 << 20;
/// One page: enough for a record, and for nothing else.
const ALMOST_NOTHING: u64 = 4 << 10;

impl SmallDisk {
    /// A progress that leaves almost nothing as soon as `what` comes.
    fn full_at(&self, what: impl Fn(&ProgressUpdate) -> bool + Send + Sync + 'static) -> Progress {
        let disk = self.clone();
        Progress::new(move |update| {
            if what(&update) {
                disk.leave(ALMOST_NOTHING);
            }
        })
    }

    fn full_at_stage(&self, stage: Stage) -> Progress {
        self.full_at(move |update| *update == ProgressUpdate::Stage(stage))
    }
}

/// Runs a test with a small file system, on which no VM runs when it is taken away.
async fn with_small_disk(mib: u64, test: impl AsyncFnOnce(SmallDisk)) {
    small_disk::with_small_disk(mib, test, |root| end_vms(&root.join("qemu"))).await;
}

/// The error says that the disk is full, and how much is free.
fn assert_full<T: std::fmt::Debug>(result: Result<T, DriverError>) {
    let text = result.unwrap_err().to_string();
    let said = text.contains("the disk is full: ") && text.ends_with(" free");
    assert!(said, "{text}");
}

/// The error was there before anything was begun, with what is needed and what there is.
fn assert_refused<T: std::fmt::Debug>(result: Result<T, DriverError>) {
    let text = result.unwrap_err().to_string();
    let said = text.contains("of disk space in ") && text.ends_with(" are free");
    assert!(said, "{text}");
}

fn folders(lab: &Lab) -> Vec<String> {
    std::fs::read_dir(lab.state().join("vms"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_full_disk_breaks_neither_create_nor_snapshot_nor_clone() {
    // The image is made where there is room.
    let lab = lab_or_skip!();
    lab.create("first", tiny()).await.unwrap();
    drop(lab);
    with_small_disk(600, async |disk| {
        let lab = Lab::under(&disk.0);
        let (name, quiet) = (vm("web"), Progress::ignored());

        disk.leave(40 * MIB);
        assert_refused(lab.driver().check(&name, &tiny()).await);
        disk.leave(400 * MIB);
        let progress = disk.full_at_stage(Stage::Preparing);
        let spec = tiny();
        assert_full(within(lab.driver().create(&name, &spec, &progress)).await);
        assert!(folders(&lab).is_empty(), "{:?}", folders(&lab));
        disk.leave(400 * MIB);
        lab.create("web", tiny()).await.unwrap();
        let stop = lab.driver().stop(&name, StopMode::Graceful, &quiet);
        within(stop).await.unwrap();

        let one = SnapshotName::parse_new("one").unwrap();
        disk.leave(40 * MIB);
        assert_refused(lab.driver().snapshot(&name, &one, "", &quiet).await);
        disk.leave(200 * MIB);
        let progress = disk.full_at_stage(Stage::TakingSnapshot);
        assert_full(within(lab.driver().snapshot(&name, &one, "", &progress)).await);
        assert!(lab.inspect("web").await.snapshots.is_empty());
        disk.leave(400 * MIB);
        within(lab.driver().snapshot(&name, &one, "", &quiet))
            .await
            .unwrap();

        let twin = vm("twin");
        disk.leave(70 * MIB);
        assert_refused(lab.driver().clone_vm(&name, &twin, None, &quiet).await);
        disk.leave(300 * MIB);
        let progress = disk.full_at_stage(Stage::Cloning);
        assert_full(within(lab.driver().clone_vm(&name, &twin, None, &progress)).await);
        assert_eq!(folders(&lab), ["web"]);
        disk.leave(300 * MIB);
        within(lab.driver().clone_vm(&name, &twin, Some(&one), &quiet))
            .await
            .unwrap();

        // The first one is as it was.
        within(lab.driver().start(&name, &quiet)).await.unwrap();
        within(lab.driver().purge(&name, &quiet)).await.unwrap();
    })
    .await;
}

const IMAGE: usize = 30 << 20;

/// Serves one image in Debian's place.
async fn serve(State(image): State<Arc<Vec<u8>>>, headers: HeaderMap) -> Response {
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    match from {
        Some(from) => (StatusCode::PARTIAL_CONTENT, image[from..].to_vec()).into_response(),
        None => image.to_vec().into_response(),
    }
}

#[tokio::test]
async fn a_full_disk_does_not_spoil_an_image_that_is_being_downloaded() {
    if let Some(why) = obstacle() {
        println!("SKIPPED: {why}");
        return;
    }
    let image: Arc<Vec<u8>> = Arc::new((0..IMAGE).map(|at| (at >> 12) as u8).collect());
    let file = "debian-12-genericcloud-amd64.qcow2";
    let sums = format!("{}  {file}\n", hex::encode(sha2::Sha512::digest(&*image)));
    let app = axum::Router::new()
        .route("/SHA512SUMS", get(async move || sums.clone()))
        .route(&format!("/{file}"), get(serve))
        .with_state(image);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let _ = rustls::crypto::ring::default_provider().install_default();

    with_small_disk(300, async |disk| {
        let options = QemuOptions {
            image_servers: ImageServers {
                ubuntu: "http://127.0.0.1:9/".to_owned(),
                debian: url,
            },
            ..QemuOptions::default()
        };
        let driver = QemuDriver::open_with(&disk.0, options).unwrap();
        let mut spec = tiny();
        spec.image = "debian:12".to_owned();
        spec.disk = ByteSize::gib(2);
        let name = vm("web");

        disk.leave(80 * MIB);
        let quiet = Progress::ignored();
        assert_refused(within(driver.create(&name, &spec, &quiet)).await);
        let keeper = driver.image_keeper().unwrap();
        let image = ImageName::parse("debian:12").unwrap();
        assert_refused(within(keeper.pull(&image, &quiet)).await);
        let upload = Upload {
            size: ByteSize::mib(20),
            part: None,
            content: Box::pin(futures_util::stream::empty()),
        };
        assert_refused(within(keeper.upload(&own_image(), upload)).await);
        disk.leave(150 * MIB);
        let progress = disk.full_at(|update| matches!(update, ProgressUpdate::Bytes { .. }));
        assert_full(within(keeper.pull(&image, &progress)).await);
        assert!(is_empty(&disk.0.join("qemu/images/store")));
        disk.leave(150 * MIB);
        let progress = disk.full_at(|update| matches!(update, ProgressUpdate::Bytes { .. }));
        assert_full(within(driver.create(&name, &spec, &progress)).await);
        assert!(driver.observe().await.unwrap().is_empty());

        disk.leave(150 * MIB);
        let (ready, mut wait) = tokio::sync::mpsc::channel(64);
        let progress = Progress::new(move |update| {
            if update == ProgressUpdate::Stage(Stage::Preparing) {
                let _ = ready.try_send(());
            }
        });
        {
            let create = driver.create(&name, &spec, &progress);
            tokio::select! {
                ended = within(create) => panic!("what is no image boots: {ended:?}"),
                _ = wait.recv() => {}
            }
        }
        let images = driver.images().await.unwrap();
        assert!(
            images
                .iter()
                .any(|image| image.name == "debian:12" && image.cached)
        );
        within(driver.purge(&name, &quiet)).await.unwrap();
        assert!(is_empty(&disk.0.join("qemu/images/work")));
    })
    .await;
}

fn own_image() -> AddImage {
    AddImage {
        name: ImageName::parse_new("mine").unwrap(),
        aliases: Vec::new(),
        title: None,
        user: None,
        driver: None,
        url: None,
        sha256: None,
        file: None,
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}
