//! The store's promises, kept by both databases. A case is given an empty store; [`cases!`] runs all of them on
//! SQLite, one test each, and on PostgreSQL in one test that starts one server.

mod audit;
mod cloud_init;
mod fleet;
mod terminals;
mod tokens;

use std::time::Duration;

use batwa_api::{
    Timestamp,
    id::{SessionId, TokenId, UserId},
    user::{Role, User},
};

use super::{
    Db, Store,
    audit::{AuditPage, NewAuditEntry},
    on,
    postgres::Postgres,
    sessions::NewSession,
    tokens::NewToken,
    users::{Account, Changed, UserChanges},
};

use audit::{
    a_changed_line_breaks_the_chain, audit_lines_cannot_be_changed_or_removed,
    audit_lines_form_an_unbroken_chain_whoever_writes_at_once,
};
use cloud_init::{
    ones_keys_are_each_there_once_and_no_more_than_may_be,
    requests_with_user_data_come_back_and_are_sealed_meanwhile,
    templates_come_back_and_their_secrets_are_sealed,
};
use fleet::{
    a_key_names_its_operation_and_no_other_request, agents_come_back_as_they_were_written,
    an_agents_key_belongs_to_the_first_that_uses_it,
    openers_of_sessions_that_are_there_are_never_forgotten,
    operations_are_listed_newest_first_counted_and_forgotten_when_old,
    registrations_wait_one_row_for_each_id_and_key,
    removing_an_agent_removes_what_is_known_of_it_and_nothing_else,
    the_last_changes_of_a_link_are_kept_in_order_and_no_more,
    vms_come_back_with_labels_and_since_when_they_are_missing,
};
use terminals::{
    a_decision_is_what_it_was_last, guests_go_with_their_session_and_with_their_account,
};
use tokens::{
    a_token_is_found_until_it_expires, a_token_never_has_more_rights_than_its_owner, token,
};

macro_rules! cases {
    ($($case:ident,)*) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $case() {
                    let folder = tempfile::tempdir().unwrap();
                    let store = super::Store::open(folder.path(), None).await.unwrap();
                    super::$case(store).await;
                }
            )*
        }

        #[tokio::test]
        async fn every_case_holds_on_postgresql() {
            let Some(server) = Postgres::start().await else {
                return;
            };
            $(
                eprintln!("{}", stringify!($case));
                let store = server.store(stringify!($case)).await;
                $case(store.clone()).await;
                store.close().await;
            )*
        }
    };
}

cases! {
    accounts_come_back_as_they_were_written,
    two_names_never_differ_by_case_alone,
    there_is_one_first_admin_however_many_try,
    two_admins_who_demote_each_other_leave_one,
    a_session_is_found_until_it_is_over,
    a_new_password_ends_all_sessions_but_the_one_kept,
    removing_an_account_removes_its_sessions_and_tokens,
    an_account_has_a_bounded_number_of_sessions,
    an_account_remembers_its_last_addresses,
    a_token_is_found_until_it_expires,
    a_token_never_has_more_rights_than_its_owner,
    audit_lines_form_an_unbroken_chain_whoever_writes_at_once,
    audit_lines_cannot_be_changed_or_removed,
    a_changed_line_breaks_the_chain,
    a_transaction_that_is_dropped_leaves_nothing,
    agents_come_back_as_they_were_written,
    removing_an_agent_removes_what_is_known_of_it_and_nothing_else,
    registrations_wait_one_row_for_each_id_and_key,
    an_agents_key_belongs_to_the_first_that_uses_it,
    vms_come_back_with_labels_and_since_when_they_are_missing,
    the_last_changes_of_a_link_are_kept_in_order_and_no_more,
    openers_of_sessions_that_are_there_are_never_forgotten,
    guests_go_with_their_session_and_with_their_account,
    a_decision_is_what_it_was_last,
    a_key_names_its_operation_and_no_other_request,
    operations_are_listed_newest_first_counted_and_forgotten_when_old,
    templates_come_back_and_their_secrets_are_sealed,
    ones_keys_are_each_there_once_and_no_more_than_may_be,
    requests_with_user_data_come_back_and_are_sealed_meanwhile,
}

