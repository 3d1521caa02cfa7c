//! Agents that dial in, honest and lying, frame by frame.

use std::{io, time::Duration};

use axum::{Router, serve::Listener};
use batwa_api::{
    id::AgentId,
    tunnel::{
        AgentFrame, Hello, JoinToken, MasterFrame, Proof, ProtocolRange, PublicKey, Purpose,
        RefusalCode, Refused, Signature, Transcript, TunnelStatus, Welcome,
    },
};
use batwa_tunnel::{Hold, Identity, JoinSecret, Mux, Stream, Timing, arrivals, keys, wire};
use futures_util::SinkExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::{
    fake_agent::{FakeAgent, Manner, vm},
    harness::{Caller, TestMaster, give_admin},
};

const DEADLINE: Duration = Duration::from_secs(20);

type Socket = WebSocketStream<TcpStream>;

async fn dial(master: &TestMaster) -> Socket {
    dial_with(master, batwa_tunnel::config()).await
}

async fn dial_with(master: &TestMaster, config: WebSocketConfig) -> Socket {
    let stream = TcpStream::connect(master.address).await.unwrap();
    let url = format!("ws://{}/api/v1/tunnel", master.address);
    client_async_with_config(url, stream, Some(config))
        .await
        .unwrap()
        .0
}

async fn token(admin: &Caller<'_>, body: Value) -> JoinToken {
    let created = admin
        .post("/api/v1/join-tokens", body)
        .await
        .expect(StatusCode::CREATED);
    created["token"].as_str().unwrap().parse().unwrap()
}

fn hello(id: &str, key: PublicKey, purpose: Purpose) -> Hello {
    Hello {
        protocol: ProtocolRange::OURS,
        version: "0.0.1".into(),
        agent_id: AgentId::parse(id).unwrap(),
        public_key: key,
        nonce: keys::nonce().unwrap(),
        purpose,
        instance: keys::random::<16>().unwrap().into(),
        hostname: "host".into(),
        machine: None,
    }
}

async fn receive(socket: &mut Socket) -> MasterFrame {
    timeout(DEADLINE, wire::receive(socket))
        .await
        .unwrap()
        .unwrap()
}

async fn challenged(socket: &mut Socket, hello: &Hello) -> (Transcript, Signature) {
    wire::send(socket, &AgentFrame::Hello(hello.clone()))
        .await
        .unwrap();
    match receive(socket).await {
        MasterFrame::Challenge {
            challenge,
            signature,
        } => {
            let transcript = Transcript::new(hello, &challenge);
            assert!(keys::is_signed(
                &challenge.master_key,
                &transcript.master(),
                &signature
            ));
            (transcript, signature)
        }
        other => panic!("{other:?}"),
    }
}

async fn answer(socket: &mut Socket, proof: Proof) -> Result<Welcome, Refused> {
    wire::send(socket, &AgentFrame::Proof(proof)).await.unwrap();
    match receive(socket).await {
        MasterFrame::Welcome { welcome, .. } => Ok(welcome),
        MasterFrame::Refused(refused) => Err(refused),
        other => panic!("{other:?}"),
    }
}

fn proof(identity: &Identity, transcript: &Transcript, token: Option<&JoinToken>) -> Proof {
    Proof {
        signature: identity.sign(&transcript.agent()),
        mac: token.map(|token| JoinSecret::of(token).mac(&transcript.join())),
        new_key_signature: None,
    }
}

/// A whole handshake.
async fn shake(
    master: &TestMaster,
    identity: &Identity,
    hello: &Hello,
    token: Option<&JoinToken>,
) -> (Socket, Result<Welcome, Refused>) {
    let mut socket = dial(master).await;
    let (transcript, _) = challenged(&mut socket, hello).await;
    let result = answer(&mut socket, proof(identity, &transcript, token)).await;
    (socket, result)
}

async fn joined(master: &TestMaster, admin: &Caller<'_>, id: &str) -> Identity {
    let token = token(admin, json!({})).await;
    let identity = Identity::generate().unwrap();
    let purpose = Purpose::Join { token_id: token.id };
    let hello = hello(id, identity.public(), purpose);
    let (_, result) = shake(master, &identity, &hello, Some(&token)).await;
    assert_eq!(result.unwrap().status, TunnelStatus::Approved);
    identity
}

