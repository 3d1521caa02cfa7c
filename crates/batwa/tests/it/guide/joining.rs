//! From the first start to machines that dial in.

use super::{
    block, printed,
    stage::{MASTER, Stage},
};

#[tokio::test]
async fn a_master_starts_and_machines_join_it_as_printed() {
    let Some(mut stage) = Stage::boot("joining").await else {
        return;
    };
    // The first start prints what the guide shows, but for the code.
    let shown = block("Batwa is at    http://127.0.0.1:8000/").text;
    let first = stage.start(&printed("batwa up")).await;
    first.process.address("/setup#").await;
    let said = first.process.printed();
    let said = said.trim_end();
    let shown = shown.trim_end().trim_end_matches('…');
    assert!(said.starts_with(shown), "{said}\n--- is not\n{shown}");
    stage.stop(first).await;

    let _master = stage.master(&printed("batwa up")).await;
    stage
        .run(&printed("batwa doctor --master-url http://MASTER:8000"))
        .await;

    // The token's line is the one that the guide shows.
    let create = printed("batwa join-token create --expires 1h --label site=home");
    let line = stage.run(&create).await;
    let token = line.trim().rsplit(' ').next().expect("a token").to_owned();
    let join = printed("curl -fsSL http://MASTER:8000/join.sh | sh -s -- \"$TOKEN\"");
    let as_shown = line.replace(&token, "\"$TOKEN\"").replace(MASTER, "MASTER");
    assert_eq!(as_shown, join);
    stage.set("TOKEN", token);
    let joined = stage.start(&join).await;
    let name = stage.run("hostname").await.trim().to_lowercase();
    let agent = stage.agent_is(&name, "online").await;
    assert_eq!(agent["link"], "tunnel");
    assert_eq!(agent["labels"]["site"], "home");
    stage.stop(joined).await;

    // With the binary that is there, later without the token, and with another key.
    let create = printed("batwa join-token create --uses 20 --expires 24h --label site=eu");
    let line = stage.run(&create).await;
    stage.set("TOKEN", line.trim().rsplit(' ').next().expect("a token"));
    let join = printed(
        "batwa agent join http://MASTER:8000 \"$TOKEN\" --agent-id office-1 --state-dir /var/lib/batwa-agent",
    );
    let joined = stage.start(&join).await;
    stage.agent_is("office-1", "online").await;
    stage.stop(joined).await;
    stage.agent_is("office-1", "offline").await;
    let again = printed("batwa agent --state-dir /var/lib/batwa-agent");
    let _agent = stage.start(&again).await;
    let before = stage.agent_is("office-1", "online").await;
    let rotate = printed("batwa agent rotate-key --state-dir /var/lib/batwa-agent");
    stage.run(&rotate).await;
    let after = stage.agent_is("office-1", "online").await;
    assert_ne!(before["fingerprint"], after["fingerprint"]);

    let listed = stage
        .run(&printed("batwa agents                                                                  # with BATWA_URL and BATWA_TOKEN"))
        .await;
    for shown in ["\noffice-1 ", "\"agent_id\":\"office-1\""] {
        assert!(listed.contains(shown), "{shown} is not in {listed}");
    }
}
