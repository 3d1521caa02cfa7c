//! Whose terminal sessions are, and who is invited to them; what an admin decided of recordings.

use std::collections::BTreeSet;

use batwa_api::{
    id::TerminalId,
    recording::{RecordingPolicy, RecordingRule},
    terminal::TerminalAccess,
    user::Role,
};

use super::{now, with_account};
use crate::{fleet::state::tests::id, store::Store};

pub(super) async fn guests_go_with_their_session_and_with_their_account(store: Store) {
    // Somebody has to be one: the last admin is never removed, nor anybody where there is none.
    with_account(&store, "root", Role::Admin).await;
    let ann = with_account(&store, "ann", Role::Operator).await;
    let bob = with_account(&store, "bob", Role::Operator).await;
    let vic = with_account(&store, "vic", Role::Viewer).await;
    let (first, second) = (TerminalId::new(), TerminalId::new());
    for terminal in [first, second] {
        store
            .save_opener(terminal, &id("lab"), ann.id, "ann", now())
            .await
            .unwrap();
        for guest in [bob.id, vic.id] {
            store
                .save_guest(terminal, guest, TerminalAccess::Watch, now())
                .await
                .unwrap();
        }
    }
    store
        .save_guest(first, bob.id, TerminalAccess::Write, now())
        .await
        .unwrap();
    let guests = async |terminal| {
        let all = store.ownerships().await.unwrap();
        let ownership = all.get(&terminal)?.clone();
        assert_eq!(ownership.owner, Some(ann.id));
        let guests = ownership.guests.into_values();
        let mut words: Vec<_> = guests
            .map(|guest| format!("{} {}", guest.user, guest.access.as_str()))
            .collect();
        words.sort();
        Some(words.join(", "))
    };
    assert_eq!(guests(first).await.as_deref(), Some("bob write, vic watch"));
    assert_eq!(
        guests(second).await.as_deref(),
        Some("bob watch, vic watch")
    );
    store.delete_guests(first, Some(bob.id)).await.unwrap();
    assert_eq!(guests(first).await.as_deref(), Some("vic watch"));
    store.delete_user(vic.id).await.unwrap();
    assert_eq!(guests(first).await.as_deref(), Some(""));
    store.delete_guests(second, None).await.unwrap();
    assert_eq!(guests(second).await.as_deref(), Some(""));
    store
        .save_guest(second, bob.id, TerminalAccess::Watch, now())
        .await
        .unwrap();
    let later = now() + std::time::Duration::from_secs(60);
    store.prune_openers(later, &BTreeSet::new()).await.unwrap();
    assert!(store.ownerships().await.unwrap().is_empty());
}

pub(super) async fn a_decision_is_what_it_was_last(store: Store) {
    let read = async || {
        store
            .setting::<RecordingPolicy>("recording_policy")
            .await
            .unwrap()
    };
    assert_eq!(read().await, None);
    let mut policy = RecordingPolicy {
        rules: vec![RecordingRule {
            user: Some("ann".to_owned()),
            ..RecordingRule::default()
        }],
    };
    for _ in 0..2 {
        store
            .save_setting("recording_policy", &policy)
            .await
            .unwrap();
        assert_eq!(read().await, Some(policy.clone()));
        policy.rules.clear();
    }
}
