//! The image and the compose file of `deploy/` with a real Docker engine. It needs an engine: set
//! `BATWA_TEST_DOCKER=require` and `DOCKER_HOST` of an engine that has a `debian:bookworm-slim`; `scripts/test docker`
//! starts one of its own with a base made by mmdebstrap.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use tempfile::TempDir;

use crate::{
    guide::each,
    lab::{ADMIN, Caller, ProcessBuilder, REPOSITORY, free_port, until},
};

/// A copy of the repository, as far as the guide's commands look at it, with the binary that the tests were built with.
struct Copy {
    dir: TempDir,
    project: String,
    port: u16,
}

impl Copy {
    fn make() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        // Containers read the password as a user of their own.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open");
        for folder in ["deploy", "scripts", "target/release"] {
            fs::create_dir_all(path(folder)).expect("a folder");
        }
        for file in [
            "deploy/Dockerfile",
            "deploy/docker-compose.yml",
            ".dockerignore",
        ] {
            fs::copy(Path::new(REPOSITORY).join(file), path(file)).expect("copied");
        }
        fs::copy(env!("CARGO_BIN_EXE_batwa"), path("target/release/batwa")).expect("copied");
        // What it would build is there already.
        symlink("/bin/true", path("scripts/quickstart")).expect("a link");
        Self {
            dir,
            project: format!("batwa{}", std::process::id()),
            port: free_port(),
        }
    }

    fn command(&self, command: &str) -> ProcessBuilder {
        ProcessBuilder::program("sh")
            .args(["-euc", command])
            .current_dir(self.dir.path())
            .env(
                "DOCKER_HOST",
                std::env::var("DOCKER_HOST").unwrap_or_default(),
            )
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("BATWA_MASTER_PORT", self.port.to_string())
            // What a base made by hand lacks is fetched in a build that has the host's network.
            .env("DOCKER_BUILDKIT", "0")
    }

    async fn does(&self, command: &str) -> String {
        let mut process = self.command(command).start();
        let status = tokio::task::block_in_place(|| process.wait_patiently());
        assert!(
            status.success(),
            "{command}: {status}\n{}{}",
            process.printed(),
            process.log()
        );
        process.printed()
    }

    /// `docker-compose` on the shipped file.
    async fn compose(&self, words: &str) -> String {
        self.does(&format!(
            "docker-compose -f deploy/docker-compose.yml {words}"
        ))
        .await
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let down = "docker-compose -f deploy/docker-compose.yml down --volumes --timeout 5";
        self.command(down).start().wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_compose_file_brings_up_a_master_and_an_agent_as_printed() {
    if !std::env::var("BATWA_TEST_DOCKER").is_ok_and(|text| text == "require") {
        println!("SKIPPED: a real Docker engine: `scripts/test docker` starts one");
        return;
    }
    let copy = Copy::make();
    for command in each("scripts/quickstart --build-only") {
        copy.does(&command).await;
    }
    let password = "a password of your own";

    // No root in either, and both say that they are well.
    for service in ["master", "agent"] {
        let user = copy.compose(&format!("exec -T {service} id -u")).await;
        assert_eq!(user.trim(), "10001", "{service}");
        copy.compose(&format!("exec -T {service} batwa health"))
            .await;
        until(&format!("Docker finds the {service} healthy"), async || {
            let listed = copy.compose(&format!("ps {service}")).await;
            listed.contains("(healthy)").then_some(())
        })
        .await;
    }
    let url = format!("http://127.0.0.1:{}", copy.port);
    let admin = Caller::nobody(&url).sign_in((ADMIN.0, password)).await;
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
    copy.compose("down --timeout 10").await;
    copy.compose("up -d").await;
    until("the master is ready again", async || {
        let answer = admin.try_get("/ready").await?;
        (answer.status == 200).then_some(())
    })
    .await;
    stands("online").await;
}