fn now() -> Timestamp {
    // Columns hold milliseconds.
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

fn account(name: &str, role: Role) -> Account {
    Account {
        user: User {
            id: UserId::new(),
            name: name.to_owned(),
            role,
            terminal: role != Role::Viewer,
            created_at: now(),
            last_signed_in_at: None,
        },
        password_hash: format!("hash of {name}"),
    }
}

async fn with_account(store: &Store, name: &str, role: Role) -> User {
    let account = account(name, role);
    assert!(store.insert_user(&account).await.unwrap());
    account.user
}

fn session(user: &User, secret: u8) -> NewSession {
    NewSession {
        id: SessionId::new(),
        user_id: user.id,
        secret_hash: [secret; 32],
        address: "192.0.2.1".to_owned(),
        user_agent: "Browser/1.0 (ünïcode)".to_owned(),
        created_at: now(),
        expires_at: now() + Duration::from_secs(3600),
    }
}

fn long_ago() -> Timestamp {
    now() - Duration::from_secs(24 * 3600)
}

async fn holds(store: &Store, secret: u8) -> bool {
    store
        .session_holder(&[secret; 32], now(), long_ago())
        .await
        .unwrap()
        .is_some()
}

async fn accounts_come_back_as_they_were_written(store: Store) {
    let ann = account("Ann", Role::Operator);
    assert!(store.insert_user(&ann).await.unwrap());
    let found = store.user_by_name("aNN").await.unwrap().unwrap();
    assert_eq!(found.user, ann.user);
    assert_eq!(found.password_hash, ann.password_hash);
    let at = now();
    store
        .note_sign_in(ann.user.id, "192.0.2.1", at, 5)
        .await
        .unwrap();
    let found = store.user_by_id(ann.user.id).await.unwrap().unwrap();
    assert_eq!(found.user.last_signed_in_at, Some(at));
    assert!(store.user_by_name("bob").await.unwrap().is_none());
    assert!(store.user_by_id(UserId::new()).await.unwrap().is_none());
    with_account(&store, "Zoe", Role::Viewer).await;
    with_account(&store, "bob", Role::Viewer).await;
    let names: Vec<_> = store
        .users()
        .await
        .unwrap()
        .into_iter()
        .map(|user| user.name)
        .collect();
    assert_eq!(names, ["Ann", "bob", "Zoe"]);
}

async fn two_names_never_differ_by_case_alone(store: Store) {
    with_account(&store, "ann", Role::Viewer).await;
    assert!(
        !store
            .insert_user(&account("ANN", Role::Viewer))
            .await
            .unwrap()
    );
    assert_eq!(store.users().await.unwrap().len(), 1);
}

async fn there_is_one_first_admin_however_many_try(store: Store) {
    assert!(!store.has_admin().await.unwrap());
    let tries = (0..8).map(|n| {
        let store = store.clone();
        async move {
            store
                .insert_first_admin(&account(&format!("a{n}"), Role::Admin))
                .await
                .unwrap()
        }
    });
    let made = futures_util::future::join_all(tries).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    assert!(store.has_admin().await.unwrap());
    assert_eq!(store.users().await.unwrap().len(), 1);
}

async fn two_admins_who_demote_each_other_leave_one(store: Store) {
    let ann = with_account(&store, "ann", Role::Admin).await;
    let bob = with_account(&store, "bob", Role::Admin).await;
    let demote = UserChanges {
        role: Some(Role::Viewer),
        ..UserChanges::default()
    };
    let (one, two) = tokio::join!(
        store.update_user(ann.id, &demote),
        store.delete_user(bob.id)
    );
    let refused = [
        one.unwrap() == Changed::LastAdmin,
        two.unwrap() == Changed::LastAdmin,
    ];
    assert_eq!(
        refused.iter().filter(|refused| **refused).count(),
        1,
        "{refused:?}"
    );
    assert!(store.has_admin().await.unwrap());
    assert_eq!(
        store.delete_user(UserId::new()).await.unwrap(),
        Changed::NotFound
    );
}

async fn a_session_is_found_until_it_is_over(store: Store) {
    let ann = with_account(&store, "ann", Role::Operator).await;
    let new = session(&ann, 1);
    store.insert_session(&new, long_ago()).await.unwrap();
    let holder = store
        .session_holder(&[1; 32], now(), long_ago())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (holder.id, holder.user_id, &*holder.name),
        (new.id, ann.id, "ann")
    );
    assert_eq!((holder.role, holder.terminal), (Role::Operator, true));
    assert!(
        store
            .session_holder_by_id(new.id, now(), long_ago())
            .await
            .unwrap()
            .is_some()
    );
    assert!(!holds(&store, 2).await, "another secret");
    let late = new.expires_at;
    assert!(
        store
            .session_holder(&[1; 32], late, long_ago())
            .await
            .unwrap()
            .is_none(),
        "absolute limit"
    );
    let idle = now() + Duration::from_secs(1);
    assert!(
        store
            .session_holder(&[1; 32], now(), idle)
            .await
            .unwrap()
            .is_none(),
        "idle limit"
    );
    store
        .touch_session(new.id, idle + Duration::from_secs(1))
        .await
        .unwrap();
    assert!(
        store
            .session_holder(&[1; 32], now(), idle)
            .await
            .unwrap()
            .is_some(),
        "used meanwhile"
    );
    let listed = store
        .sessions_of(ann.id, Some(new.id), now(), long_ago())
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].user_agent, new.user_agent);
    assert!(listed[0].current);
    assert!(
        !store.delete_session(new.id, UserId::new()).await.unwrap(),
        "somebody else's"
    );
    assert!(store.delete_session(new.id, ann.id).await.unwrap());
    assert!(!holds(&store, 1).await);
}

