//! Agents, their keys, VMs, links and operations.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use batwa_api::{
    Timestamp,
    agent::{AgentKey, AgentStatus, LinkChange, LinkKind},
    id::{AgentId, AgentKeyId, OperationId, TerminalId, UserId},
    name::VmName,
    operation::{Operation, OperationRequest, OperationState, StartOperation},
    vm::{VmSpec, VmState},
};
use secrecy::{ExposeSecret, SecretString};

use super::now;
use crate::{
    fleet::{
        record::{AgentRecord, AgentSecret, PendingAgent},
        row::{About, Row},
        state::tests::{id, info, name, vm},
    },
    store::{
        Store,
        agents::Sighting,
        links::KEPT_LINKS,
        operations::{Accepted, Idempotency, NewOperation, OperationQuery},
    },
};

fn record(agent: &str) -> AgentRecord {
    AgentRecord {
        id: id(agent),
        display_name: Some("The lab".to_owned()),
        link: LinkKind::Direct,
        api_url: "http://192.0.2.7:8001".to_owned(),
        secret: Some(AgentSecret::new(SecretString::from("a key"))),
        token_labels: [("site".to_owned(), "a".to_owned())].into(),
        tags: [("room".to_owned(), "3".to_owned())].into(),
        admin_labels: [
            ("gpu".to_owned(), Some("yes".to_owned())),
            ("room".to_owned(), None),
        ]
        .into(),
        notes: "under the stairs\nü".to_owned(),
        cordoned: true,
        ..AgentRecord::local("host".to_owned(), now())
    }
}

pub(super) async fn agents_come_back_as_they_were_written(store: Store) {
    let written = record("lab");
    store.save_agent(&written).await.unwrap();
    store
        .save_agent(&AgentRecord {
            id: id("office"),
            ..written.clone()
        })
        .await
        .unwrap();
    let seen = now();
    let sighting = Sighting {
        id: id("lab"),
        last_seen: Some(seen),
        legacy: true,
        info: Some(info("lab")),
    };
    store
        .save_sightings(std::slice::from_ref(&sighting))
        .await
        .unwrap();
    // A sighting without news of the agent itself leaves what it last said.
    store
        .save_sightings(&[Sighting {
            info: None,
            ..sighting
        }])
        .await
        .unwrap();
    let agents = store.agents().await.unwrap();
    assert_eq!(agents.len(), 2);
    let lab = &agents[0];
    assert_eq!(lab.record.id, id("lab"));
    assert_eq!(lab.record.display_name, written.display_name);
    assert_eq!(lab.record.api_url, written.api_url);
    assert_eq!(lab.record.token_labels, written.token_labels);
    assert_eq!(lab.record.tags, written.tags);
    assert_eq!(lab.record.admin_labels, written.admin_labels);
    assert_eq!(lab.record.notes, written.notes);
    assert_eq!((lab.record.cordoned, lab.record.revoked), (true, false));
    assert_eq!(lab.record.last_seen, Some(seen));
    let key = lab.record.secret.as_ref().unwrap();
    assert_eq!(key.key.expose_secret(), "a key");
    assert!(lab.legacy);
    assert_eq!(lab.info, Some(info("lab")));
    store
        .save_agent(&AgentRecord {
            revoked: true,
            ..written
        })
        .await
        .unwrap();
    let agents = store.agents().await.unwrap();
    assert!(agents[0].record.revoked);
    assert_eq!(
        agents[0].info,
        Some(info("lab")),
        "what it said of itself stays"
    );
}

pub(super) async fn removing_an_agent_removes_what_is_known_of_it_and_nothing_else(store: Store) {
    for agent in ["lab", "office"] {
        store.save_agent(&record(agent)).await.unwrap();
        let row = Row::new(id(agent), vm("web", VmState::Running), Default::default());
        store
            .save_vms(&[((id(agent), name("web")), Some(Arc::new(row)))])
            .await
            .unwrap();
        store.save_links(&[(id(agent), link(0))]).await.unwrap();
        store
            .save_opener(TerminalId::new(), &id(agent), UserId::new(), "ann", now())
            .await
            .unwrap();
    }
    store.delete_agent(&id("lab")).await.unwrap();
    let left: Vec<AgentId> = store
        .agents()
        .await
        .unwrap()
        .into_iter()
        .map(|agent| agent.record.id)
        .collect();
    assert_eq!(left, [id("office")]);
    assert_eq!(store.vms().await.unwrap().len(), 1);
    assert!(store.links(&id("lab")).await.unwrap().is_empty());
    assert_eq!(store.links(&id("office")).await.unwrap().len(), 1);
    assert_eq!(store.ownerships().await.unwrap().len(), 1);
}

