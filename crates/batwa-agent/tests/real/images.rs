//! Images of one's own with the qemu driver: from a server that breaks off, from here, from a file; kept within a limit,
//! and booted.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::Response,
    routing::get,
};
use batwa_agent::{
    driver::{
        Driver, DriverError, ImageKeeper, Part, Progress, ProgressUpdate, Upload,
        command::Command,
        qemu::{ImageServers, QemuDriver, QemuOptions},
    },
    policy::PolicyFile,
};
use batwa_api::{
    file::UploadId,
    image::{AddImage, Image, ImageName, ImageSource},
    operation::{OperationState, Stage},
    policy::{ImageSources, Policy},
    size::ByteSize,
    vm::VmSpec,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    agent::AgentProcess,
    lab::{end_vms, obstacle, tiny, vm, within},
};

const MIB: usize = 1 << 20;
/// What the boot sector of [`bootable`] says on the serial port.
const SAYS: &str = "batwa: own image boots";

/// A raw disk whose boot sector says [`SAYS`] on the serial port and halts.
fn bootable(size: usize) -> Vec<u8> {
    #[rustfmt::skip]
    let mut disk = vec![
        0xfa,                   // cli
        0x31, 0xc0,             // xor ax, ax
        0x8e, 0xd8,             // mov ds, ax
        0xfc,                   // cld
        0xbe, 0x1f, 0x7c,       // mov si, text
        0xba, 0xfd, 0x03,       // wait: mov dx, 0x3fd
        0xec,                   // in al, dx
        0xa8, 0x20,             // test al, 0x20
        0x74, 0xf8,             // jz wait
        0xac,                   // lodsb
        0x84, 0xc0,             // test al, al
        0x74, 0x06,             // jz halt
        0xba, 0xf8, 0x03,       // mov dx, 0x3f8
        0xee,                   // out dx, al
        0xeb, 0xed,             // jmp wait
        0xf4,                   // halt: hlt
        0xeb, 0xfd,             // jmp halt
    ];
    assert_eq!(disk.len(), 0x1f);
    disk.extend_from_slice(SAYS.as_bytes());
    disk.extend_from_slice(b"\r\n\0");
    disk.resize(510, 0);
    disk.extend_from_slice(&[0x55, 0xaa]);
    disk.extend((disk.len()..size).map(|at| (at >> 9) as u8));
    disk
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// A server of one image.
struct Server {
    url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    content: Vec<u8>,
    /// Where each answer began.
    asked: Mutex<Vec<usize>>,
    /// How many answers break off in the middle.
    cuts: usize,
    /// Whether answers go on after their first half.
    open: watch::Sender<bool>,
}

impl Server {
    async fn start(content: Vec<u8>, cuts: usize) -> Self {
        let shared = Arc::new(Shared {
            content,
            asked: Mutex::default(),
            cuts,
            open: watch::Sender::new(true),
        });
        let app = axum::Router::new()
            .route("/image", get(serve))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url,
            shared,
            _tasks: tasks,
        }
    }

    fn asked(&self) -> Vec<usize> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let range = headers.get(header::RANGE).and_then(|range| {
        let range = range.to_str().ok()?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse::<usize>().ok()
    });
    let from = range.unwrap_or(0);
    let cut = {
        let mut asked = shared.asked.lock().unwrap();
        asked.push(from);
        asked.len() <= shared.cuts
    };
    let rest = Bytes::copy_from_slice(&shared.content[from..]);
    let length = rest.len();
    let (first, second) = (rest.slice(..length / 2), rest.slice(length / 2..));
    let mut open = shared.open.subscribe();
    let second = stream::once(async move {
        let _ = open.wait_for(|open| *open).await;
        if cut {
            return Err(std::io::Error::other("cut"));
        }
        Ok(second)
    });
    let body = stream::once(async move { Ok(first) }).chain(second);
    Response::builder()
        .status(if from > 0 { 206 } else { 200 })
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_stream(body))
        .unwrap()
}

