//! Behind real reverse proxies, with the configurations of `deploy/` as they are shipped but for addresses, ports and
//! files: the page, a sign-in, events, a terminal that is silent for longer than the proxy's 30 s, and agents.
//!
//! The programs are this system's own; `BATWA_TEST_PROXIES=require` makes it an error when one is missing.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use batwa_api::certificate::CertificateHash;
use batwa_tls::{CertificateSource, ServedCertificate};
use futures_util::StreamExt as _;
use serde_json::json;
use tempfile::TempDir;

use crate::lab::{
    ADMIN, Caller, INSTANT, Process, ProcessBuilder, Terminal, batwa, free_port, until,
};

/// Longer than any connection may be silent behind the proxies as they are shipped.
const BEYOND_THE_LIMIT: Duration = Duration::from_secs(33);
const NAME: &str = "vms.example.org";

/// Where TLS ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    AtTheProxy,
    AtTheMaster,
}

/// A proxy of `deploy/` in front of a master.
struct Front {
    dir: TempDir,
    proxy: Option<Process>,
    master: Process,
    url: String,
    hash: CertificateHash,
}

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(file);
    fs::read_to_string(path).expect("a configuration")
}

/// Replaces what differs from machine to machine; all of it must be there.
fn adapted(file: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(shipped(file), |text, (from, to)| {
        assert!(text.contains(from), "deploy/{file} has no `{from}`");
        text.replace(from, to)
    })
}

#[expect(clippy::print_stdout, reason = "skipping is said aloud")]
fn is_there(program: &str) -> bool {
    let there = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    if !there {
        let required = std::env::var("BATWA_TEST_PROXIES").is_ok_and(|text| text == "require");
        assert!(!required, "there is no {program}");
        println!("SKIPPED: behind {program}: it is not installed");
    }
    there
}