pub(super) async fn registrations_wait_one_row_for_each_id_and_key(store: Store) {
    let waiting = |key: Option<&str>, address: &str| PendingAgent {
        id: id("lab"),
        hostname: "host".to_owned(),
        api_url: "http://192.0.2.7:8001".to_owned(),
        address: address.to_owned(),
        secret: key.map(|key| AgentSecret::new(SecretString::from(key))),
        certificate: None,
        public_key: None,
        tags: Default::default(),
        first_seen: now(),
        last_seen: now(),
    };
    for row in [
        waiting(None, "192.0.2.1"),
        waiting(Some("a"), "192.0.2.2"),
        waiting(Some("b"), "192.0.2.3"),
        waiting(Some("a"), "192.0.2.4"),
    ] {
        store.save_registration(&row).await.unwrap();
    }
    let mut addresses: Vec<_> = store
        .registrations()
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.address)
        .collect();
    addresses.sort();
    assert_eq!(addresses, ["192.0.2.1", "192.0.2.3", "192.0.2.4"]);
    store
        .delete_registration(&waiting(Some("a"), ""))
        .await
        .unwrap();
    assert_eq!(store.registrations().await.unwrap().len(), 2);
}

pub(super) async fn an_agents_key_belongs_to_the_first_that_uses_it(store: Store) {
    let secret = AgentSecret::new(SecretString::from("agent key"));
    let key = AgentKeyId::new();
    let made = AgentKey {
        id: key,
        name: "any".to_owned(),
        agent_id: None,
        fingerprint: secret.fingerprint.shown().to_owned(),
        created_at: now(),
        last_used_at: None,
    };
    store
        .insert_agent_key(&made, &secret.fingerprint)
        .await
        .unwrap();
    let found = store
        .agent_key_by_fingerprint(&secret.fingerprint)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found, made);
    assert!(store.use_agent_key(key, &id("lab"), now()).await.unwrap());
    assert!(
        store.use_agent_key(key, &id("lab"), now()).await.unwrap(),
        "its owner uses it again"
    );
    assert!(
        !store
            .use_agent_key(key, &id("office"), now())
            .await
            .unwrap()
    );
    assert_eq!(
        store.agent_keys().await.unwrap()[0].agent_id,
        Some(id("lab"))
    );
    assert!(store.delete_agent_key(key).await.unwrap());
    assert!(!store.delete_agent_key(key).await.unwrap());
    assert!(
        store
            .agent_key_by_fingerprint(&secret.fingerprint)
            .await
            .unwrap()
            .is_none()
    );
}

pub(super) async fn vms_come_back_with_labels_and_since_when_they_are_missing(store: Store) {
    let spec = VmSpec {
        labels: [("env".to_owned(), "prod ü".to_owned())].into(),
        display_name: Some("The web".to_owned()),
        notes: Some("two\nlines".to_owned()),
        ..VmSpec::default()
    };
    let about = About::of_new(&spec, "ann");
    let mut missing = Row::new(id("lab"), vm("web", VmState::Running), about);
    Arc::make_mut(&mut missing.vm).location = Some("/srv/vms/web".to_owned());
    missing.missing_since = Some(now());
    let there = Row::new(id("lab"), vm("db", VmState::Stopped), Default::default());
    let key = |text: &str| (id("lab"), name(text));
    let changes = [
        (key("web"), Some(Arc::new(missing.clone()))),
        (key("db"), Some(Arc::new(there.clone()))),
    ];
    store.save_vms(&changes).await.unwrap();
    let mut rows = store.vms().await.unwrap();
    rows.sort_by_key(Row::name_key);
    assert_eq!(rows, [there, missing.clone()]);
    missing.missing_since = None;
    Arc::make_mut(&mut missing.vm).state = VmState::Stopped;
    let changes = [
        (key("web"), Some(Arc::new(missing.clone()))),
        (key("db"), None),
    ];
    store.save_vms(&changes).await.unwrap();
    assert_eq!(store.vms().await.unwrap(), [missing]);
}

fn link(second: i64) -> LinkChange {
    LinkChange {
        at: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        status: if second % 2 == 0 {
            AgentStatus::Online
        } else {
            AgentStatus::Offline
        },
        link: LinkKind::Tunnel,
        reason: (second % 2 == 1).then(|| format!("reason {second}")),
    }
}

pub(super) async fn the_last_changes_of_a_link_are_kept_in_order_and_no_more(store: Store) {
    let many: Vec<_> = (0..KEPT_LINKS + 50)
        .map(|second| (id("lab"), link(second)))
        .collect();
    store.save_links(&many).await.unwrap();
    store.save_links(&[(id("office"), link(0))]).await.unwrap();
    store.prune_links().await.unwrap();
    let kept = store.links(&id("lab")).await.unwrap();
    let expected: Vec<_> = (50..KEPT_LINKS + 50).rev().map(link).collect();
    assert_eq!(kept, expected);
    assert_eq!(store.links(&id("office")).await.unwrap(), [link(0)]);
}

