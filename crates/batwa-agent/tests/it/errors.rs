//! Failed calls, the port's key, and starting where one must not.

use batwa_agent::{Agent, AgentError, Allow, FakeSettings, StateDirError};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::json;

use crate::lab::{self, Lab, answer};

#[tokio::test]
async fn every_failure_is_a_problem() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let id = "0192f0c1-2345-7abc-8def-000000000001";
    let operation = format!("/api/v1/operations/{id}");
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "not_found"),
        (Method::GET, "/api/v1/vms/nope", 404, "not_found"),
        (Method::GET, "/api/v1/vms/a%20b", 404, "not_found"),
        (Method::GET, "/api/v1/vms/..%2F..%2Fetc", 404, "not_found"),
        (Method::GET, &*operation, 404, "not_found"),
        (Method::GET, "/api/v1/operations/nonsense", 404, "not_found"),
        (Method::DELETE, "/api/v1/vms", 405, "method_not_allowed"),
        (Method::GET, "/ws?vm_name=web", 400, "malformed"),
        (Method::GET, "/api/v1/terminals/x/attach", 404, "not_found"),
    ] {
        let answer = lab.call(method.clone(), path, None).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(
            answer.content_type, "application/problem+json",
            "{method} {path}"
        );
        assert_eq!(answer.body["code"], code, "{method} {path}");
        assert!(answer.body["detail"].is_string(), "{method} {path}");
    }
    for (body, status, code) in [
        ("{".to_owned(), 400, "malformed"),
        ("[1]".to_owned(), 422, "invalid_field"),
        (String::new(), 422, "invalid_field"),
        (
            json!({"vm": "web", "kind": "fly"}).to_string(),
            422,
            "invalid_field",
        ),
        (json!({"kind": "start"}).to_string(), 422, "invalid_field"),
        (" ".repeat(2 << 20), 413, "too_large"),
    ] {
        let answer = answer(lab.http.put(lab.url(&operation)).body(body.clone())).await;
        let start = &body[..body.len().min(40)];
        assert_eq!(answer.status.as_u16(), status, "{start} {}", answer.body);
        assert_eq!(answer.body["code"], code, "{start}");
    }
    let missing = answer(
        lab.http
            .put(lab.url(&operation))
            .body(r#"{"kind":"start"}"#),
    )
    .await;
    assert_eq!(missing.body["errors"][0]["field"], "vm", "{}", missing.body);
}

#[tokio::test]
async fn with_a_key_every_path_but_health_needs_it() {
    let lab = Lab::with(FakeSettings::instant(), |config| {
        config.key = Some(SecretString::from("s3cret"));
    })
    .await;
    let document = serde_json::to_value(batwa_agent::openapi()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{vm}", "web")
            .replace("{vm_name}", "web")
            .replace("{id}", "0192f0c1-2345-7abc-8def-000000000001");
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            for wrong in [None, Some("s3cre"), Some("S3CRET"), Some("s3cret2")] {
                let mut request = lab.http.request(method.clone(), lab.url(&path));
                if let Some(key) = wrong {
                    request = request.header("X-API-Key", key);
                }
                let answer = answer(request).await;
                if path == "/health" {
                    assert_eq!(answer.status, StatusCode::OK);
                    continue;
                }
                assert_eq!(
                    answer.status,
                    StatusCode::FORBIDDEN,
                    "{method} {path} {wrong:?}"
                );
                // The answer to a HEAD has no body.
                if method != Method::HEAD {
                    assert_eq!(answer.body, json!({"detail": "Invalid or missing API key"}));
                }
            }
        }
    }
    assert_eq!(lab.get("/api/v1/vms").await.status, StatusCode::OK);
    let answer = answer(lab.http.get(lab.url("/nowhere"))).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_agent_without_a_key_opens_no_port_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(dir.path());
    config.listen = Some("0.0.0.0:0".parse().unwrap());
    let error = Agent::new(config.clone()).unwrap_err();
    assert!(matches!(error, AgentError::OpenToAll(_)));
    assert!(
        error.to_string().contains("--allow-unauthenticated"),
        "{error}"
    );
    // Nothing is half-made.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    config.anonymous_access = Allow::Yes;
    Agent::new(config.clone()).unwrap();
    config.anonymous_access = Allow::No;
    config.key = Some(SecretString::from("k"));
    Agent::new(config).unwrap();
}

#[tokio::test]
async fn two_agents_on_one_state_folder_are_refused() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let dir = lab.stop().await;
    let first = Agent::new(lab::config(dir.path())).unwrap();
    let error = Agent::new(lab::config(dir.path())).unwrap_err();
    assert!(
        matches!(error, AgentError::StateDir(StateDirError::InUse(_))),
        "{error}"
    );
    drop(first);
    Agent::new(lab::config(dir.path())).unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_reported() {
    let lab = Lab::new(FakeSettings::instant()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = lab::config(dir.path());
    config.listen = Some(lab.address);
    let error = Agent::new(config).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {}", lab.address)
    );
}