/// Streams of a tunnel, as something that accepts connections.
struct Streams(mpsc::Receiver<Stream>);

impl Listener for Streams {
    type Io = Stream;
    type Addr = ();

    async fn accept(&mut self) -> (Stream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Joins, opens a tunnel, and serves this in it.
async fn serving(
    master: &TestMaster,
    admin: &Caller<'_>,
    id: &str,
    router: Router,
    tasks: &mut JoinSet<()>,
) {
    let identity = joined(master, admin, id).await;
    let hello = hello(id, identity.public(), Purpose::Tunnel);
    let (socket, result) = shake(master, &identity, &hello, None).await;
    result.unwrap();
    let (sender, streams) = arrivals();
    let mux = Mux::agent(socket, Timing::default());
    tasks.spawn(async move {
        mux.run_agent(sender).await;
    });
    tasks.spawn(async move {
        let _ = axum::serve(Streams(streams), router).await;
    });
}

async fn until_status(admin: &Caller<'_>, id: &str, status: &str) -> Value {
    until_row(admin, id, |row| row["status"] == status).await
}

/// Waits until an agent's row is so.
async fn until_row(admin: &Caller<'_>, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waiting = async {
        loop {
            let row = admin.get(&format!("/api/v1/agents/{id}")).await;
            last = row.expect(StatusCode::OK);
            if is_so(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(DEADLINE, waiting).await.is_err() {
        panic!("{id} stays so: {last}");
    }
    last
}

#[tokio::test]
async fn a_proof_of_before_is_worth_nothing() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let identity = joined(&master, &admin, "lab").await;
    let hello = hello("lab", identity.public(), Purpose::Tunnel);

    // Somebody who heard the whole conversation says the same again.
    let mut first = dial(&master).await;
    let (transcript, _) = challenged(&mut first, &hello).await;
    let heard = proof(&identity, &transcript, None);
    answer(&mut first, heard.clone()).await.unwrap();
    let mut again = dial(&master).await;
    challenged(&mut again, &hello).await;
    let refused = answer(&mut again, heard).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::BadProof);

    let audit = admin.get("/api/v1/audit").await.expect(StatusCode::OK);
    let line = &audit["items"][0];
    assert_eq!(line["action"], "agent.connect");
    assert_eq!(line["result"], "refused");
    assert_eq!(line["target"], "lab");
}

#[tokio::test]
async fn a_used_token_a_revoked_key_and_a_borrowed_name_are_refused_and_audited() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let refused_last = async |action: &str, target: &str| {
        let audit = admin.get("/api/v1/audit").await.expect(StatusCode::OK);
        let line = &audit["items"][0];
        assert_eq!(line["action"], action, "{line}");
        assert_eq!(line["result"], "refused", "{line}");
        assert_eq!(line["target"], target, "{line}");
        line["detail"].as_str().unwrap_or_default().to_owned()
    };
    let token = token(&admin, json!({})).await;
    let purpose = Purpose::Join { token_id: token.id };
    let owner = Identity::generate().unwrap();
    let asked = hello("lab", owner.public(), purpose.clone());
    let (_, result) = shake(&master, &owner, &asked, Some(&token)).await;
    result.unwrap();

    // Somebody found the token on the machine that had used it.
    let thief = Identity::generate().unwrap();
    let stealing = hello("thief", thief.public(), purpose);
    let (_, result) = shake(&master, &thief, &stealing, Some(&token)).await;
    assert_eq!(result.unwrap_err().code, RefusalCode::TokenUsedUp);
    refused_last("agent.join", "thief").await;
    let agents = admin.get("/api/v1/agents").await.expect(StatusCode::OK);
    assert_eq!(agents["counts"]["total"], 1, "{agents}");

    let claims = hello("lab", thief.public(), Purpose::Tunnel);
    let (_, result) = shake(&master, &thief, &claims, None).await;
    assert_eq!(result.unwrap_err().code, RefusalCode::WrongKey);
    refused_last("agent.connect", "lab").await;

    let revoke = "/api/v1/agents/lab/revoke";
    admin.post(revoke, json!({})).await.expect(StatusCode::OK);
    let returns = hello("lab", owner.public(), Purpose::Tunnel);
    let (_, result) = shake(&master, &owner, &returns, None).await;
    assert_eq!(result.unwrap_err().code, RefusalCode::Revoked);
    refused_last("agent.connect", "lab").await;
}

#[tokio::test]
async fn the_masters_own_signature_proves_no_agent() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let token = token(&admin, json!({})).await;
    // Who goes by the master's key has the master sign for it.
    let mut socket = dial(&master).await;
    let probe = Identity::generate().unwrap();
    let purpose = Purpose::Join { token_id: token.id };
    let asked = hello("lab", probe.public(), purpose.clone());
    wire::send(&mut socket, &AgentFrame::Hello(asked))
        .await
        .unwrap();
    let MasterFrame::Challenge { challenge, .. } = receive(&mut socket).await else {
        panic!("no challenge");
    };
    let reflecting = hello("lab", challenge.master_key, purpose);
    let mut socket = dial(&master).await;
    let (transcript, signature) = challenged(&mut socket, &reflecting).await;
    let proof = Proof {
        signature,
        mac: Some(JoinSecret::of(&token).mac(&transcript.join())),
        new_key_signature: None,
    };
    let refused = answer(&mut socket, proof).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::BadProof);
}