/// A driver on a folder of its own, whose VMs end with it.
struct Place {
    dir: tempfile::TempDir,
    driver: Option<QemuDriver>,
}

impl Place {
    fn new(change: impl FnOnce(&mut QemuOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = QemuOptions {
            image_servers: ImageServers {
                ubuntu: "http://127.0.0.1:9/".to_owned(),
                debian: "http://127.0.0.1:9/".to_owned(),
            },
            ..QemuOptions::default()
        };
        change(&mut options);
        let driver = QemuDriver::open_with(dir.path(), options).unwrap();
        Self {
            dir,
            driver: Some(driver),
        }
    }

    /// The driver ends, and another one comes.
    fn reopen(&mut self) {
        self.driver = None;
        self.driver = Some(QemuDriver::open(self.dir.path()).unwrap());
    }

    fn driver(&self) -> &QemuDriver {
        self.driver.as_ref().unwrap()
    }

    fn keeper(&self) -> &dyn ImageKeeper {
        self.driver().image_keeper().unwrap()
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("qemu/images")
    }

    async fn image(&self, name: &str) -> Option<Image> {
        let images = within(self.driver().images()).await.unwrap();
        images.into_iter().find(|image| image.name == name)
    }

    /// Lays a VM on an image, and leaves it as a cut-off create would.
    async fn lay(&self, name: &str, image: &str) {
        let spec = VmSpec {
            image: image.to_owned(),
            ..tiny()
        };
        let (entered, mut wait) = watch::channel(false);
        let progress = Progress::new(move |update| {
            if update == ProgressUpdate::Stage(Stage::Booting) {
                entered.send_replace(true);
            }
        });
        let name = vm(name);
        tokio::select! {
            ended = within(self.driver().create(&name, &spec, &progress)) => {
                panic!("what has no SSH is ready: {ended:?}");
            }
            _ = wait.wait_for(|entered| *entered) => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.driver = None;
        end_vms(&self.dir.path().join("qemu"));
    }
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn own(text: &str) -> AddImage {
    AddImage {
        name: name(text),
        aliases: Vec::new(),
        title: None,
        user: None,
        driver: None,
        url: None,
        sha256: None,
        file: None,
    }
}

fn from_server(text: &str, server: &Server) -> AddImage {
    AddImage {
        url: Some(server.url.clone()),
        sha256: Some(sha256(&server.shared.content)),
        ..own(text)
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

macro_rules! or_skip {
    () => {
        if let Some(why) = obstacle() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

#[tokio::test]
async fn an_image_from_a_server_that_breaks_off_is_pulled_and_boots() {
    or_skip!();
    let server = Server::start(bootable(2 * MIB), 1).await;
    let place = Place::new(|_| ());
    let added = place.keeper().add(&from_server("mine", &server)).await;
    let added = added.unwrap();
    assert!(added.own && !added.cached && added.source == ImageSource::Url);

    let most = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&most);
    let progress = Progress::new(move |update| {
        if let ProgressUpdate::Bytes { done, total } = update {
            assert_eq!(total, Some(ByteSize::mib(2)));
            *seen.lock().unwrap() = done.as_u64();
        }
    });
    within(place.keeper().pull(&name("mine"), &progress))
        .await
        .unwrap();
    assert_eq!(*most.lock().unwrap(), 2 << 20);
    assert_eq!(server.asked(), [0, MIB], "it went on where it was cut");
    let image = place.image("mine").await.unwrap();
    assert!(image.cached && image.size_on_disk >= Some(ByteSize::mib(2)));
    assert!(image.last_used_at.is_some() && image.used_by.is_empty());
    // Here is here: nobody is asked again.
    within(place.keeper().pull(&name("mine"), &Progress::ignored()))
        .await
        .unwrap();
    assert_eq!(server.asked().len(), 2);

    place.lay("web", "mine").await;
    let console = place.dir.path().join("qemu/vms/web/console.log");
    let said = async {
        loop {
            let log = std::fs::read(&console).unwrap_or_default();
            if String::from_utf8_lossy(&log).contains(SAYS) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    within(said).await;

    let image = place.image("mine").await.unwrap();
    assert_eq!(image.used_by, [vm("web")]);
    let refused = place.keeper().remove(&name("mine")).await.unwrap_err();
    assert!(
        refused.to_string().contains("VM `web` uses it"),
        "{refused}"
    );
    within(place.driver().purge(&vm("web"), &Progress::ignored()))
        .await
        .unwrap();
    place.keeper().remove(&name("mine")).await.unwrap();
    assert_eq!(place.image("mine").await, None);
    assert_eq!(entries(&place.images().join("store")), [""; 0]);
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_refused_and_nothing_of_it_stays() {
    or_skip!();
    let server = Server::start(bootable(MIB), 0).await;
    let place = Place::new(|_| ());
    let wrong = AddImage {
        sha256: Some(sha256(b"another")),
        ..from_server("mine", &server)
    };
    place.keeper().add(&wrong).await.unwrap();
    let refused = within(place.keeper().pull(&name("mine"), &Progress::ignored()))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("checksum"), "{refused}");
    assert!(!place.image("mine").await.unwrap().cached);
    for folder in ["store", "downloads", "work"] {
        assert_eq!(entries(&place.images().join(folder)), [""; 0], "{folder}");
    }
}

#[tokio::test]
async fn over_the_limit_the_longest_unused_goes_but_never_what_a_vm_lies_on() {
    or_skip!();
    let place = Place::new(|options| options.cache_limit = Some(ByteSize::mib(5)));
    let mut servers = Vec::new();
    for text in ["a", "b", "c"] {
        let mut disk = bootable(2 * MIB);
        disk.extend_from_slice(text.as_bytes());
        let server = Server::start(disk, 0).await;
        let image = from_server(text, &server);
        place.keeper().add(&image).await.unwrap();
        within(place.keeper().pull(&image.name, &Progress::ignored()))
            .await
            .unwrap();
        if text == "a" {
            place.lay("web", "a").await;
        }
        servers.push(server);
    }
    let mut here = Vec::new();
    for text in ["a", "b", "c"] {
        here.push(place.image(text).await.unwrap().cached);
    }
    assert_eq!(here, [true, false, true]);
    // What went is fetched again when it is wanted.
    within(place.keeper().pull(&name("b"), &Progress::ignored()))
        .await
        .unwrap();
    assert!(place.image("b").await.unwrap().cached);
    assert!(!place.image("c").await.unwrap().cached);
    let store = place.keeper().store().await;
    assert_eq!(store.limit, Some(ByteSize::mib(5)));
    assert!(store.used.unwrap() <= ByteSize::mib(5));
}

/// What comes in one piece, announced with its true size.
fn whole(content: Vec<u8>) -> Upload {
    Upload {
        size: ByteSize::bytes(content.len() as u64),
        part: None,
        content: Box::pin(stream::once(async move { Ok(Bytes::from(content)) })),
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_or_dangerous_leaves_nothing_and_a_good_one_stays() {
    or_skip!();
    let mut place = Place::new(|options| options.cache_limit = Some(ByteSize::mib(1)));
    let content = bootable(3 * MIB);
    let first = Bytes::copy_from_slice(&content[..MIB]);
    let cut = Upload {
        size: ByteSize::mib(3),
        part: None,
        content: Box::pin(stream::iter([
            Ok(first.clone()),
            Err(std::io::Error::other("the line is dead")),
        ])),
    };
    let short = Upload {
        size: ByteSize::mib(3),
        part: None,
        content: Box::pin(stream::iter([Ok(first.clone())])),
    };
    let long = Upload {
        size: ByteSize::bytes(1),
        part: None,
        content: Box::pin(stream::iter([Ok(first)])),
    };
    // A qcow2 file that would have its VM read another file of this machine.
    let secret = place.dir.path().join("secret.img");
    let layer = place.dir.path().join("layer.qcow2");
    std::fs::write(&secret, vec![7; MIB]).unwrap();
    Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&secret)
        .arg(&layer)
        .run()
        .await
        .unwrap();
    let spy = whole(std::fs::read(&layer).unwrap());
    for (upload, why) in [
        (cut, "the line is dead"),
        (short, "2M missing"),
        (long, "more came"),
        (spy, "refers to another file"),
    ] {
        let refused = place.keeper().upload(&own("mine"), upload).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        for folder in ["store", "work"] {
            assert_eq!(entries(&place.images().join(folder)), [""; 0], "{why}");
        }
        assert_eq!(place.image("mine").await, None);
    }
    let mine = AddImage {
        sha256: Some(sha256(&content)),
        ..own("mine")
    };
    let image = place.keeper().upload(&mine, whole(content.clone())).await;
    assert!(image.unwrap().cached);
    let taken = place.keeper().upload(&own("mine"), whole(content)).await;
    assert!(matches!(taken, Err(DriverError::ImageTaken(_))));
    // It is nowhere else, so no limit takes it; and it is there after a restart.
    place.reopen();
    let image = place.image("mine").await.unwrap();
    assert!(image.cached && image.source == ImageSource::Upload);
    // A list that cannot be read takes no upload with it.
    let list = place.images().join("own.json");
    let whole = std::fs::read(&list).unwrap();
    for broken in [&b"[{"[..], b"", b"[{\"name\": 1}]"] {
        std::fs::write(&list, broken).unwrap();
        for _ in 0..2 {
            place.reopen();
            let kept = place.image("mine").await.expect("the upload");
            assert!(!kept.own && kept.size_on_disk.is_some(), "{kept:?}");
        }
    }
    std::fs::write(&list, whole).unwrap();
    std::fs::remove_file(place.images().join("own.json.unreadable")).unwrap();
    place.reopen();
    assert!(place.image("mine").await.unwrap().cached);
    place.keeper().remove(&name("mine")).await.unwrap();
    assert_eq!(entries(&place.images().join("store")), [""; 0]);
}

#[tokio::test]
async fn an_upload_with_a_name_is_gone_on_with_also_after_a_restart_and_kept_apart_until_it_is_whole()
 {
    or_skip!();
    let mut place = Place::new(|_| ());
    let content = bootable(3 * MIB);
    let id = UploadId::random();
    let from = |offset: usize, end: usize, cut: bool| {
        let piece = Bytes::copy_from_slice(&content[offset..end]);
        let death = cut.then(|| Err(std::io::Error::other("the line is dead")));
        Upload {
            size: ByteSize::mib(3),
            part: Some(Part {
                id: id.clone(),
                offset: offset as u64,
            }),
            content: Box::pin(stream::iter([Ok(piece)].into_iter().chain(death))),
        }
    };
    let mine = AddImage {
        sha256: Some(sha256(&content)),
        ..own("mine")
    };
    let cut = place.keeper().upload(&mine, from(0, MIB, true)).await;
    let cut = cut.unwrap_err().to_string();
    assert!(cut.contains("1048576 bytes are kept"), "{cut}");
    place.reopen();
    assert_eq!(place.keeper().held(&id).await.unwrap(), MIB as u64);
    assert_eq!(place.image("mine").await, None);

    // Over a gap it does not go on; what was sent twice counts once.
    let gap = place
        .keeper()
        .upload(&mine, from(2 * MIB, 3 * MIB, false))
        .await;
    assert!(matches!(gap, Err(DriverError::IllegalState(_))), "{gap:?}");
    let piece = place
        .keeper()
        .upload(&mine, from(MIB / 2, 2 * MIB, false))
        .await;
    let piece = piece.unwrap_err().to_string();
    assert!(
        piece.contains("2097152 of 3145728 bytes are there"),
        "{piece}"
    );
    let end = from(2 * MIB, 3 * MIB, false);
    let image = place.keeper().upload(&mine, end).await.unwrap();
    assert!(image.cached, "{image:?}");
    assert_eq!(place.keeper().held(&id).await.unwrap(), 0);
    assert_eq!(entries(&place.images().join("downloads")), [""; 0]);

    // What is another than was announced goes, however it came.
    let wrong = AddImage {
        sha256: Some(sha256(b"another")),
        ..own("other")
    };
    let refused = place.keeper().upload(&wrong, from(0, 3 * MIB, false)).await;
    assert!(
        matches!(
            refused,
            Err(DriverError::Invalid {
                field: "sha256",
                ..
            })
        ),
        "{refused:?}"
    );
    for folder in ["downloads", "work"] {
        assert_eq!(entries(&place.images().join(folder)), [""; 0], "{folder}");
    }
    // Those that nobody goes on with do not heap up.
    for n in 0..12 {
        let part = Part {
            id: UploadId::parse(&format!("left-over-{n}")).unwrap(),
            offset: 0,
        };
        let upload = Upload {
            part: Some(part),
            ..from(0, 10, true)
        };
        place
            .keeper()
            .upload(&own("never"), upload)
            .await
            .unwrap_err();
    }
    assert_eq!(entries(&place.images().join("downloads")).len(), 8);
}

#[tokio::test]
async fn a_file_of_the_machine_is_taken_from_the_folders_that_were_named_only() {
    or_skip!();
    let files = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.img"), bootable(MIB)).unwrap();
    std::os::unix::fs::symlink(
        outside.path().join("secret.img"),
        files.path().join("way-out.img"),
    )
    .unwrap();
    let path = files.path().join("disk.img");
    std::fs::write(&path, bootable(MIB)).unwrap();
    let place = Place::new(|options| {
        options.policy = PolicyFile::fixed(Policy {
            images: ImageSources {
                hosts: None,
                files: vec![files.path().display().to_string()],
            },
            ..Policy::default()
        });
    });
    let file = |path: &Path| AddImage {
        file: Some(path.display().to_string()),
        ..own("mine")
    };
    for bad in [
        outside.path().join("secret.img"),
        files.path().join("way-out.img"),
    ] {
        let refused = place.keeper().add(&file(&bad)).await.unwrap_err();
        assert!(
            matches!(&refused, DriverError::Policy(refusal) if refusal.field == "file"),
            "{refused}"
        );
    }
    place.keeper().add(&file(&path)).await.unwrap();
    within(place.keeper().pull(&name("mine"), &Progress::ignored()))
        .await
        .unwrap();
    assert!(place.image("mine").await.unwrap().cached);
    // Another content is another image.
    std::fs::write(&path, bootable(2 * MIB)).unwrap();
    assert!(!place.image("mine").await.unwrap().cached);
    // And a link that is put in its place later leads nowhere.
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.img"), &path).unwrap();
    within(place.keeper().pull(&name("mine"), &Progress::ignored()))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_pull_that_was_killed_goes_on_where_it_was() {
    or_skip!();
    let server = Server::start(bootable(2 * MIB), 0).await;
    server.shared.open.send_replace(false);
    let mut agent = AgentProcess::on(tempfile::tempdir().unwrap()).await;
    let image = from_server("mine", &server);
    let body = json!({"name": "mine", "url": image.url, "sha256": image.sha256});
    agent.post("/api/v1/images", body).await;
    let pull = json!({"kind": "pull_image", "image": "mine"});
    let id = agent.ask("", pull).await;
    let half = Some(ByteSize::mib(1));
    agent
        .when(id, |operation| operation.bytes_done == half)
        .await;
    agent.kill().await;
    let images = agent.path().join("qemu/images");
    assert_eq!(entries(&images.join("store")), [""; 0]);
    server.shared.open.send_replace(true);
    agent.start().await;
    let ended = agent
        .when(id, |operation| operation.state.is_finished())
        .await;
    assert_eq!(ended.state, OperationState::Succeeded, "{ended:?}");
    assert_eq!(server.asked(), [0, MIB]);
    assert_eq!(entries(&images.join("store")).len(), 1);
    for folder in ["downloads", "work"] {
        assert_eq!(entries(&images.join(folder)), [""; 0], "{folder}");
    }
    agent.kill().await;
}
