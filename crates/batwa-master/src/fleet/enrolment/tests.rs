use batwa_api::agent::LinkKind;
use secrecy::SecretString;

use super::*;
use crate::fleet::record::AgentSecret;

fn secret(key: &str) -> AgentSecret {
    AgentSecret::new(SecretString::from(key))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pending(id: &str, key: Option<&str>, address: &str) -> PendingAgent {
    PendingAgent {
        id: AgentId::parse(id).unwrap(),
        hostname: "host".into(),
        api_url: "http://10.0.0.1:8001".into(),
        address: address.into(),
        secret: key.map(secret),
        certificate: None,
        public_key: None,
        tags: Default::default(),
        first_seen: at(0),
        last_seen: at(0),
    }
}

fn record(key: Option<&str>) -> AgentRecord {
    let record = pending("lab", key, "10.0.0.1").into_record(at(0));
    assert_eq!(record.link, LinkKind::Direct);
    record
}

/// The decision for a claim of agent `lab` at the address it is known by.
fn decided(
    key: Option<&str>,
    known: Option<&AgentRecord>,
    made: Option<&KnownKey>,
    admission: Admission,
) -> Decision {
    decided_at("http://10.0.0.1:8001", key, known, made, admission)
}

fn decided_at(
    api_url: &str,
    key: Option<&str>,
    known: Option<&AgentRecord>,
    made: Option<&KnownKey>,
    admission: Admission,
) -> Decision {
    let secret = key.map(secret);
    let claim = Claim {
        id: &AgentId::parse("lab").unwrap(),
        fingerprint: secret.as_ref().map(|secret| &secret.fingerprint),
        api_url,
        certificate: None,
        address: "10.0.0.1",
    };
    decide(&claim, known, made, admission, &[])
}

#[test]
fn unknown_agents_wait_unless_a_key_or_open_registration_admits_them() {
    let free = KnownKey { agent_id: None };
    let own = KnownKey {
        agent_id: Some(AgentId::parse("lab").unwrap()),
    };
    let other = KnownKey {
        agent_id: Some(AgentId::parse("office").unwrap()),
    };
    for (key, made, admission, expected) in [
        (None, None, Admission::Keys, Decision::Wait),
        (Some("k"), None, Admission::Keys, Decision::Wait),
        (Some("k"), Some(free), Admission::Keys, Decision::Admit),
        (Some("k"), Some(own), Admission::Keys, Decision::Admit),
        (
            Some("k"),
            Some(other.clone()),
            Admission::Keys,
            Decision::Refuse(Refusal::KeyOfAnother),
        ),
        (
            Some("k"),
            Some(other),
            Admission::Open,
            Decision::Refuse(Refusal::KeyOfAnother),
        ),
        (None, None, Admission::Open, Decision::Admit),
        (Some("k"), None, Admission::Open, Decision::Admit),
    ] {
        assert_eq!(
            decided(key, None, made.as_ref(), admission),
            expected,
            "{key:?} {made:?} {admission:?}"
        );
    }
}

#[test]
fn known_agents_prove_the_key_they_enrolled_with() {
    let keyed = record(Some("k"));
    let keyless = record(None);
    let moved = "http://10.0.0.9:8001";
    let wrong = Decision::Refuse(Refusal::WrongKey);
    let closed = Admission::Keys;
    assert_eq!(
        decided(Some("k"), Some(&keyed), None, closed),
        Decision::Update
    );
    assert_eq!(
        decided_at(moved, Some("k"), Some(&keyed), None, closed),
        Decision::Update
    );
    assert_eq!(decided(Some("x"), Some(&keyed), None, closed), wrong);
    assert_eq!(decided(None, Some(&keyed), None, closed), wrong);
    assert_eq!(decided(None, Some(&keyed), None, Admission::Open), wrong);
    assert_eq!(
        decided(None, Some(&keyless), None, closed),
        Decision::Update
    );
    assert_eq!(
        decided_at(moved, None, Some(&keyless), None, closed),
        Decision::WaitAgain
    );
    assert_eq!(
        decided(Some("k"), Some(&keyless), None, closed),
        Decision::Wait
    );
    let revoked = AgentRecord {
        revoked: true,
        ..keyed.clone()
    };
    assert_eq!(
        decided(Some("k"), Some(&revoked), None, Admission::Open),
        Decision::Refuse(Refusal::Revoked)
    );
    let new_key = KnownKey {
        agent_id: Some(keyed.id.clone()),
    };
    assert_eq!(
        decided(Some("new"), Some(&keyed), Some(&new_key), closed),
        Decision::Update
    );
    // A free key admits a new agent; it does not take over one that has another key.
    let free = KnownKey { agent_id: None };
    assert_eq!(
        decided(Some("new"), Some(&keyed), Some(&free), closed),
        wrong
    );
}

#[test]
fn only_a_key_lets_an_agent_come_with_another_certificate() {
    let shown = CertificateHash::from_bytes([7; 32]);
    let decided = |key: Option<&str>| {
        let secret = key.map(secret);
        let claim = Claim {
            id: &AgentId::parse("lab").unwrap(),
            fingerprint: secret.as_ref().map(|secret| &secret.fingerprint),
            api_url: "http://10.0.0.1:8001",
            certificate: Some(shown),
            address: "10.0.0.1",
        };
        decide(&claim, Some(&record(key)), None, Admission::Keys, &[])
    };
    assert_eq!(decided(Some("k")), Decision::Update);
    assert_eq!(decided(None), Decision::WaitAgain);
}

#[test]
fn waiting_registrations_are_limited_in_all_and_for_an_address() {
    let id = AgentId::parse("lab").unwrap();
    let claim = Claim {
        id: &id,
        fingerprint: None,
        api_url: "http://10.0.0.1:8001",
        certificate: None,
        address: "10.0.0.1",
    };
    let decide_among = |rows: &[PendingAgent]| decide(&claim, None, None, Admission::Keys, rows);
    let mut rows: Vec<_> = (0..9)
        .map(|n| pending(&format!("a{n}"), None, "10.0.0.1"))
        .collect();
    assert_eq!(decide_among(&rows), Decision::Wait);
    rows.push(pending("a9", None, "10.0.0.1"));
    assert_eq!(
        decide_among(&rows),
        Decision::Refuse(Refusal::TooManyFromAddress)
    );
    rows.push(pending("lab", None, "10.0.0.1"));
    assert_eq!(decide_among(&rows), Decision::Wait, "it waits already");
    let rows: Vec<_> = (0..MAX_PENDING)
        .map(|n| {
            pending(
                &format!("a{n}"),
                None,
                &format!("10.1.{}.{}", n / 250, n % 250),
            )
        })
        .collect();
    assert_eq!(
        decide_among(&rows),
        Decision::Refuse(Refusal::TooManyPending)
    );
}

#[test]
fn approvals_mean_exactly_one_registration() {
    let rows = [
        pending("lab", Some("one"), "10.0.0.1"),
        pending("lab", Some("two"), "10.0.0.2"),
    ];
    let two = rows[1].secret.as_ref().unwrap().fingerprint.clone();
    let chosen = |rows: &[PendingAgent], fingerprint: Option<&str>| {
        choose(rows, fingerprint).map(|row| row.address.clone())
    };
    assert_eq!(chosen(&[], None), Err(Ambiguity::None));
    assert_eq!(chosen(&rows[..1], None), Ok("10.0.0.1".into()));
    assert_eq!(chosen(&rows, None), Err(Ambiguity::Several));
    assert_eq!(chosen(&rows, Some(two.shown())), Ok("10.0.0.2".into()));
    assert_eq!(chosen(&rows, Some(two.as_str())), Ok("10.0.0.2".into()));
    assert_eq!(
        chosen(&rows[..1], Some(two.shown())),
        Err(Ambiguity::Changed)
    );
    assert_eq!(chosen(&rows, Some("")), Err(Ambiguity::Changed));
}

#[test]
fn heartbeats_count_only_with_the_right_key() {
    let keyed = record(Some("k"));
    let revoked = AgentRecord {
        revoked: true,
        ..keyed.clone()
    };
    let waiting = [pending("lab", Some("w"), "10.0.0.1")];
    let beat = |record: Option<&AgentRecord>, waiting: &[PendingAgent], key: Option<&str>| {
        let secret = key.map(secret);
        check_heartbeat(
            record,
            waiting,
            secret.as_ref().map(|secret| &secret.fingerprint),
        )
    };
    assert_eq!(beat(None, &[], Some("k")), Err(HeartbeatRefusal::Unknown));
    assert_eq!(beat(Some(&keyed), &[], Some("k")), Ok(()));
    assert_eq!(
        beat(Some(&keyed), &[], None),
        Err(HeartbeatRefusal::WrongKey)
    );
    assert_eq!(
        beat(Some(&keyed), &waiting, Some("w")),
        Err(HeartbeatRefusal::WrongKey)
    );
    assert_eq!(beat(Some(&record(None)), &[], None), Ok(()));
    assert_eq!(
        beat(Some(&revoked), &[], Some("k")),
        Err(HeartbeatRefusal::Revoked)
    );
    assert_eq!(beat(None, &waiting, Some("w")), Ok(()));
    assert_eq!(
        beat(None, &waiting, Some("x")),
        Err(HeartbeatRefusal::WrongKey)
    );
}

#[test]
fn registrations_are_forgotten_after_a_day() {
    let row = pending("lab", None, "10.0.0.1");
    assert!(!is_expired(&row, at(24 * 3600)));
    assert!(is_expired(&row, at(24 * 3600 + 1)));
    assert!(!is_expired(&row, at(-100_000)), "a clock set back");
}

#[test]
fn two_different_keys_in_one_request_are_refused() {
    assert_eq!(one_key(Some("a"), None), Ok(Some("a")));
    assert_eq!(one_key(None, Some("a")), Ok(Some("a")));
    assert_eq!(one_key(Some("a"), Some("a")), Ok(Some("a")));
    assert_eq!(one_key(Some("a"), Some("b")), Err(KeysDiffer));
    assert_eq!(one_key(Some(""), Some("b")), Ok(Some("b")));
    assert_eq!(one_key(None, None), Ok(None));
}
