use axum::{
    Router,
    body::Body,
    middleware,
    routing::{any, put},
};
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::*;

/// Bounds a wait that has to end by itself.
const SOON: Duration = Duration::from_secs(20);

/// A router of which a test sees how far its handlers come.
struct Served {
    finisher: Finisher,
    router: Router,
    told: mpsc::Receiver<String>,
    go_on: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Served {
    fn new() -> Self {
        let finisher = Finisher::default();
        let go_on = Arc::new(Semaphore::new(0));
        let (tell, told) = mpsc::channel::<String>(16);
        let wait = {
            let (tell, go_on) = (tell.clone(), Arc::clone(&go_on));
            async move || {
                tell.send("begun".to_owned()).await.unwrap();
                go_on.acquire().await.unwrap().forget();
                tell.send("done".to_owned()).await.unwrap();
                "done"
            }
        };
        let take = async move |body: Body| {
            tell.send("begun".to_owned()).await.unwrap();
            let whole = body.collect().await.map(|body| body.to_bytes());
            let text = match whole {
                Ok(bytes) => format!("whole: {}", String::from_utf8_lossy(&bytes)),
                Err(_) => "cut".to_owned(),
            };
            tell.send(text).await.unwrap();
        };
        let router = Router::new()
            .route("/wait", any(wait))
            .route("/take", put(take))
            .layer(middleware::from_fn_with_state(finisher.clone(), finish));
        Self {
            finisher,
            router,
            told,
            go_on,
            connections: JoinSet::new(),
        }
    }

    /// Opens a connection, and says this on it.
    async fn call(&mut self, text: &str) -> DuplexStream {
        let (mut caller, server) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        self.connections.spawn(async move {
            let _ = connection.await;
        });
        caller.write_all(text.as_bytes()).await.unwrap();
        caller
    }

    async fn hears(&mut self, expected: &str) {
        let heard = timeout(SOON, self.told.recv()).await.expect("it is told");
        assert_eq!(heard.as_deref(), Some(expected));
    }

    /// Waits until the server has let go of every connection, and with them of what they waited for.
    async fn all_hung_up(&mut self) {
        let all = async { while self.connections.join_next().await.is_some() {} };
        timeout(SOON, all).await.expect("the connections end");
    }
}

const WAIT: &str = "POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn what_was_begun_is_finished_though_its_caller_hangs_up() {
    let mut served = Served::new();
    let caller = served.call(WAIT).await;
    served.hears("begun").await;
    drop(caller);
    served.all_hung_up().await;
    served.go_on.add_permits(1);
    served.hears("done").await;
    timeout(SOON, served.finisher.finished()).await.unwrap();
}

#[tokio::test]
async fn who_stays_has_the_answer() {
    let mut served = Served::new();
    let mut caller = served.call(WAIT).await;
    served.hears("begun").await;
    served.go_on.add_permits(1);
    let mut answer = [0; 15];
    timeout(SOON, caller.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn who_only_looks_holds_nothing_once_gone() {
    let mut served = Served::new();
    let caller = served.call("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
    served.hears("begun").await;
    drop(caller);
    served.all_hung_up().await;
    served.go_on.add_permits(1);
    assert_eq!(served.go_on.available_permits(), 1, "nobody waits for it");
    timeout(SOON, served.finisher.finished()).await.unwrap();
}

/// However the connection ends: half a body is never taken for a whole one, and nobody waits for the rest.
#[tokio::test]
async fn half_a_body_ends_in_an_error() {
    let halves = [
        "PUT /take HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
        "PUT /take HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for half in halves {
        let mut served = Served::new();
        let caller = served.call(half).await;
        served.hears("begun").await;
        drop(caller);
        served.hears("cut").await;

        let _caller = served.call(half).await;
        served.hears("begun").await;
        // As when a tunnel breaks: the server's end is dropped, and reads nothing any more.
        served.connections.shutdown().await;
        served.hears("cut").await;
    }
    let mut served = Served::new();
    let whole = "PUT /take HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nhalf";
    let _caller = served.call(whole).await;
    served.hears("begun").await;
    served.hears("whole: half").await;
}

#[tokio::test(start_paused = true)]
async fn a_request_without_caller_does_not_go_on_for_ever() {
    let mut served = Served::new();
    let caller = served.call(WAIT).await;
    let staying = served.call(WAIT).await;
    served.hears("begun").await;
    served.hears("begun").await;
    drop(caller);
    sleep(WITHOUT_CALLER * 2).await;
    assert_eq!(served.finisher.tasks.len(), 1, "the one with its caller");
    drop(staying);
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_can_cut_it() {
    let mut served = Served::new();
    let _caller = served.call(WAIT).await;
    served.hears("begun").await;
    let finisher = served.finisher.clone();
    let mut finished = std::pin::pin!(finisher.finished());
    let early = timeout(Duration::from_millis(50), finished.as_mut()).await;
    assert!(early.is_err());
    served.finisher.cut();
    timeout(SOON, finished).await.expect("nothing is left");
    served.go_on.add_permits(1);
    assert_eq!(served.go_on.available_permits(), 1, "nobody waits for it");
}

#[tokio::test]
async fn more_than_there_are_places_wait() {
    let mut served = Served::new();
    served.finisher.places = Arc::new(Semaphore::new(1));
    let finisher = served.finisher.clone();
    served.router = served
        .router
        .clone()
        .layer(middleware::from_fn_with_state(finisher, finish));
    let first = served.call(WAIT).await;
    served.hears("begun").await;
    drop(first);
    served.all_hung_up().await;
    let _second = served.call(WAIT).await;
    let early = timeout(Duration::from_millis(50), served.told.recv()).await;
    assert!(early.is_err(), "the place is taken: {early:?}");
    served.go_on.add_permits(2);
    served.hears("done").await;
    served.hears("begun").await;
    served.hears("done").await;
}
