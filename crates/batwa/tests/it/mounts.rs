//! A machine's policy and its folders, from outside: what the page and the command line show of them.

use serde_json::{Value, json};

use crate::{
    cli::run,
    lab::{Caller, INSTANT, Lab, batwa},
};

/// A lab with the running VM `web`, whose machine lets VMs see what is in `root`.
async fn lab(root: &tempfile::TempDir, fake: &str) -> Lab {
    let policy = root.path().join("policy.toml");
    let roots = format!(
        "[vms]\ncount = 1\n[mounts]\nroots = [{:?}]\n",
        root.path().display().to_string()
    );
    std::fs::write(&policy, roots).expect("a policy");
    let policy = policy.to_str().expect("UTF-8").to_owned();
    let lab = Lab::up_with_flags(fake, &["--policy", &policy]).await;
    lab.create_vm("local", "web").await;
    lab
}

async fn mounts(lab: &Lab) -> Value {
    lab.vm("local", "web").await.expect("the VM")["mounts"].clone()
}

#[tokio::test]
async fn folders_come_and_go_by_the_command_line() {
    let root = tempfile::tempdir().expect("a folder");
    let lab = lab(&root, INSTANT).await;
    let source = root.path().to_str().expect("UTF-8");
    let said = run(&lab, &["mount", source, "web:/mnt/share", "--read-only"], 0).await;
    assert!(said.contains("mount local/web: done"), "{said}");
    assert!(said.contains("batwa restart local/web"), "{said}");
    let there = mounts(&lab).await;
    assert_eq!(there[0]["source"], source, "{there}");
    assert_eq!(there[0]["read_only"], true);
    assert_eq!(there[0]["state"], "at_next_start");
    let info = batwa()
        .args(["info", "web"])
        .env("BATWA_URL", &lab.url)
        .env("BATWA_TOKEN", lab.admin.token())
        .run()
        .await;
    assert!(
        info.stdout
            .contains("at /mnt/share, to read, from its next start on"),
        "{}",
        info.stdout
    );
    run(&lab, &["restart", "web"], 0).await;
    assert_eq!(mounts(&lab).await[0]["state"], "mounted");
    run(&lab, &["umount", "web"], 0).await;
    assert_eq!(mounts(&lab).await, Value::Null);

    // Refused on the machine, with what would allow it; or here, before anything is asked.
    let said = run(&lab, &["mount", "/etc", "web:/mnt/etc"], 4).await;
    assert!(said.contains("under `[mounts]` in"), "{said}");
    let said = run(&lab, &["mount", "etc", "web:/mnt/etc"], 2).await;
    assert!(said.contains("whole path"), "{said}");
    let said = run(&lab, &["launch", "tiny", "--name", "two"], 4).await;
    assert!(said.contains("`count = 2` under `[vms]`"), "{said}");
}

#[tokio::test]
async fn the_policy_is_shown_with_its_machine_and_an_operator_touches_no_machine() {
    let root = tempfile::tempdir().expect("a folder");
    let lab = lab(&root, "vms=0,latency=0ms,fail=umount:1").await;
    let agent = lab.admin.get("/api/v1/agents/local").await.expect(200);
    let policy = &agent["info"]["policy"];
    assert_eq!(policy["mounts"][0]["path"], json!(root.path()), "{policy}");
    assert_eq!(policy["vms"]["count"], 1);

    let operator = ("op", "correct horse battery");
    let body = json!({"name": operator.0, "password": operator.1, "role": "operator"});
    lab.admin.post("/api/v1/users", body).await.expect(201);
    let operator = Caller::with_token(&lab.url, operator).await;
    let web = "/api/v1/agents/local/vms/web";
    let mount = json!({"source": root.path(), "target": "/mnt/share"});
    let refused = operator
        .post(&format!("{web}/mount"), mount.clone())
        .await
        .refused(403);
    assert!(refused.contains("touch their machine"), "{refused}");
    operator
        .post(&format!("{web}/umount"), json!({}))
        .await
        .refused(403);
    let image = format!("FILE:{}/disk.img", root.path().display());
    let create = json!({"name": "own", "image": image});
    operator
        .post("/api/v1/agents/local/vms", create)
        .await
        .refused(403);

    // Nor by asking again for what an admin asked for in vain.
    lab.admin
        .post(&format!("{web}/mount?wait=30s"), mount)
        .await
        .expect(200);
    let failed = lab.admin.post(&format!("{web}/umount"), json!({})).await;
    let failed = lab.finished(&failed.expect(202)["id"]).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    let again = format!(
        "/api/v1/operations/{}/retry",
        failed["id"].as_str().expect("an id")
    );
    operator.post(&again, json!({})).await.refused(403);
}