#[tokio::test]
async fn a_token_is_proven_and_never_by_what_was_heard() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let token = token(&admin, json!({"uses": 5})).await;
    let identity = Identity::generate().unwrap();
    let purpose = Purpose::Join { token_id: token.id };
    let asked = hello("lab", identity.public(), purpose.clone());

    // Without a MAC, and with the one of another handshake.
    let (_, result) = shake(&master, &identity, &asked, None).await;
    assert_eq!(result.unwrap_err().code, RefusalCode::BadProof);
    let mut socket = dial(&master).await;
    let (transcript, _) = challenged(&mut socket, &asked).await;
    let heard = JoinSecret::of(&token).mac(&transcript.join());
    drop(socket);
    let thief = Identity::generate().unwrap();
    let stealing = hello("thief", thief.public(), purpose);
    let mut socket = dial(&master).await;
    let (transcript, _) = challenged(&mut socket, &stealing).await;
    let stolen = Proof {
        mac: Some(heard),
        ..proof(&thief, &transcript, None)
    };
    let refused = answer(&mut socket, stolen).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::BadProof);

    let tokens = admin
        .get("/api/v1/join-tokens")
        .await
        .expect(StatusCode::OK);
    assert_eq!(tokens["items"][0]["used"], 0);
    let agents = admin.get("/api/v1/agents").await.expect(StatusCode::OK);
    assert_eq!(agents["counts"]["total"], 0);
}

