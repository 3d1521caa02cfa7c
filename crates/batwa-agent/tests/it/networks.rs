//! Network cards on networks of the machine, as a master asks an agent for them.

use batwa_agent::{FakeSettings, policy::FILE};
use batwa_api::{operation::OperationState, problem::ProblemCode};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::lab::Lab;

/// An agent that lets VMs on the fake driver's `lab0`.
async fn lab() -> Lab {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join(FILE),
        "[networks]\nbridges = [\"lab0\", \"none0\"]\n",
    )
    .unwrap();
    Lab::on(dir, FakeSettings::instant(), |_| ()).await
}

fn create(networks: &Value) -> Value {
    json!({"kind": "create", "spec": {"image": "tiny", "disk": "1G", "networks": networks}})
}

async fn networks(lab: &Lab, vm: &str) -> Value {
    lab.get(&format!("/api/v1/vms/{vm}")).await.body["networks"].clone()
}

#[tokio::test]
async fn a_vm_has_the_cards_it_was_made_with_and_their_addresses_for_good() {
    let lab = lab().await;
    let wanted = json!([
        {"name": "lab0"},
        {"name": "lab0", "mode": "manual", "mac": "52:54:00:00:00:07"},
    ]);
    let made = lab.run("web", create(&wanted)).await;
    assert_eq!(made.state, OperationState::Succeeded, "{made:?}");
    let there = networks(&lab, "web").await;
    let mac = |networks: &Value, n: usize| networks[n]["mac"].as_str().unwrap().to_owned();
    assert_eq!(there[0]["mode"], "auto", "{there}");
    assert!(mac(&there, 0).starts_with("52:54:00:"), "{there}");
    assert_eq!(
        there[1],
        json!({"name": "lab0", "mode": "manual", "mac": "52:54:00:00:00:07"})
    );

    lab.run("web", json!({"kind": "stop"})).await;
    let clone = lab
        .run("web", json!({"kind": "clone", "name": "copy"}))
        .await;
    assert_eq!(clone.state, OperationState::Succeeded, "{clone:?}");
    let copy = networks(&lab, "copy").await;
    assert_eq!(copy.as_array().map(Vec::len), Some(2), "{copy}");
    for n in 0..2 {
        assert_ne!(mac(&copy, n), mac(&there, n), "two VMs with one address");
    }
    let dir = lab.kill().await;
    let lab = Lab::on(dir, FakeSettings::instant(), |_| ()).await;
    lab.vm_when("web", |vm| vm["networks"] == there).await;
    lab.run("web", json!({"kind": "purge"})).await;
    lab.run("web", create(&json!([]))).await;
    assert_eq!(networks(&lab, "web").await, Value::Null);
}

#[tokio::test]
async fn the_machines_networks_are_listed_with_what_keeps_vms_off_them() {
    let lab = lab().await;
    let listed = lab.get("/api/v1/networks").await;
    assert_eq!(listed.status, StatusCode::OK);
    let [allowed, other] = listed.body["items"].as_array().unwrap().as_slice() else {
        panic!("{}", listed.body);
    };
    assert_eq!(allowed["name"], "lab0");
    assert_eq!(
        (&allowed["type"], &allowed["refusal"]),
        (&json!("bridge"), &Value::Null)
    );
    assert_eq!(other["name"], "wan0");
    let why = other["refusal"].as_str().unwrap();
    assert!(
        why.contains(r#"`bridges = ["lab0", "none0", "wan0"]` under `[networks]`"#),
        "{why}"
    );
}

#[tokio::test]
async fn networks_that_are_not_there_or_not_allowed_are_refused_and_nothing_is_made() {
    let lab = lab().await;
    let refused = lab
        .start("web", create(&json!([{"name": "lab0"}, {"name": "wan0"}])))
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert_eq!(refused.body["code"], json!(ProblemCode::PolicyForbids));
    assert_eq!(refused.body["errors"][0]["field"], "networks");
    let same = json!({"name": "lab0", "mac": "52:54:00:00:00:07"});
    for wrong in [
        json!([{"name": "none0"}]),
        json!([{"name": "lab0,mode=manual"}]),
        json!([{"name": "-lab0"}]),
        json!([same, same]),
        json!(vec![
            json!({"name": "lab0"});
            batwa_api::vm::MAX_NETWORKS + 1
        ]),
    ] {
        let refused = lab.start("web", create(&wrong)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert_eq!(
            refused.body["errors"][0]["field"], "networks",
            "{}",
            refused.body
        );
    }
    for wrong in [
        json!([{"name": "lab0", "mac": "ff:ff:ff:ff:ff:ff"}]),
        json!([{"name": "lab0", "mode": "bad"}]),
    ] {
        let refused = lab.start("web", create(&wrong)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    assert!(lab.vm_names().await.is_empty());
}
