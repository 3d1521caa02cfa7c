//! Networks of machines from outside: the command line, and who may put VMs on them.

use serde_json::json;

use crate::{
    cli::{client, json as answer, run},
    lab::{Caller, INSTANT, Lab},
};

/// A lab whose machine lets VMs on its `lab0`.
async fn lab(folder: &tempfile::TempDir) -> Lab {
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "[networks]\nbridges = [\"lab0\"]\n").expect("a policy");
    let policy = policy.to_str().expect("UTF-8").to_owned();
    Lab::up_with_flags(INSTANT, &["--policy", &policy]).await
}

#[tokio::test]
async fn networks_are_listed_and_vms_put_on_them_by_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = lab(&folder).await;
    let listed = answer(&lab, &["networks"]).await;
    assert_eq!(listed["items"][0]["name"], "lab0", "{listed}");
    let table = client(&lab, &["networks", "--agent", "local"])
        .run()
        .await
        .stdout;
    assert!(
        table.contains("Pretended bridge") && table.contains("no: "),
        "{table}"
    );

    let on = "name=lab0,mode=manual,mac=52:54:00:00:00:07";
    let words = [
        "launch",
        "tiny",
        "--name",
        "web",
        "--network",
        "lab0",
        "--network",
        on,
    ];
    run(&lab, &words, 0).await;
    let web = answer(&lab, &["info", "web"]).await;
    assert_eq!(web["networks"][0]["mode"], "auto", "{web}");
    assert_eq!(web["networks"][1]["mac"], "52:54:00:00:00:07", "{web}");
    let info = client(&lab, &["info", "web"]).run().await.stdout;
    assert!(info.contains("lab0 (manual, 52:54:00:00:00:07)"), "{info}");

    let said = run(
        &lab,
        &["launch", "tiny", "--name", "two", "--network", "wan0"],
        4,
    )
    .await;
    assert!(said.contains("under `[networks]` in"), "{said}");
    let said = run(
        &lab,
        &[
            "launch",
            "tiny",
            "--name",
            "two",
            "--network",
            "lab0,mode=bad",
        ],
        2,
    )
    .await;
    assert!(said.contains("`auto` or `manual`"), "{said}");
    run(&lab, &["info", "two"], 3).await;
}

#[tokio::test]
async fn an_operator_sees_networks_and_puts_no_vm_on_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = lab(&folder).await;
    let operator = ("op", "correct horse battery");
    let body = json!({"name": operator.0, "password": operator.1, "role": "operator"});
    lab.admin.post("/api/v1/users", body).await.expect(201);
    let operator = Caller::with_token(&lab.url, operator).await;
    operator
        .get("/api/v1/agents/local/networks")
        .await
        .expect(200);
    lab.admin
        .get("/api/v1/agents/nobody/networks")
        .await
        .refused(404);
    let create = json!({"name": "web", "image": "tiny", "networks": [{"name": "lab0"}]});
    let vms = "/api/v1/agents/local/vms";
    let refused = operator.post(vms, create.clone()).await.refused(403);
    assert!(refused.contains("touch their machine"), "{refused}");
    let made = lab.admin.post(vms, create).await.expect(202);
    assert_eq!(lab.finished(&made["id"]).await["state"], "succeeded");
}