#[tokio::test]
async fn nobody_gets_another_agents_place() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    joined(&master, &admin, "lab").await;
    let other = joined(&master, &admin, "other").await;

    let claims = hello("lab", other.public(), Purpose::Tunnel);
    let (_, result) = shake(&master, &other, &claims, None).await;
    assert_eq!(result.unwrap_err().code, RefusalCode::WrongKey);
    let unknown = hello("nobody", other.public(), Purpose::Tunnel);
    let (_, result) = shake(&master, &other, &unknown, None).await;
    assert_eq!(result.unwrap_err().code, RefusalCode::UnknownAgent);

    // A key is changed by its owner, who has the new one too.
    let next = Identity::generate().unwrap();
    let new_key = next.public();
    for (id, key, signs) in [("lab", &other, &next), ("other", &other, &other)] {
        let asked = hello(id, key.public(), Purpose::Rotate { new_key });
        let mut socket = dial(&master).await;
        let (transcript, _) = challenged(&mut socket, &asked).await;
        let given = Proof {
            new_key_signature: Some(signs.sign(&transcript.new_key())),
            ..proof(key, &transcript, None)
        };
        let refused = answer(&mut socket, given).await.unwrap_err();
        assert!(
            matches!(refused.code, RefusalCode::WrongKey | RefusalCode::BadProof),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn versions_agree_or_say_which_side_is_too_old() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let identity = joined(&master, &admin, "lab").await;
    let newest = ProtocolRange::OURS.max;
    // One that is a version ahead and still speaks ours.
    let ahead = Hello {
        protocol: ProtocolRange {
            min: newest,
            max: newest + 1,
        },
        ..hello("lab", identity.public(), Purpose::Tunnel)
    };
    let (_, result) = shake(&master, &identity, &ahead, None).await;
    result.unwrap();
    for (min, max, too_old) in [
        (newest + 1, newest + 2, "the master is too old"),
        (0, 0, "the agent is too old"),
    ] {
        let apart = Hello {
            protocol: ProtocolRange { min, max },
            ..hello("lab", identity.public(), Purpose::Tunnel)
        };
        let mut socket = dial(&master).await;
        wire::send(&mut socket, &AgentFrame::Hello(apart))
            .await
            .unwrap();
        let MasterFrame::Refused(refused) = receive(&mut socket).await else {
            panic!("not refused");
        };
        assert_eq!(refused.code, RefusalCode::Version);
        assert!(refused.fix.contains(too_old), "{refused:?}");
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_and_harms_nobody() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let premature = AgentFrame::Proof(Proof {
        signature: [0; 64].into(),
        mac: None,
        new_key_signature: None,
    });
    for message in [
        Message::text("{}"),
        Message::text("x".repeat(20 << 10)),
        Message::binary(vec![0; 16]),
        Message::text(serde_json::to_string(&premature).unwrap()),
    ] {
        let mut socket = dial(&master).await;
        socket.send(message).await.unwrap();
        let MasterFrame::Refused(refused) = receive(&mut socket).await else {
            panic!("not refused");
        };
        assert_eq!(refused.code, RefusalCode::Malformed);
    }
    // Longer than any message may be: cut without a word.
    let mut socket = dial_with(&master, WebSocketConfig::default()).await;
    let _ = socket.send(Message::text("x".repeat(8 << 20))).await;
    let cut = timeout(
        Duration::from_secs(5),
        wire::receive::<_, MasterFrame>(&mut socket),
    )
    .await;
    assert!(cut.unwrap().is_err());
    // No WebSocket at all.
    let plain = admin.get("/api/v1/tunnel").await;
    assert_eq!(plain.status, StatusCode::BAD_REQUEST);
    joined(&master, &admin, "lab").await;
}

#[tokio::test]
async fn liars_in_tunnels_harm_nothing_but_their_own_rows() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let mut tasks = JoinSet::new();
    let (_known, honest) = FakeAgent::parts("lab", Manner::Honest, vec![vm("web", "running")]);
    serving(&master, &admin, "lab", honest, &mut tasks).await;
    until_status(&admin, "lab", "online").await;
    for (id, manner) in [
        ("rubbish", Manner::Rubbish),
        ("endless", Manner::EndlessLine),
        ("huge", Manner::HugeNames),
        ("other", Manner::OtherId),
        ("flood", Manner::Flood),
    ] {
        let (_known, router) = FakeAgent::parts(id, manner, vec![]);
        serving(&master, &admin, id, router, &mut tasks).await;
    }
    for id in ["rubbish", "endless", "huge", "other"] {
        until_status(&admin, id, "error").await;
    }
    until_status(&admin, "flood", "online").await;
    for _ in 0..20 {
        let began = std::time::Instant::now();
        let list = admin
            .get("/api/v1/vms?agent=lab")
            .await
            .expect(StatusCode::OK);
        assert_eq!(list["items"][0]["stale"], false, "{list}");
        assert!(began.elapsed() < Duration::from_secs(2), "lists stay quick");
    }
    let begin = "/api/v1/agents/lab/vms/web/stop?wait=10s";
    let done = admin.post(begin, json!({})).await.expect(StatusCode::OK);
    assert_eq!(done["state"], "succeeded");
}

/// How a tunnel's agent takes no bytes any more.
#[derive(Clone, Copy, Debug)]
enum Deaf {
    /// Not one of the whole tunnel: its pings stay unanswered.
    Tunnel,
    /// Those of the tunnel's streams: it answers pings and nothing else.
    Streams,
}

#[tokio::test]
async fn an_agent_that_never_reads_is_given_up_and_nobody_waits_for_it() {
    let ping = Timing {
        ping: Duration::from_secs(1),
        ..Timing::default()
    };
    let master = TestMaster::with(|config| {
        give_admin(config);
        config.tunnel_timing = ping;
    })
    .await;
    let admin = master.admin().await;
    let mut tasks = JoinSet::new();
    let (_known, honest) = FakeAgent::parts("lab", Manner::Honest, vec![vm("web", "running")]);
    serving(&master, &admin, "lab", honest, &mut tasks).await;
    until_status(&admin, "lab", "online").await;

    for (id, deaf) in [("wall", Deaf::Tunnel), ("mule", Deaf::Streams)] {
        let identity = joined(&master, &admin, id).await;
        let hello = hello(id, identity.public(), Purpose::Tunnel);
        let (socket, result) = shake(&master, &identity, &hello, None).await;
        result.unwrap();
        match deaf {
            Deaf::Tunnel => {
                tasks.spawn(async move {
                    let _held = socket;
                    std::future::pending::<()>().await;
                });
            }
            Deaf::Streams => {
                let (sender, mut streams) = arrivals();
                let mux = Mux::agent(socket, ping);
                tasks.spawn(async move {
                    mux.run_agent(sender).await;
                });
                tasks.spawn(async move {
                    let mut held = Vec::new();
                    while let Some(stream) = streams.recv().await {
                        held.push(stream);
                    }
                });
            }
        }
    }
    // Many ask for what only those two could tell; everything else goes on.
    for round in 0..10 {
        let list = admin
            .get("/api/v1/vms?agent=lab")
            .await
            .expect(StatusCode::OK);
        assert_eq!(list["items"][0]["stale"], false, "{list}");
        let action = if round % 2 == 0 { "stop" } else { "start" };
        let path = format!("/api/v1/agents/lab/vms/web/{action}?wait=10s");
        let done = admin.post(&path, json!({})).await.expect(StatusCode::OK);
        assert_eq!(done["state"], "succeeded");
    }
    // Silence ends the one's tunnel. The other's stays, and its row says that nothing comes out of it.
    until_row(&admin, "wall", |row| row["tunnel"].is_null()).await;
    let mule = until_row(&admin, "mule", |row| {
        let message = row["message"].as_str().unwrap_or_default();
        row["status"] != "online" && message.contains("did not answer")
    })
    .await;
    assert!(!mule["tunnel"].is_null(), "{mule}");
}

#[tokio::test]
async fn an_agent_that_opens_streams_itself_is_cut_off() {
    let master = TestMaster::with_admin().await;
    let admin = master.admin().await;
    let identity = joined(&master, &admin, "liar").await;
    let hello = hello("liar", identity.public(), Purpose::Tunnel);
    let (socket, result) = shake(&master, &identity, &hello, None).await;
    result.unwrap();
    // It plays the master.
    let (mux, opener, requests) = Mux::master(socket, Timing::default());
    let opening = async {
        if let Ok(mut stream) = opener.open(Hold::Brief).await {
            use tokio::io::AsyncWriteExt as _;
            let _ = stream
                .write_all(b"GET /api/v1/users HTTP/1.1\r\n\r\n")
                .await;
            let _ = stream.flush().await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    };
    let (_ended, ()) = timeout(DEADLINE, async {
        tokio::join!(mux.run_master(requests), opening)
    })
    .await
    .expect("it is cut");
    until_status(&admin, "liar", "offline").await;
}

#[tokio::test]
async fn the_installer_hands_out_the_program_whole_and_names_the_master() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::write(&program, vec![7; 300_000]).unwrap();
    let path = program.clone();
    let master = TestMaster::with(|config| config.executable = Some(path)).await;
    let nobody = master.anonymous();
    let name = format!("batwa-{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let fetched = nobody.get(&format!("/api/v1/download/{name}")).await;
    assert_eq!(fetched.status, StatusCode::OK);
    assert_eq!(fetched.header("content-length"), "300000");
    assert_eq!(fetched.text.len(), 300_000);
    let sum = nobody
        .get(&format!("/api/v1/download/{name}.sha256"))
        .await
        .text;
    let hash = keys::sha256(&[7; 300_000]).to_string();
    assert_eq!(sum, format!("{hash}  {name}\n"));
    let script = nobody.get("/join.sh").await.text;
    assert!(script.contains(&hash));
    assert!(script.contains(&format!("MASTER='http://{}'", master.address)));
    let hostile = nobody
        .send(
            reqwest::Method::GET,
            "/join.sh",
            None,
            &[("host", "x';id;'")],
        )
        .await;
    assert!(!hostile.text.contains(";id;"), "{}", hostile.text);

    let other = nobody.get("/api/v1/download/batwa-plan9-mips").await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    assert!(other.text.contains(&name), "{}", other.text);
    let up = nobody.get("/api/v1/download/..%2f..%2fetc%2fpasswd").await;
    assert_eq!(up.status, StatusCode::NOT_FOUND);
}
