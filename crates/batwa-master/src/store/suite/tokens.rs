//! API tokens.

use super::*;

pub(super) fn token(user: &User, secret: u8, role: Option<Role>) -> NewToken {
    NewToken {
        id: TokenId::new(),
        user_id: user.id,
        name: format!("token {secret}"),
        role,
        secret_hash: [secret; 32],
        created_at: now(),
        expires_at: None,
    }
}

pub(super) async fn a_token_is_found_until_it_expires(store: Store) {
    let ann = with_account(&store, "ann", Role::Operator).await;
    let bob = with_account(&store, "bob", Role::Operator).await;
    let expiry = now() + Duration::from_secs(60);
    let new = NewToken {
        expires_at: Some(expiry),
        ..token(&ann, 1, None)
    };
    store.insert_token(&new).await.unwrap();
    store
        .insert_token(&token(&bob, 2, Some(Role::Viewer)))
        .await
        .unwrap();
    assert!(store.token_holder(&[1; 32], now()).await.unwrap().is_some());
    assert!(
        store
            .token_holder(&[1; 32], expiry)
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        store
            .token_holder_by_id(new.id, now())
            .await
            .unwrap()
            .is_some()
    );
    let at = now();
    store.touch_token(new.id, at).await.unwrap();
    let anns = store.tokens(Some(ann.id)).await.unwrap();
    assert_eq!(anns.len(), 1);
    assert_eq!(
        (anns[0].last_used_at, anns[0].expires_at),
        (Some(at), Some(expiry))
    );
    assert_eq!(store.tokens(None).await.unwrap().len(), 2);
    assert_eq!(
        store.delete_token(new.id, Some(bob.id)).await.unwrap(),
        None,
        "somebody else's"
    );
    assert_eq!(
        store
            .delete_token(new.id, Some(ann.id))
            .await
            .unwrap()
            .as_deref(),
        Some("token 1")
    );
    assert!(store.token_holder(&[1; 32], now()).await.unwrap().is_none());
}

pub(super) async fn a_token_never_has_more_rights_than_its_owner(store: Store) {
    with_account(&store, "root", Role::Admin).await;
    let ann = with_account(&store, "ann", Role::Admin).await;
    for (secret, role) in [
        (1, None),
        (2, Some(Role::Admin)),
        (3, Some(Role::Operator)),
        (4, Some(Role::Viewer)),
    ] {
        store
            .insert_token(&token(&ann, secret, role))
            .await
            .unwrap();
    }
    let rights = async || {
        let mut all = Vec::new();
        for secret in 1..=4 {
            let holder = store
                .token_holder(&[secret; 32], now())
                .await
                .unwrap()
                .unwrap();
            all.push((holder.role, holder.terminal));
        }
        all
    };
    let (viewer, operator, admin) = (Role::Viewer, Role::Operator, Role::Admin);
    assert_eq!(
        rights().await,
        [
            (admin, true),
            (admin, true),
            (operator, true),
            (viewer, false)
        ]
    );
    let changes = UserChanges {
        role: Some(Role::Operator),
        ..UserChanges::default()
    };
    store.update_user(ann.id, &changes).await.unwrap();
    assert_eq!(
        rights().await,
        [
            (operator, true),
            (operator, true),
            (operator, true),
            (viewer, false)
        ]
    );
    let changes = UserChanges {
        terminal: Some(false),
        ..UserChanges::default()
    };
    store.update_user(ann.id, &changes).await.unwrap();
    assert!(rights().await.iter().all(|(_, terminal)| !terminal));
}
