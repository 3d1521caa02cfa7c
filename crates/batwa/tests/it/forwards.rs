//! Saved forwards from outside: the command line, who may, and bytes through a real socket.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cli::{client, json as answer, run},
    inside::{WITH_PORTS, shouter},
    lab::{Caller, Lab, free_port},
};

/// A lab with the running VM `web`, whose machine may listen on its loopback.
async fn lab(folder: &tempfile::TempDir) -> Lab {
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "[forwards]\nlisten = [\"127.0.0.1:*\"]\n").expect("a policy");
    let policy = policy.to_str().expect("UTF-8").to_owned();
    let lab = Lab::up_with_flags(WITH_PORTS, &["--policy", &policy]).await;
    lab.create_vm("local", "web").await;
    lab
}

#[tokio::test]
async fn a_forward_is_saved_used_listed_and_removed_by_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lab = lab(&folder).await;
    let (port, _shouter) = shouter().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let to = format!("web:{port}");
    let said = run(&lab, &["forward", "--save", &to, "--listen", &listen], 0).await;
    let leads = format!("{listen} leads to port {port} of local/web");
    assert!(said.contains(&leads), "{said}");

    let mut stream = TcpStream::connect(&listen).await.expect("a listener");
    stream.write_all(b"word").await.expect("a taker");
    stream.shutdown().await.expect("an end");
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("an answer");
    assert_eq!(heard, "WORD");

    // The master knows of it without asking, and after a restart of both.
    lab.kill();
    lab.restart().await;
    for of in [vec![], vec!["web"]] {
        let words = [vec!["forward", "--list"], of].concat();
        let listed = crate::lab::until("the forward", async || {
            let listed = answer(&lab, &words).await["items"][0].clone();
            (listed["state"] == "listening").then_some(listed)
        })
        .await;
        let there = json!({"agent_id": "local", "vm": "web", "listen": listen, "port": port,
            "state": "listening", "message": null});
        assert_eq!(listed, there);
    }
    let table = client(&lab, &["forward", "--list"]).run().await.stdout;
    assert!(
        table.contains(&listen) && table.contains("local/web"),
        "{table}"
    );
    let info = client(&lab, &["info", "web"]).run().await.stdout;
    assert!(info.contains(&format!("{listen} to port {port}")), "{info}");

    run(
        &lab,
        &["forward", "--remove", "web", "--listen", &listen],
        0,
    )
    .await;
    assert_eq!(
        answer(&lab, &["forward", "--list"]).await["items"],
        json!([])
    );
    TcpStream::connect(&listen)
        .await
        .expect_err("nobody listens");

    let said = run(
        &lab,
        &["forward", "--save", "web:80", "--listen", "0.0.0.0:8080"],
        4,
    )
    .await;
    assert!(said.contains("under `[forwards]` in"), "{said}");
    let audit = lab.admin.get("/api/v1/audit").await.expect(200);
    let lines: Vec<_> = audit["items"]
        .as_array()
        .expect("lines")
        .iter()
        .filter(|line| {
            line["action"]
                .as_str()
                .is_some_and(|action| action.ends_with("forward"))
        })
        .map(|line| {
            (
                line["action"].clone(),
                line["result"].clone(),
                line["target"].clone(),
            )
        })
        .collect();
    let line = |action: &str, outcome: &str| (json!(action), json!(outcome), json!("local/web"));
    assert_eq!(
        lines,
        [
            line("vm.forward", "failed"),
            line("vm.unforward", "ok"),
            line("vm.forward", "ok")
        ]
    );
}

#[tokio::test]
async fn a_forward_is_an_admins_to_save_and_everybodys_to_see() {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = lab(&folder).await;
    let operator = ("op", "correct horse battery");
    let body = json!({"name": operator.0, "password": operator.1, "role": "operator"});
    lab.admin.post("/api/v1/users", body).await.expect(201);
    let operator = Caller::with_token(&lab.url, operator).await;
    let forwards = "/api/v1/agents/local/vms/web/forwards";
    let listen = format!("127.0.0.1:{}", free_port());
    let forward = json!({"listen": listen, "port": 80});
    let refused = operator.put(forwards, forward.clone()).await.refused(403);
    assert!(refused.contains("touch their machine"), "{refused}");
    let saved = lab.admin.put(forwards, forward).await.expect(200);
    assert_eq!(saved["forwards"][0]["listen"], listen, "{saved}");
    operator
        .delete(&format!("{forwards}/{listen}"))
        .await
        .refused(403);
    let seen: Value = operator.get("/api/v1/vms").await.expect(200);
    assert_eq!(seen["items"][0]["forwards"][0]["port"], 80, "{seen}");
    let agent = operator.get("/api/v1/agents/local").await.expect(200);
    assert_eq!(agent["info"]["policy"]["forwards"], json!(["127.0.0.1:*"]));
    let nowhere = "/api/v1/agents/local/vms/none/forwards";
    lab.admin
        .put(nowhere, json!({"listen": listen, "port": 80}))
        .await
        .refused(404);
    lab.admin
        .delete(&format!("{forwards}/nonsense"))
        .await
        .refused(422);
}