impl Front {
    /// A master, and where it is reached; the proxy is started by the caller.
    async fn new(tls: Tls) -> (Self, u16, u16) {
        let dir = tempfile::tempdir().expect("a folder");
        // Proxies give up being root and still read their files.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open");
        let port = free_port();
        let url = format!("https://127.0.0.1:{port}");
        fs::write(dir.path().join("password"), ADMIN.1).expect("the password file");
        let names = vec!["127.0.0.1".to_owned()];
        let source = CertificateSource::SelfSigned { names };
        let certificate = ServedCertificate::open(&source, dir.path()).expect("a certificate");
        let [cert, key] = ["tls-cert.pem", "tls-key.pem"].map(|name| dir.path().join(name));
        let both = [&cert, &key]
            .map(|path| fs::read_to_string(path).expect("PEM"))
            .concat();
        fs::write(dir.path().join("both.pem"), both).expect("written");
        let mut builder = batwa()
            .args(["up", "--driver", "fake", "--fake", INSTANT])
            .args(["--host", "127.0.0.1", "--port", "0", "--public-url", &url])
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .env("BATWA_ADMIN_PASSWORD_FILE", dir.path().join("password"));
        builder = match tls {
            Tls::AtTheProxy => builder.args(["--trusted-proxy", "127.0.0.1"]),
            Tls::AtTheMaster => builder
                .arg("--tls-cert")
                .arg(&cert)
                .arg("--tls-key")
                .arg(&key),
        };
        let master = builder.args(["--log-level", "debug"]).start();
        master.address("Batwa is at").await;
        // With a public URL the port is said in the log alone.
        let master_port = until("the master says its port", async || {
            let log = master.log();
            let line = log.lines().find(|line| line.contains("listens on"))?;
            let port = line.rsplit(':').next()?;
            port.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .ok()
        })
        .await;
        let front = Self {
            dir,
            proxy: None,
            master,
            url,
            hash: certificate.hash(),
        };
        (front, port, master_port)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn start(&mut self, program: ProcessBuilder) {
        let home = self.path("home");
        self.proxy = Some(
            program
                .env("HOME", &home)
                .env("XDG_DATA_HOME", &home)
                .start(),
        );
    }

    /// Everything that must work behind a proxy.
    async fn works(&self, tls: Tls) {
        let nobody = Caller::pinning(&self.url, self.hash);
        until(&format!("the proxy answers: {}", self.log()), async || {
            nobody
                .try_get("/ready")
                .await
                .filter(|answer| answer.status == 200)
        })
        .await;
        let page = nobody.clone().header("accept", "text/html").get("/").await;
        assert_eq!(page.status, 200);
        assert!(
            page.header("content-type").starts_with("text/html"),
            "{page:?}"
        );

        // A browser's headers, a cookie that only TLS gets, and nobody believes what a client says of its address.
        let liar = Caller::pinning(&self.url, self.hash)
            .header("x-forwarded-for", "203.0.113.6")
            .header("origin", &self.url);
        let answer = liar
            .post(
                "/api/auth/login",
                json!({ "username": ADMIN.0, "password": ADMIN.1 }),
            )
            .await;
        let cookie = answer.header("set-cookie").to_owned();
        assert!(cookie.starts_with("__Host-session_id="), "{cookie}");
        assert!(cookie.contains("; Secure"), "{cookie}");
        let admin = nobody.sign_in(ADMIN).await.header("origin", &self.url);
        let audit = admin.get("/api/v1/audit").await.expect(200).to_string();
        assert!(
            audit.contains("127.0.0.1") && !audit.contains("203.0.113.6"),
            "{audit}"
        );

        // Events come when things happen, not when a buffer is full.
        let events = admin
            .request(reqwest::Method::GET, "/api/v1/events")
            .send()
            .await
            .expect("a stream");
        assert_eq!(events.status(), 200);
        let mut events = events.bytes_stream();
        let vms = "/api/v1/agents/local/vms";
        let spec = |name: &str| json!({ "name": name, "image": "tiny", "memory": "256M" });
        admin.post(vms, spec("web")).await.expect(202);
        hears(&mut events, "\"web\"").await;
        until("the VM runs", async || {
            let vm = admin.get(&format!("{vms}/web")).await;
            (vm.body["state"] == "running").then_some(())
        })
        .await;

        // A call from before v1, which answers when the work is done.
        let old = json!({ "name": "old", "memory": "256M", "image": "tiny" });
        admin.post("/api/vm/create", old).await.expect(200);

        // Terminals and events that are silent for longer than the proxy allows.
        let mut terminal = Terminal::old(&admin, "null", "web").await;
        terminal.types("echo $((6*7))\n").await;
        terminal.shows("42").await;
        // Meanwhile agents come through it, one by registering and one by a tunnel of its own.
        let (_edge, _far) = tokio::join!(self.agent(&admin), self.joined(&admin));
        let vms_there = "/api/v1/agents/far/vms";
        until("the machine behind the tunnel is online", async || {
            let row = admin.try_get("/api/v1/agents/far").await?;
            (row.body["status"] == "online" && row.body["link"] == "tunnel").then_some(())
        })
        .await;
        admin.post(vms_there, spec("deep")).await.expect(202);
        until("its VM runs", async || {
            let vm = admin.get(&format!("{vms_there}/deep")).await;
            (vm.body["state"] == "running").then_some(())
        })
        .await;
        let mut deep = Terminal::old(&admin, "far", "deep").await;
        deep.types("echo $((7*7))\n").await;
        deep.shows("49").await;
        tokio::join!(
            terminal.stays_open_for(BEYOND_THE_LIMIT),
            deep.stays_open_for(BEYOND_THE_LIMIT)
        );
        deep.types("echo $((7*8))\n").await;
        deep.shows("56").await;
        terminal.types("echo $((6*8))\n").await;
        terminal.shows("48").await;
        admin.post(vms, spec("late")).await.expect(202);
        hears(&mut events, "\"late\"").await;

        if tls == Tls::AtTheProxy {
            let log = self.master.log();
            assert!(!log.contains("plain HTTP"), "{log}");
        }
    }

    /// An agent that joins through the proxy and dials in.
    async fn joined(&self, admin: &Caller) -> Process {
        let made = admin
            .post("/api/v1/join-tokens", json!({}))
            .await
            .expect(201);
        let token = made["token"].as_str().expect("a token");
        batwa()
            .args(["agent", "join", &self.url, token, "--agent-id", "far"])
            .args(["--driver", "fake", "--fake", INSTANT])
            .arg("--state-dir")
            .arg(self.dir.path().join("far"))
            // The proxy's certificate is one that the machine trusts, as one of an authority would be.
            .env("SSL_CERT_FILE", self.path("tls-cert.pem"))
            .start()
    }

    /// An agent that registers through the proxy, the guide's way.
    async fn agent(&self, admin: &Caller) -> Process {
        let key = admin
            .post("/api/v1/agent-keys", json!({ "name": "edge" }))
            .await
            .expect(201);
        let agent = batwa()
            .args([
                "agent",
                "--agent-id",
                "edge",
                "--driver",
                "fake",
                "--fake",
                INSTANT,
            ])
            .args([
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--heartbeat-interval",
                "1",
            ])
            .args([
                "--master-url",
                &self.url,
                "--master-certificate",
                &self.hash.to_string(),
            ])
            .arg("--state-dir")
            .arg(self.dir.path().join("edge"))
            .env("BATWA_API_KEY", key["key"].as_str().expect("a key"))
            .start();
        until("the agent is online", async || {
            let row = admin.try_get("/api/v1/agents/edge").await?;
            (row.body["status"] == "online").then_some(())
        })
        .await;
        agent
    }

    fn log(&self) -> String {
        self.proxy
            .as_ref()
            .map(|proxy| format!("{}{}", proxy.printed(), proxy.log()))
            .unwrap_or_default()
    }
}

/// Reads events until these words come.
async fn hears<B: AsRef<[u8]>>(
    events: &mut (impl futures_util::Stream<Item = reqwest::Result<B>> + Unpin),
    words: &str,
) {
    let mut heard = String::new();
    let hearing = async {
        while !heard.contains(words) {
            let bytes = events
                .next()
                .await
                .expect("the stream goes on")
                .expect("bytes");
            heard.push_str(&String::from_utf8_lossy(bytes.as_ref()));
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), hearing).await;
    assert!(in_time.is_ok(), "no event with {words}: {heard}");
}

/// nginx with this configuration inside of one that touches nothing of the system, as one process that ends with the test.
fn nginx(front: &Front, head: &str, inside: &str) -> ProcessBuilder {
    let folder = front.dir.path().display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let conf = format!(
        "{head}\n{user}\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr info;\nevents {{}}\n{inside}\n"
    );
    fs::write(front.path("nginx.conf"), conf).expect("written");
    ProcessBuilder::program("/usr/sbin/nginx").args([
        "-c",
        &front.path("nginx.conf"),
        "-p",
        &front.path(""),
    ])
}

#[tokio::test]
async fn behind_nginx_that_ends_tls() {
    if !is_there("nginx") {
        return;
    }
    let (mut front, port, master_port) = Front::new(Tls::AtTheProxy).await;
    let server = adapted(
        "nginx.conf",
        &[
            ("listen 80;", &format!("listen 127.0.0.1:{};", free_port())),
            ("listen 443 ssl;", &format!("listen 127.0.0.1:{port} ssl;")),
            (NAME, "127.0.0.1"),
            ("/etc/ssl/batwa/fullchain.pem", &front.path("tls-cert.pem")),
            ("/etc/ssl/batwa/privkey.pem", &front.path("tls-key.pem")),
            ("127.0.0.1:8000", &format!("127.0.0.1:{master_port}")),
        ],
    );
    let folder = front.path("");
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .concat();
    let program = nginx(
        &front,
        "",
        &format!("http {{ access_log off;\n{places}{server} }}"),
    );
    front.start(program);
    front.works(Tls::AtTheProxy).await;
}

#[tokio::test]
async fn behind_nginx_that_passes_tls_through() {
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    if !is_there("nginx") || !(module.exists() || is_there("nginx's stream module")) {
        return;
    }
    let (mut front, port, master_port) = Front::new(Tls::AtTheMaster).await;
    let stream = adapted(
        "nginx-passthrough.conf",
        &[
            ("listen 443;", &format!("listen 127.0.0.1:{port};")),
            ("127.0.0.1:8443", &format!("127.0.0.1:{master_port}")),
        ],
    );
    let program = nginx(
        &front,
        &format!("load_module {};", module.display()),
        &stream,
    );
    front.start(program);
    front.works(Tls::AtTheMaster).await;
}

#[tokio::test]
async fn behind_caddy_that_ends_tls() {
    if !is_there("caddy") {
        return;
    }
    let (mut front, port, master_port) = Front::new(Tls::AtTheProxy).await;
    let (cert, key) = (front.path("tls-cert.pem"), front.path("tls-key.pem"));
    let conf = adapted(
        "Caddyfile",
        &[
            // Its own certificate instead of one from an authority, and no port of its own besides.
            (
                "\n{\n",
                "\n{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n",
            ),
            (
                "\nvms.example.org {",
                &format!("\nhttps://127.0.0.1:{port} {{\n\ttls {cert} {key}"),
            ),
            ("127.0.0.1:8000", &format!("127.0.0.1:{master_port}")),
        ],
    );
    fs::write(front.path("Caddyfile"), conf).expect("written");
    let program = ProcessBuilder::program("/usr/bin/caddy").args([
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        &front.path("Caddyfile"),
    ]);
    front.start(program);
    front.works(Tls::AtTheProxy).await;
}

#[tokio::test]
async fn behind_haproxy_that_ends_tls() {
    if !is_there("haproxy") {
        return;
    }
    let (mut front, port, master_port) = Front::new(Tls::AtTheProxy).await;
    let conf = adapted(
        "haproxy.cfg",
        &[
            ("bind :80\n", &format!("bind 127.0.0.1:{}\n", free_port())),
            ("bind :443", &format!("bind 127.0.0.1:{port}")),
            ("/etc/haproxy/batwa.pem", &front.path("both.pem")),
            ("127.0.0.1:8000", &format!("127.0.0.1:{master_port}")),
        ],
    );
    fs::write(front.path("haproxy.cfg"), conf).expect("written");
    let program = ProcessBuilder::program("/usr/sbin/haproxy").args([
        "-db",
        "-f",
        &front.path("haproxy.cfg"),
    ]);
    front.start(program);
    front.works(Tls::AtTheProxy).await;
}

#[tokio::test]
async fn behind_haproxy_that_passes_tls_through() {
    if !is_there("haproxy") {
        return;
    }
    let (mut front, port, master_port) = Front::new(Tls::AtTheMaster).await;
    let conf = adapted(
        "haproxy-passthrough.cfg",
        &[
            ("bind :443", &format!("bind 127.0.0.1:{port}")),
            ("127.0.0.1:8443", &format!("127.0.0.1:{master_port}")),
        ],
    );
    fs::write(front.path("haproxy.cfg"), conf).expect("written");
    let program = ProcessBuilder::program("/usr/sbin/haproxy").args([
        "-db",
        "-f",
        &front.path("haproxy.cfg"),
    ]);
    front.start(program);
    front.works(Tls::AtTheMaster).await;
}