async fn a_new_password_ends_all_sessions_but_the_one_kept(store: Store) {
    let ann = with_account(&store, "ann", Role::Admin).await;
    let bob = with_account(&store, "bob", Role::Viewer).await;
    let kept = session(&ann, 1);
    for new in [kept.clone(), session(&ann, 2), session(&bob, 3)] {
        store.insert_session(&new, long_ago()).await.unwrap();
    }
    store
        .set_password(ann.id, "another", Some(kept.id))
        .await
        .unwrap();
    assert_eq!(
        (
            holds(&store, 1).await,
            holds(&store, 2).await,
            holds(&store, 3).await
        ),
        (true, false, true)
    );
    assert_eq!(
        store
            .user_by_id(ann.id)
            .await
            .unwrap()
            .unwrap()
            .password_hash,
        "another"
    );
    let by_admin = UserChanges {
        password_hash: Some("third".to_owned()),
        ..UserChanges::default()
    };
    assert!(matches!(
        store.update_user(ann.id, &by_admin).await.unwrap(),
        Changed::Yes(_)
    ));
    assert!(!holds(&store, 1).await);
}

async fn removing_an_account_removes_its_sessions_and_tokens(store: Store) {
    with_account(&store, "root", Role::Admin).await;
    let ann = with_account(&store, "ann", Role::Viewer).await;
    store
        .insert_session(&session(&ann, 1), long_ago())
        .await
        .unwrap();
    store.insert_token(&token(&ann, 2, None)).await.unwrap();
    store
        .note_sign_in(ann.id, "192.0.2.1", now(), 5)
        .await
        .unwrap();
    assert_eq!(
        store.delete_user(ann.id).await.unwrap(),
        Changed::Yes("ann".to_owned())
    );
    assert!(!holds(&store, 1).await);
    assert!(store.token_holder(&[2; 32], now()).await.unwrap().is_none());
    assert!(!store.knows_address(ann.id, "192.0.2.1").await.unwrap());
}

async fn an_account_has_a_bounded_number_of_sessions(store: Store) {
    let ann = with_account(&store, "ann", Role::Viewer).await;
    for n in 0..=100 {
        let mut new = session(&ann, n);
        new.created_at = long_ago() + Duration::from_secs(u64::from(n) + 1);
        store.insert_session(&new, long_ago()).await.unwrap();
    }
    assert!(
        !holds(&store, 0).await,
        "the one used longest ago made room"
    );
    assert!(holds(&store, 1).await && holds(&store, 100).await);
}

async fn an_account_remembers_its_last_addresses(store: Store) {
    let ann = with_account(&store, "ann", Role::Viewer).await;
    for n in 0..4 {
        let at = long_ago() + Duration::from_secs(n);
        store
            .note_sign_in(ann.id, &format!("192.0.2.{n}"), at, 3)
            .await
            .unwrap();
    }
    let mut known = Vec::new();
    for n in 0..4 {
        known.push(
            store
                .knows_address(ann.id, &format!("192.0.2.{n}"))
                .await
                .unwrap(),
        );
    }
    assert_eq!(known, [false, true, true, true]);
}

async fn a_transaction_that_is_dropped_leaves_nothing(store: Store) {
    let mut tx = store.begin().await.unwrap();
    let sql = "INSERT INTO settings (name, value) VALUES ('a', 'b')";
    on!(&mut tx, tx => sqlx::query(sql).execute(&mut **tx).await.map(drop)).unwrap();
    drop(tx);
    let sql = "SELECT count(*) FROM settings";
    let count: i64 = on!(store.db(), db => sqlx::query_scalar(sql).fetch_one(db).await).unwrap();
    assert_eq!(count, 0);
}