pub(super) async fn openers_of_sessions_that_are_there_are_never_forgotten(store: Store) {
    let (there, gone, young) = (TerminalId::new(), TerminalId::new(), TerminalId::new());
    let old = now() - Duration::from_secs(3600);
    for (terminal, at) in [(there, old), (gone, old), (young, now())] {
        store
            .save_opener(terminal, &id("lab"), UserId::new(), "ann", at)
            .await
            .unwrap();
    }
    let before = now() - Duration::from_secs(60);
    store
        .prune_openers(before, &BTreeSet::from([there]))
        .await
        .unwrap();
    let left: BTreeSet<_> = store.ownerships().await.unwrap().into_keys().collect();
    assert_eq!(left, [there, young].into());
}

fn operation(agent: &str, vm: &str) -> Operation {
    Operation {
        requested_by: Some("ann".to_owned()),
        ..Operation::new(
            OperationId::new(),
            id(agent),
            name(vm),
            &OperationRequest::Start,
            now(),
        )
    }
}

fn new(operation: &Operation, key: Option<(&str, u8)>) -> NewOperation {
    NewOperation {
        operation: operation.clone(),
        request: StartOperation {
            subject: VmName::parse("web").unwrap().into(),
            request: OperationRequest::Start,
            requested_by: Some("ann".to_owned()),
        },
        idempotency: key.map(|(key, body)| Idempotency {
            key: key.to_owned(),
            body_hash: vec![body; 32],
        }),
    }
}

pub(super) async fn a_key_names_its_operation_and_no_other_request(store: Store) {
    let since = now() - Duration::from_secs(3600);
    let first = operation("lab", "web");
    let insert = async |new: NewOperation| store.insert_operation(&new, since).await.unwrap();
    assert_eq!(insert(new(&first, Some(("ann:k", 1)))).await, Accepted::New);
    let again = operation("lab", "web");
    assert_eq!(
        insert(new(&again, Some(("ann:k", 1)))).await,
        Accepted::Known(first.id)
    );
    assert_eq!(
        insert(new(&again, Some(("ann:k", 2)))).await,
        Accepted::KeyOfAnother
    );
    assert_eq!(insert(new(&again, Some(("bob:k", 2)))).await, Accepted::New);
    assert_eq!(
        insert(new(&operation("lab", "web"), None)).await,
        Accepted::New
    );
    let request = store.operation_request(first.id).await.unwrap().unwrap();
    assert_eq!(request.request, OperationRequest::Start);
    store.delete_operation(first.id).await.unwrap();
    assert_eq!(
        insert(new(&operation("lab", "web"), Some(("ann:k", 2)))).await,
        Accepted::New
    );
}

pub(super) async fn operations_are_listed_newest_first_counted_and_forgotten_when_old(
    store: Store,
) {
    let since = now() - Duration::from_secs(3600);
    let mut made = Vec::new();
    for (agent, vm) in [
        ("lab", "web"),
        ("lab", "db"),
        ("office", "web"),
        ("lab", "web"),
    ] {
        let operation = operation(agent, vm);
        store
            .insert_operation(&new(&operation, None), since)
            .await
            .unwrap();
        made.push(operation);
    }
    let finished_at = now() - Duration::from_secs(100);
    let done = Operation {
        state: OperationState::Succeeded,
        finished_at: Some(finished_at),
        ..made[0].clone()
    };
    store
        .save_operations(std::slice::from_ref(&done))
        .await
        .unwrap();
    assert_eq!(store.operation(done.id).await.unwrap(), Some(done.clone()));
    let ids = |operations: Vec<Operation>| -> Vec<_> {
        operations
            .into_iter()
            .map(|operation| operation.id)
            .collect()
    };
    let mut unfinished = ids(store.unfinished_operations().await.unwrap());
    unfinished.sort();
    assert_eq!(unfinished, ids(made[1..].to_vec()));
    let lab = OperationQuery {
        agent: Some(id("lab")),
        vm: Some(name("web")),
        limit: 10,
        ..OperationQuery::default()
    };
    assert_eq!(
        ids(store.list_operations(&lab).await.unwrap()),
        [made[3].id, made[0].id]
    );
    let counts = store.count_operations(&lab).await.unwrap();
    assert_eq!(counts.total, 2);
    assert_eq!(counts.states[&OperationState::Succeeded], 1);
    let page = OperationQuery {
        before: Some(made[3].id),
        limit: 1,
        ..OperationQuery::default()
    };
    let page = ids(store.list_operations(&page).await.unwrap());
    assert_eq!(
        page,
        [made[2].id, made[1].id],
        "one more than asked tells that there are more"
    );
    store
        .prune_operations(now() - Duration::from_secs(50))
        .await
        .unwrap();
    assert_eq!(store.operation(done.id).await.unwrap(), None);
    assert_eq!(store.unfinished_operations().await.unwrap().len(), 3);
}
