//! Twenty terminals for ten seconds: what the bench's row `soak` does with two hundred for minutes.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::{
    lab::{Caller, Lab, batwa, join_token},
    sharing::call,
};

#[path = "../soak/mod.rs"]
mod proof;

use self::proof::{Cable, Door, Plan, count::Count};

impl Door for Caller {
    fn address(&self) -> std::net::SocketAddr {
        let address = self.url.trim_start_matches("http://");
        address.parse().expect("an address")
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token())
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let method = Method::from_bytes(method.as_bytes())?;
        let answer = call(self, method, path, body.clone()).await;
        anyhow::ensure!(
            (200..300).contains(&answer.status),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
        Ok(answer.body)
    }
}

#[tokio::test]
async fn every_viewer_sees_what_its_shell_wrote_and_nothing_is_left_behind() {
    let lab = Lab::master(&[]).await;
    let cable = Cable::to(lab.admin.address()).await.expect("a line");
    let token = join_token(&lab.admin, serde_json::json!({})).await;
    let agent = batwa()
        .args([
            "agent",
            "join",
            &format!("http://{}", cable.address),
            &token,
        ])
        .args(["--agent-id", "far", "--driver", "fake", "--fake"])
        .args(["vms=0,latency=0ms", "--tunnel-retry", "1s", "--state-dir"])
        .arg(lab.folder("far"))
        .start();
    lab.agent_is("far", "online").await;
    let mut vms = Vec::new();
    for name in ["one", "two"] {
        lab.create_vm("far", name).await;
        vms.push(name.to_owned());
    }
    let plan = Plan {
        sessions: 20,
        duration: Duration::from_secs(10),
        pause: Duration::from_millis(100),
        calm: Duration::from_millis(600),
        cut_every: Duration::from_secs(4),
        seed: 5,
        agent: "far".to_owned(),
        vms,
    };
    let master = lab.master.as_ref().expect("it runs").id();
    let proved = proof::prove(&plan, &lab.admin, &cable, &[master, agent.id()])
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    let tally = proved.tally;
    assert_eq!(tally.viewers, 25, "{tally:?}");
    assert!(tally.whole > 5, "{tally:?}");
    for happened in [
        tally.cuts,
        tally.broken,
        tally.reloads,
        tally.resizes,
        tally.lines,
    ] {
        assert!(happened > 0, "{tally:?}");
    }
    println!("{tally}");
    for (before, after) in proved.before.iter().zip(&proved.after) {
        println!("process {}: {before} before, {after} after", before.process);
    }
}

#[test]
fn every_byte_of_a_count_is_known_by_its_offset() {
    let all: String = (1..=12_345).map(|n| format!("{n}\n")).collect();
    assert_eq!(Count::length(12_345), all.len() as u64);
    assert_eq!(Count::length(999), 9 * 2 + 90 * 3 + 900 * 4);
    assert_eq!(Count::length(0), 0);
    for offset in (0..all.len()).step_by(7).chain([0, 17, 18, 287, 288]) {
        let rest = &all.as_bytes()[offset..];
        assert_eq!(
            Count::at(offset as u64).follow(rest),
            rest.len(),
            "{offset}"
        );
    }
    let mut count = Count::at(0);
    assert_eq!(count.follow(b"1\n2\n4\n"), 4);
    assert_eq!(count.follow(b"3\n4"), 3);
}
