//! The audit and its chain.

use super::*;

fn line(n: usize) -> NewAuditEntry {
    NewAuditEntry {
        at: now(),
        actor: "ann".to_owned(),
        via: "session",
        address: "192.0.2.1".to_owned(),
        action: "vm.start".to_owned(),
        target: format!("lab/wéb-{n}"),
        result: "ok",
        detail: n.is_multiple_of(2).then(|| "with \"quotes\"".to_owned()),
        request_id: format!("r{n}"),
    }
}

pub(super) async fn audit_lines_form_an_unbroken_chain_whoever_writes_at_once(store: Store) {
    let writes = (0..20).map(|n| {
        let store = store.clone();
        async move { store.append_audit(line(n)).await.unwrap() }
    });
    futures_util::future::join_all(writes).await;
    let page = |before, limit| store.audit_page(AuditPage { before, limit });
    let newest = page(i64::MAX, 5).await.unwrap();
    assert_eq!(
        newest.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [20, 19, 18, 17, 16]
    );
    assert_eq!(page(16, 100).await.unwrap().len(), 15);
    assert_eq!(store.verify_audit().await.unwrap(), None);
}

async fn refused(store: &Store, sql: &'static str) -> String {
    let result = on!(store.db(), db => sqlx::query(sql).execute(db).await.map(drop));
    result.unwrap_err().to_string()
}

pub(super) async fn audit_lines_cannot_be_changed_or_removed(store: Store) {
    store.append_audit(line(1)).await.unwrap();
    for sql in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit"] {
        assert!(refused(&store, sql).await.contains("append-only"), "{sql}");
    }
    assert_eq!(
        store
            .audit_page(AuditPage {
                before: 9,
                limit: 9
            })
            .await
            .unwrap()[0]
            .actor,
        "ann"
    );
}

pub(super) async fn a_changed_line_breaks_the_chain(store: Store) {
    for n in 0..5 {
        store.append_audit(line(n)).await.unwrap();
    }
    let unguard = match store.db() {
        Db::Sqlite(_) => "DROP TRIGGER audit_no_update",
        Db::Postgres(_) => "DROP TRIGGER audit_append_only ON audit",
    };
    for sql in [
        unguard,
        "UPDATE audit SET detail = 'nothing happened' WHERE seq = 3",
    ] {
        on!(store.db(), db => sqlx::query(sql).execute(db).await.map(drop)).unwrap();
    }
    assert_eq!(store.verify_audit().await.unwrap(), Some(3));
}
