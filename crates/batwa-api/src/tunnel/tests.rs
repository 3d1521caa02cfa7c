use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn hello() -> Hello {
    Hello {
        protocol: ProtocolRange { min: 1, max: 2 },
        version: "0.1.0".into(),
        agent_id: AgentId::parse("lab-1").unwrap(),
        public_key: [1; 32].into(),
        nonce: [2; 32].into(),
        purpose: Purpose::Join {
            token_id: uuid::Uuid::from_u128(7).into(),
        },
        instance: [3; 16].into(),
        hostname: "lab".into(),
        machine: Some([4; 32].into()),
    }
}

fn challenge() -> Challenge {
    Challenge {
        protocol: 1,
        version: "0.1.1".into(),
        master_key: [5; 32].into(),
        nonce: [6; 32].into(),
        tls_certificate: Some(CertificateHash::from_bytes([7; 32])),
    }
}

/// Every text that differs from `value` in one leaf, and still is one.
fn tampered(value: &Value) -> Vec<Value> {
    fn paths(value: &Value, path: String, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    paths(value, format!("{path}/{key}"), all);
                }
            }
            _ => all.push(path),
        }
    }
    let mut all = Vec::new();
    paths(value, String::new(), &mut all);
    let mut made = Vec::new();
    for path in all {
        let mut other = value.clone();
        let leaf = other.pointer_mut(&path).unwrap();
        *leaf = match &*leaf {
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            Value::String(text) if text.len() > 30 && text.contains('0') => {
                // Hex or a UUID: another digit.
                let at = text.rfind(|c: char| c.is_ascii_digit()).unwrap();
                let digit = if &text[at..=at] == "9" { "8" } else { "9" };
                json!(format!("{}{digit}{}", &text[..at], &text[at + 1..]))
            }
            Value::String(text) => json!(format!("{text}x")),
            Value::Null => json!("00".repeat(32)),
            other => panic!("{other}"),
        };
        made.push(other);
    }
    made
}

#[test]
fn every_field_of_hello_and_challenge_is_signed() {
    let whole = Transcript::new(&hello(), &challenge()).agent();
    let mut seen = std::collections::BTreeSet::from([whole]);
    let purposes = [
        Purpose::Tunnel,
        Purpose::Rotate {
            new_key: [8; 32].into(),
        },
    ];
    for purpose in purposes {
        let other = Hello { purpose, ..hello() };
        assert!(seen.insert(Transcript::new(&other, &challenge()).agent()));
    }
    let mut changes = 0;
    for json in tampered(&serde_json::to_value(hello()).unwrap()) {
        // A purpose's name cannot change by one letter.
        let Ok(other) = serde_json::from_value::<Hello>(json) else {
            continue;
        };
        changes += 1;
        assert!(
            seen.insert(Transcript::new(&other, &challenge()).agent()),
            "{other:?}"
        );
    }
    for json in tampered(&serde_json::to_value(challenge()).unwrap()) {
        let other: Challenge = serde_json::from_value(json).unwrap();
        changes += 1;
        assert!(
            seen.insert(Transcript::new(&hello(), &other).agent()),
            "{other:?}"
        );
    }
    // min, max, version, id, key, nonce, token, instance, host name, machine; and the challenge's five.
    assert_eq!(changes, 15);
    let without = [
        Transcript::new(
            &Hello {
                machine: None,
                ..hello()
            },
            &challenge(),
        ),
        Transcript::new(
            &hello(),
            &Challenge {
                tls_certificate: None,
                ..challenge()
            },
        ),
    ];
    for transcript in without {
        assert!(seen.insert(transcript.agent()));
    }
}

#[test]
fn no_role_can_be_played_with_anothers_signature() {
    let transcript = Transcript::new(&hello(), &challenge());
    let proof = Proof {
        signature: [9; 64].into(),
        mac: None,
        new_key_signature: None,
    };
    let welcome = Welcome {
        agent_id: hello().agent_id,
        status: TunnelStatus::Approved,
    };
    let pending = Welcome {
        status: TunnelStatus::Pending,
        ..welcome.clone()
    };
    let all = std::collections::BTreeSet::from([
        transcript.master(),
        transcript.agent(),
        transcript.join(),
        transcript.new_key(),
        transcript.welcome(&proof, &welcome),
        transcript.welcome(&proof, &pending),
    ]);
    assert_eq!(all.len(), 6);
}

#[test]
fn the_newest_common_version_is_taken() {
    let range = |min, max| ProtocolRange { min, max };
    for (ours, theirs, agreed) in [
        (range(1, 1), range(1, 1), Some(1)),
        (range(1, 2), range(2, 3), Some(2)),
        (range(2, 3), range(1, 2), Some(2)),
        (range(2, 3), range(1, 1), None),
        (range(1, 1), range(2, 3), None),
        (range(1, 9), range(5, 3), None),
    ] {
        assert_eq!(ours.agree(theirs), agreed, "{ours:?} {theirs:?}");
    }
}

#[test]
fn join_tokens_are_read_whole_or_not_at_all() {
    let token = JoinToken {
        id: uuid::Uuid::from_u128(7).into(),
        secret: [8; 32],
        master_key_hash: [9; 32].into(),
    };
    let text = token.to_string();
    assert_eq!(text.parse(), Ok(token.clone()));
    assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains(text.split('.').nth(2).unwrap()));
    for bad in [
        "",
        "batwa-join",
        &text[..text.len() - 1],
        &format!("{text}.x"),
        &text.replace("batwa-join", "batwa_pat"),
        &text.replace('.', ":"),
    ] {
        assert_eq!(bad.parse::<JoinToken>(), Err(JoinTokenError), "{bad}");
    }
}

#[test]
fn a_reason_of_a_later_master_is_still_a_refusal() {
    let refused: MasterFrame = serde_json::from_value(json!({
        "type": "refused", "code": "moon_phase", "detail": "d", "fix": "f"
    }))
    .unwrap();
    assert!(matches!(
        refused,
        MasterFrame::Refused(Refused {
            code: RefusalCode::Other,
            ..
        })
    ));
}

proptest! {
    #[test]
    fn no_two_hellos_are_signed_alike(
        a in "[a-z]{1,6}", b in "[a-z]{1,6}", c in "[a-z]{1,6}", d in "[a-z]{1,6}",
    ) {
        let with = |version: &str, hostname: &str| {
            let hello = Hello { version: version.into(), hostname: hostname.into(), ..hello() };
            Transcript::new(&hello, &challenge()).agent()
        };
        prop_assert_eq!(with(&a, &b) == with(&c, &d), a == c && b == d);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        let _ = text.parse::<JoinToken>();
        let _ = text.parse::<PublicKey>();
        let _ = serde_json::from_str::<AgentFrame>(&text);
    }
}
