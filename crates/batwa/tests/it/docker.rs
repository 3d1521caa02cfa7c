//! The image and the compose file of `deploy/` with a real Docker engine. Opt-in, as it takes minutes: set
//! `BATWA_TEST_DOCKER=require` and `DOCKER_HOST` of an engine that has a `debian:bookworm-slim`; `scripts/test docker`
//! starts one of its own with a base made by mmdebstrap.

use std::path::Path;

use crate::lab::{ADMIN, Caller, ProcessBuilder, free_port, until};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// `docker-compose` on the shipped file, with the binary that the tests were built with.
struct Compose {
    project: String,
    port: u16,
    password: String,
}

impl Compose {
    fn command(&self, words: &[&str]) -> ProcessBuilder {
        ProcessBuilder::program("docker-compose")
            .args(["-p", &self.project, "-f", "deploy/docker-compose.yml"])
            .args(words)
            .current_dir(Path::new(REPOSITORY))
            .env(
                "DOCKER_HOST",
                std::env::var("DOCKER_HOST").unwrap_or_default(),
            )
            .env("BATWA_BINARY", "target/debug/batwa")
            .env("BATWA_AGENT_KEY", "key-of-docker-1")
            .env("BATWA_MASTER_PORT", self.port.to_string())
            .env("BATWA_ADMIN_PASSWORD_FILE", &self.password)
            // What a base made by hand lacks is fetched in a build that has the host's network.
            .env("DOCKER_BUILDKIT", "0")
    }

    async fn does(&self, words: &[&str]) -> String {
        let mut process = self.command(words).start();
        let status = tokio::task::block_in_place(|| process.wait_patiently());
        assert!(
            status.success(),
            "docker-compose {words:?}: {status}\n{}{}",
            process.printed(),
            process.log()
        );
        process.printed()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let mut down = self
            .command(&["down", "--volumes", "--timeout", "5"])
            .start();
        down.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compose_file_brings_up_a_master_and_an_agent() {
    if !std::env::var("BATWA_TEST_DOCKER").is_ok_and(|text| text == "require") {
        println!(
            "SKIPPED: a real Docker engine: `scripts/test docker` starts one, which takes minutes"
        );
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let password = dir.path().join("admin-password");
    std::fs::write(&password, ADMIN.1).expect("the password file");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), readable).expect("readable");
    let compose = Compose {
        project: format!("batwa{}", std::process::id()),
        port: free_port(),
        password: password.display().to_string(),
    };
    compose.does(&["build"]).await;
    compose.does(&["up", "-d"]).await;

    // No root in either, and both say that they are well.
    for service in ["master", "agent"] {
        let user = compose.does(&["exec", "-T", service, "id", "-u"]).await;
        assert_eq!(user.trim(), "10001", "{service}");
        compose
            .does(&["exec", "-T", service, "batwa", "health"])
            .await;
        until(&format!("Docker finds the {service} healthy"), async || {
            let listed = compose.does(&["ps", service]).await;
            listed.contains("(healthy)").then_some(())
        })
        .await;
    }
    let url = format!("http://127.0.0.1:{}", compose.port);
    let admin = Caller::nobody(&url).sign_in(ADMIN).await;
    let row = "/api/v1/agents/docker-1";
    let stands = async |status: &str| {
        until(&format!("the agent is {status}"), async || {
            let agent = admin.try_get(row).await?.body;
            (agent["status"] == status).then_some(agent)
        })
        .await
    };
    stands("pending").await;
    admin
        .post(&format!("{row}/approve"), serde_json::json!({}))
        .await
        .ok();
    let agent = stands("online").await;
    let drivers = agent.to_string();
    assert!(drivers.contains("\"qemu\""), "{drivers}");

    // Accounts and machines outlive the containers.
    compose.does(&["down", "--timeout", "10"]).await;
    compose.does(&["up", "-d"]).await;
    until("the master is ready again", async || {
        let answer = admin.try_get("/ready").await?;
        (answer.status == 200).then_some(())
    })
    .await;
    stands("online").await;
}
