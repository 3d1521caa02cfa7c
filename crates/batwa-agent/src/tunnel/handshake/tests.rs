use batwa_api::{
    certificate::CertificateHash,
    tunnel::{Nonce, RefusalCode, TunnelStatus},
};
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

type Socket = WebSocketStream<DuplexStream>;

async fn sockets() -> (Socket, Socket) {
    let (agent, master) = tokio::io::duplex(64 << 10);
    let config = Some(batwa_tunnel::config());
    (
        WebSocketStream::from_raw_socket(agent, Role::Client, config).await,
        WebSocketStream::from_raw_socket(master, Role::Server, config).await,
    )
}

/// What a master may do wrong.
#[derive(Default)]
struct Master {
    key: Option<Identity>,
    signs_with: Option<Identity>,
    certificate: Option<CertificateHash>,
    protocol: Option<u32>,
    /// A nonce other than the one it signs.
    shows_nonce: Option<Nonce>,
    welcomes_as: Option<TunnelStatus>,
    refuses: Option<Refused>,
    replays: Option<MasterFrame>,
}

impl Master {
    /// Plays the master's side; tells what it was sent and what it sent.
    async fn play(self, mut socket: Socket) -> (Hello, Option<Proof>, MasterFrame) {
        let AgentFrame::Hello(hello) = wire::receive(&mut socket).await.unwrap() else {
            panic!("no hello");
        };
        let key = self.key.unwrap_or_else(master_key);
        let mut challenge = Challenge {
            protocol: self.protocol.unwrap_or(1),
            version: "9.9.9".into(),
            master_key: key.public(),
            nonce: keys::nonce().unwrap(),
            tls_certificate: self.certificate,
        };
        let transcript = Transcript::new(&hello, &challenge);
        let signing = self.signs_with.as_ref().unwrap_or(&key);
        let signature = signing.sign(&transcript.master());
        if let Some(nonce) = self.shows_nonce {
            challenge.nonce = nonce;
        }
        let frame = self.replays.unwrap_or(MasterFrame::Challenge {
            challenge,
            signature,
        });
        wire::send(&mut socket, &frame).await.unwrap();
        let Ok(AgentFrame::Proof(proof)) = wire::receive(&mut socket).await else {
            return (hello, None, frame);
        };
        let welcome = Welcome {
            agent_id: hello.agent_id.clone(),
            status: TunnelStatus::Pending,
        };
        let signature = key.sign(&transcript.welcome(&proof, &welcome));
        let last = match self.refuses {
            Some(refused) => MasterFrame::Refused(refused),
            None => MasterFrame::Welcome {
                welcome: Welcome {
                    status: self.welcomes_as.unwrap_or(welcome.status),
                    ..welcome
                },
                signature,
            },
        };
        wire::send(&mut socket, &last).await.unwrap();
        let key = &hello.public_key;
        assert!(keys::is_signed(key, &transcript.agent(), &proof.signature));
        (hello, Some(proof), frame)
    }
}

fn master_key() -> Identity {
    Identity::from_seed([1; 32]).unwrap()
}

/// The outcome with a master that behaves like this, and whether the agent proved anything to it.
async fn outcome(
    master: Master,
    certificate: Option<Seen>,
) -> (Result<Welcome, HandshakeError>, bool, MasterFrame) {
    let (mut agent, socket) = sockets().await;
    let playing = master.play(socket);
    let shaking = async {
        let key = Identity::from_seed([2; 32]).unwrap();
        let id = AgentId::parse("lab").unwrap();
        let greeting = Greeting {
            agent_id: &id,
            key: &key,
            instance: [3; 16].into(),
            purpose: Purpose::Tunnel,
            join_secret: None,
            new_key: None,
            master_key_hash: keys::sha256(master_key().public().as_bytes()),
        };
        let result = shake_hands(&mut agent, &greeting, certificate).await;
        drop(agent);
        result
    };
    let ((_, proof, frame), result) = tokio::join!(playing, shaking);
    (result, proof.is_some(), frame)
}

#[tokio::test]
async fn an_honest_master_is_proven_to() {
    let (result, proven, _) = outcome(Master::default(), None).await;
    assert_eq!(result.unwrap().status, TunnelStatus::Pending);
    assert!(proven);
}

#[tokio::test]
async fn nothing_is_proven_to_another_master_or_an_impostor() {
    let other = Master {
        key: Some(Identity::generate().unwrap()),
        ..Master::default()
    };
    let (result, proven, _) = outcome(other, None).await;
    assert!(matches!(result, Err(HandshakeError::WrongMaster)));
    assert!(!proven);

    let by_name_only = Master {
        signs_with: Some(Identity::generate().unwrap()),
        ..Master::default()
    };
    let (result, proven, _) = outcome(by_name_only, None).await;
    assert!(matches!(result, Err(HandshakeError::Impostor)));
    assert!(!proven);

    let tampered = Master {
        shows_nonce: Some([9; 32].into()),
        ..Master::default()
    };
    let (result, proven, _) = outcome(tampered, None).await;
    assert!(matches!(result, Err(HandshakeError::Impostor)));
    assert!(!proven);
}

#[tokio::test]
async fn a_challenge_of_before_is_worth_nothing() {
    let (_, _, recorded) = outcome(Master::default(), None).await;
    let replaying = Master {
        replays: Some(recorded),
        ..Master::default()
    };
    let (result, proven, _) = outcome(replaying, None).await;
    assert!(matches!(result, Err(HandshakeError::Impostor)));
    assert!(!proven);
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_not_spoken() {
    let master = Master {
        protocol: Some(99),
        ..Master::default()
    };
    let (result, _, _) = outcome(master, None).await;
    assert!(matches!(result, Err(HandshakeError::Nonsense)));
}

#[tokio::test]
async fn a_welcome_that_somebody_changed_is_none() {
    let master = Master {
        welcomes_as: Some(TunnelStatus::Approved),
        ..Master::default()
    };
    let (result, _, _) = outcome(master, None).await;
    assert!(matches!(result, Err(HandshakeError::Impostor)));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_it_before_anything_is_proven() {
    let seen = |distrust: Option<&str>| {
        Some(Seen {
            hash: CertificateHash::from_bytes([4; 32]),
            distrust: distrust.map(str::to_owned),
        })
    };
    let vouching = |certificate| Master {
        certificate,
        ..Master::default()
    };
    let unknown = "UnknownIssuer";
    for (certificate, distrust, good) in [
        (None, None, true),
        (Some(CertificateHash::from_bytes([5; 32])), None, true),
        (
            Some(CertificateHash::from_bytes([4; 32])),
            Some(unknown),
            true,
        ),
        (
            Some(CertificateHash::from_bytes([5; 32])),
            Some(unknown),
            false,
        ),
        (None, Some(unknown), false),
    ] {
        let (result, proven, _) = outcome(vouching(certificate), seen(distrust)).await;
        assert_eq!(result.is_ok(), good, "{certificate:?} {distrust:?}");
        assert_eq!(proven, good);
        if let Err(error) = result {
            assert!(error.to_string().contains(unknown), "{error}");
        }
    }
}

#[tokio::test]
async fn a_refusal_comes_with_its_fix_and_without_tricks() {
    let master = Master {
        refuses: Some(Refused {
            code: RefusalCode::Revoked,
            detail: "an admin shut\x1b[2J it out".into(),
            fix: "ask\nthem".into(),
        }),
        ..Master::default()
    };
    let (result, _, _) = outcome(master, None).await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "an admin shut [2J it out");
    assert_eq!(error.fix().as_deref(), Some("ask them"));
    assert!(!error.is_transient());
}
