//! Ways from an agent to its master that are no straight line: proxies, TLS, NAT, and the installer's script.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use batwa_api::certificate::CertificateHash;
use batwa_tls::{CertificateSource, ServedCertificate, SystemRoots, Trust};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::lab::{INSTANT, Lab, Process, ProcessBuilder, batwa, join_token};

/// A proxy that does `CONNECT` and nothing else, and ends with this value.
struct Proxy {
    url: String,
    address: String,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// One that lets everybody through, or only those who give this `Proxy-Authorization`.
    async fn start(auth: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connect(stream, auth, Arc::clone(&counted)));
            }
        });
        Self {
            url: format!("http://{address}"),
            address,
            asked,
            _tasks: tasks,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn connect(mut client: TcpStream, auth: Option<&str>, asked: Arc<AtomicUsize>) {
    let Some(head) = head(&mut client).await else {
        return;
    };
    asked.fetch_add(1, Ordering::Relaxed);
    if let Some(auth) = auth
        && !head.contains(&format!("Proxy-Authorization: {auth}\r\n"))
    {
        let _ = client
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            .await;
        return;
    }
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .expect("CONNECT and nothing else");
    if let Ok(mut server) = TcpStream::connect(target).await {
        let _ = client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await;
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

#[tokio::test]
async fn the_environments_proxy_is_gone_through_but_where_it_says_not_to() {
    let lab = Lab::master(&[]).await;
    let proxy = Proxy::start(None).await;
    let token = join_token(&lab.admin, json!({ "uses": 9 })).await;
    let _through = lab
        .joining("through", &token)
        .env("HTTP_PROXY", &proxy.url)
        .start();
    lab.agent_is("through", "online").await;
    lab.create_vm("through", "web").await;
    let asked = proxy.asked();
    assert!(asked >= 2, "the join and the tunnel: {asked}");

    let _beside = lab
        .joining("beside", &token)
        .env("HTTP_PROXY", &proxy.url)
        .env("NO_PROXY", "127.0.0.0/8,example.com")
        .start();
    lab.agent_is("beside", "online").await;
    assert_eq!(proxy.asked(), asked);
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_gets_it_or_is_named() {
    let lab = Lab::master(&[]).await;
    // `me:secret`
    let proxy = Proxy::start(Some("Basic bWU6c2VjcmV0")).await;
    let token = join_token(&lab.admin, json!({})).await;
    let ended = lab
        .joining("edge", &token)
        .env("HTTP_PROXY", &proxy.url)
        .run()
        .await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let said = ended.stderr.replace(&proxy.address, "proxy:3128");
    let said = said.replace(&lab.url, "http://master");
    insta::assert_snapshot!(said.trim(), @"
    error: cannot join http://master: the proxy proxy:3128 answers 407 Proxy Authentication Required to CONNECT
    hint: give the proxy's user and password in HTTPS_PROXY: `http://user:password@proxy:3128`
    ");
    let _joined = lab
        .joining("edge", &token)
        .env("HTTP_PROXY", format!("http://me:secret@{}", proxy.address))
        .start();
    let agent = lab.agent_is("edge", "online").await;
    assert_eq!(agent["link"], "tunnel");
}

/// A server that answers every request so.
async fn answering(answer: &'static str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if head(&mut stream).await.is_some() {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn what_is_no_tunnel_is_told_apart_and_ends_the_join() {
    let lab = Lab::master(&[]).await;
    let token = join_token(&lab.admin, json!({})).await;
    let refused = async |answer: &'static str| {
        let (url, _server) = answering(answer).await;
        let ended = batwa()
            .args(["agent", "join", &url, &token, "--agent-id", "edge"])
            .args(["--driver", "fake", "--state-dir"])
            .arg(lab.folder("edge"))
            .run()
            .await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        ended.stderr.replace(&url, "http://there").trim().to_owned()
    };
    // A proxy that takes the upgrade away: the master answers that it wants one.
    insta::assert_snapshot!(refused("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await, @"
    error: cannot join http://there: http://there answers 400 Bad Request where the tunnel should be
    hint: either no Batwa master listens there, or a proxy in between does not pass WebSockets on: let it pass the headers Upgrade and Connection for /api/v1/tunnel
    ");
    insta::assert_snapshot!(refused("HTTP/1.1 301 Moved\r\nLocation: https://there/\r\nContent-Length: 0\r\n\r\n").await, @"
    error: cannot join http://there: http://there answers 301 Moved Permanently where the tunnel should be
    hint: give the address that it redirects to
    ");
    let garbled = refused(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    )
    .await;
    assert!(
        garbled.contains("answers the tunnel's upgrade wrongly"),
        "{garbled}"
    );
    let wrong_scheme = batwa()
        .args(["agent", "join", &lab.url.replace("http:", "https:"), &token])
        .args(["--agent-id", "edge", "--state-dir"])
        .arg(lab.folder("edge"))
        .run()
        .await;
    assert_eq!(wrong_scheme.code, Some(2), "{wrong_scheme:?}");
    assert!(
        wrong_scheme
            .stderr
            .contains("write its address with `http://`"),
        "{wrong_scheme:?}"
    );
}

#[tokio::test]
async fn only_the_network_is_tried_again() {
    let lab = Lab::master(&[]).await;
    let token = join_token(&lab.admin, json!({})).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // Nobody answers there yet: each connection is cut.
    let mut cutting = JoinSet::new();
    cutting.spawn(async move {
        for _ in 0..2 {
            let _ = listener.accept().await;
        }
        listener
    });
    let joining: Process = batwa()
        .args(["agent", "join", &format!("http://{address}"), &token])
        .args(["--agent-id", "edge", "--driver", "fake", "--fake", INSTANT])
        .arg("--state-dir")
        .arg(lab.folder("edge"))
        .start();
    let listener = cutting.join_next().await.expect("cut").expect("twice");
    joining.logged("trying again in").await;
    // Now the master is there, by a plain forwarding.
    let target = lab.url.trim_start_matches("http://").to_owned();
    let mut forwarding = JoinSet::new();
    forwarding.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let target = target.clone();
            connections.spawn(async move {
                if let Ok(mut server) = TcpStream::connect(target).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    lab.agent_is("edge", "online").await;
}

#[tokio::test]
async fn a_master_that_serves_tls_itself_vouches_for_its_certificate_by_its_key() {
    let lab = Lab::master_by_tls().await;
    let certificate = lab.master.as_ref().expect("it runs").certificate();
    let token = join_token(&lab.admin, json!({})).await;
    let _joined = lab.joining("edge", &token).start();
    let agent = lab.agent_is("edge", "online").await;
    assert_eq!(agent["link"], "tunnel");
    lab.create_vm("edge", "web").await;

    // Somebody in between with a certificate of their own, who passes everything on.
    let between = Between::start(&lab.url, certificate).await;
    let token = join_token(&lab.admin, json!({})).await;
    let ended = batwa()
        .args(["agent", "join", &between.url, &token])
        .args(["--agent-id", "other", "--driver", "fake", "--state-dir"])
        .arg(lab.folder("other"))
        .run()
        .await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("the master's key does not vouch for it either"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn the_line_of_a_master_that_vouches_for_itself_takes_its_program_from_nobody_else() {
    let lab = Lab::master_by_tls().await;
    let certificate = lab.master.as_ref().expect("it runs").certificate();
    let created = lab
        .admin
        .post("/api/v1/join-tokens", json!({ "uses": 2 }))
        .await
        .expect(201);
    let [line, token] = ["command", "token"].map(|key| created[key].as_str().expect("a text"));
    // As pasted, with what keeps it from this machine's own folders.
    let paste = |line: &str, id: &str| {
        let state = lab.folder(id);
        let flags = format!(
            "--agent-id {id} --driver fake --fake {INSTANT} --state-dir {}",
            state.display()
        );
        ProcessBuilder::program("sh")
            .args(["-c", &format!("{line} {flags}")])
            .env("BATWA_INSTALL_DIR", lab.folder(&format!("bin-{id}")))
    };
    let joined = paste(line, "edge").start();
    lab.agent_is("edge", "online").await;
    assert!(joined.log().contains("installed "), "{}", joined.log());

    // Somebody in between with a certificate of their own gets no script in.
    let between = Between::start(&lab.url, certificate).await;
    let lured = paste(&line.replace(&lab.url, &between.url), "lured")
        .run()
        .await;
    // "The public key does not match the pinned one."
    assert!(lured.stderr.contains("curl: (90)"), "{lured:?}");
    assert!(!lab.folder("bin-lured").exists());

    // Nor a program, where the script itself was the master's.
    let pinned = line.split_once(" https://").expect("an address").0;
    let host = between.url.trim_start_matches("https://");
    let line = format!(
        "{pinned} -H 'Host: {host}' {}/join.sh | sh -s -- {token}",
        lab.url
    );
    let lured = paste(&line, "halfway").run().await;
    assert!(
        lured.stderr.contains(&format!(
            "join.sh: cannot download the program from {}",
            between.url
        )),
        "{lured:?}"
    );
    assert!(lured.stderr.contains("curl: (90)"), "{lured:?}");
    assert!(!lab.folder("bin-halfway").join("batwa").exists());
}

/// Ends TLS with another certificate, and opens it again to the master.
struct Between {
    url: String,
    _dir: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Between {
    async fn start(master: &str, hash: CertificateHash) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let names = vec!["127.0.0.1".to_owned()];
        let source = CertificateSource::SelfSigned { names };
        let served = ServedCertificate::open(&source, dir.path()).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let target = master.trim_start_matches("https://").to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, target) = (served.acceptor(), target.clone());
                connections.spawn(async move {
                    let config = Trust::Pinned(hash).client_config(&SystemRoots::default());
                    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                    let name = "localhost".try_into().expect("a name");
                    let server = TcpStream::connect(target).await.expect("the master");
                    if let (Ok(mut client), Ok(mut server)) = (
                        acceptor.accept(client).await,
                        connector.connect(name, server).await,
                    ) {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self {
            url,
            _dir: dir,
            _tasks: tasks,
        }
    }
}
