//! Templates, SSH keys, and what is sealed.

use batwa_api::{
    cloud_init::{Template, TemplateVariable},
    id::{AgentId, OperationId, SshKeyId, TemplateId},
    name::VmName,
    operation::{Operation, OperationRequest, StartOperation},
    ssh_key::SshKey,
    vm::VmSpec,
};

use super::*;
use crate::store::{
    operations::{Accepted, NewOperation},
    ssh_keys::Added,
    templates::{Secrets, StoredTemplate},
};

fn template(owner: &User, name: &str) -> StoredTemplate {
    let variable = TemplateVariable {
        name: "pw".to_owned(),
        description: "a password".to_owned(),
        default: None,
        has_default: true,
        secret: true,
    };
    StoredTemplate {
        template: Template {
            id: TemplateId::new(),
            name: name.to_owned(),
            description: "for tests".to_owned(),
            text: "#cloud-config\npassword: {{pw}}\n".to_owned(),
            variables: vec![variable],
            owner: owner.name.clone(),
            created_at: now(),
            updated_at: now(),
        },
        owner_id: Some(owner.id),
        secrets: Secrets([("pw".to_owned(), "hunter2".to_owned())].into()),
    }
}

async fn column(store: &Store, sql: &'static str) -> String {
    on!(store.db(), db => sqlx::query_scalar(sql).fetch_one(db).await).unwrap()
}

pub(super) async fn templates_come_back_and_their_secrets_are_sealed(store: Store) {
    let ann = with_account(&store, "ann", Role::Operator).await;
    let web = template(&ann, "web");
    assert!(store.save_template(&web).await.unwrap());
    assert_eq!(
        store.template(web.template.id).await.unwrap(),
        Some(web.clone())
    );
    assert_eq!(
        store.template_by_name("web").await.unwrap(),
        Some(web.clone())
    );
    assert_eq!(store.template_by_name("Web").await.unwrap(), None);
    let sealed = column(&store, "SELECT secrets FROM templates").await;
    assert!(
        !sealed.is_empty() && !sealed.contains("hunter2"),
        "{sealed}"
    );

    let mut renamed = web.clone();
    renamed.template.name = "a".to_owned();
    renamed.secrets = Secrets::default();
    assert!(store.save_template(&renamed).await.unwrap());
    assert_eq!(
        store.template(web.template.id).await.unwrap(),
        Some(renamed.clone())
    );
    let other = template(&ann, "web");
    assert!(
        store.save_template(&other).await.unwrap(),
        "the name is free again"
    );
    renamed.template.name = "web".to_owned();
    assert!(!store.save_template(&renamed).await.unwrap());
    let names: Vec<_> = store
        .templates()
        .await
        .unwrap()
        .into_iter()
        .map(|template| template.name)
        .collect();
    assert_eq!(names, ["a", "web"]);
    assert_eq!(store.count_templates().await.unwrap(), 2);
    store.delete_template(other.template.id).await.unwrap();
    assert_eq!(store.count_templates().await.unwrap(), 1);
}

pub(super) async fn ones_keys_are_each_there_once_and_no_more_than_may_be(store: Store) {
    let ann = with_account(&store, "ann", Role::Operator).await;
    let bob = with_account(&store, "bob", Role::Operator).await;
    let key = |print: &str| SshKey {
        id: SshKeyId::new(),
        name: "home".to_owned(),
        public_key: format!("ssh-ed25519 {print}"),
        fingerprint: print.to_owned(),
        created_at: now(),
    };
    let first = key("a");
    let add =
        async |owner: &User, key: &SshKey| store.insert_ssh_key(owner.id, key, 2).await.unwrap();
    assert_eq!(add(&ann, &first).await, Added::Yes);
    assert_eq!(add(&ann, &key("a")).await, Added::Known);
    assert_eq!(add(&bob, &key("a")).await, Added::Yes);
    assert_eq!(add(&ann, &key("b")).await, Added::Yes);
    assert_eq!(add(&ann, &key("c")).await, Added::TooMany);
    let keys = store.ssh_keys(ann.id).await.unwrap();
    assert_eq!((keys.len(), &keys[0]), (2, &first));
    assert_eq!(store.delete_ssh_key(bob.id, first.id).await.unwrap(), None);
    let gone = store.delete_ssh_key(ann.id, first.id).await.unwrap();
    assert_eq!(gone.as_deref(), Some("home"));
    with_account(&store, "root", Role::Admin).await;
    store.delete_user(bob.id).await.unwrap();
    assert!(store.ssh_keys(bob.id).await.unwrap().is_empty());
}

pub(super) async fn requests_with_user_data_come_back_and_are_sealed_meanwhile(store: Store) {
    let vm = VmName::parse("web").unwrap();
    let request = OperationRequest::Create {
        spec: Box::new(VmSpec {
            cloud_init: Some("#cloud-config\npassword: hunter2\n".to_owned()),
            ..VmSpec::default()
        }),
    };
    let agent = AgentId::parse("lab").unwrap();
    let operation = Operation::new(OperationId::new(), agent, vm.clone(), &request, now());
    let request = StartOperation {
        subject: vm.into(),
        request,
        requested_by: None,
    };
    let new = NewOperation {
        operation: operation.clone(),
        request: request.clone(),
        idempotency: None,
    };
    assert_eq!(
        store.insert_operation(&new, long_ago()).await.unwrap(),
        Accepted::New
    );
    let sealed = column(&store, "SELECT request FROM operations").await;
    assert!(
        !sealed.is_empty() && !sealed.contains("hunter2"),
        "{sealed}"
    );
    let read = store.operation_request(operation.id).await.unwrap();
    assert_eq!(read, Some(request));
}
