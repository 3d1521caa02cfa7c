//! The way from this machine to a master, step by step: name, connection, TLS, what answers, WebSockets, clock, key.
//!
//! The first step that fails ends it, as all later ones would fail for the same reason.

use std::{net::SocketAddr, time::Duration};

use batwa_api::{Timestamp, tunnel::TUNNEL_PATH};
use batwa_tls::{NotTrusted, SystemRoots, Trust};
use jiff::SignedDuration;
use reqwest::{StatusCode, Url, header};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{Check, Verdict, check};
use crate::{cli::DoctorMasterArgs, config, failure::chain};

/// Far above what any of these takes on a network that works.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far clocks may be apart before people are misled by ages and tokens' ends.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);
/// What a WebSocket client sends when it does not matter.
const WEBSOCKET_KEY: &str = "YmF0d2EgZG9jdG9yIQAAAA==";

/// Looks at the way to a master.
pub(super) async fn checks(url: &str, asked: &DoctorMasterArgs) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(last) = walk(url, asked, &mut checks).await {
        checks.push(last);
    }
    checks
}

/// The steps; the one that failed is the error.
async fn walk(url: &str, asked: &DoctorMasterArgs, checks: &mut Vec<Check>) -> Result<(), Check> {
    let url = config::http_url(url).map_err(|reason| {
        check("master", Verdict::Bad, reason)
            .repair("give its address as `--master-url http://HOST:8000`")
    })?;
    let http = client(asked).map_err(|error| check("master", Verdict::Bad, error))?;
    let is_proxied = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ]
    .iter()
    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if is_proxied {
        checks.push(check("proxy", Verdict::Note, "this environment names a proxy; what follows went through it unless NO_PROXY exempts the master"));
    } else {
        let addresses = resolve(&url).await?;
        checks.push(check("name", Verdict::Ok, listed(&addresses)));
        connect(&url, &addresses).await?;
    }
    let answer = ask(&http, &url, asked).await?;
    let version = answer.body["version"].as_str().unwrap_or("unknown version");
    checks.push(check(
        "master",
        Verdict::Ok,
        format!("answers at {url}, {version}"),
    ));
    checks.push(clock(answer.date));
    checks.push(websocket(&http, &url).await);
    if let Some(agent) = &asked.agent_id {
        checks.push(key(&http, &url, agent, asked.api_key.as_deref()).await);
    }
    Ok(())
}

fn client(asked: &DoctorMasterArgs) -> Result<reqwest::Client, String> {
    let trust = asked.master_certificate.map_or(Trust::Roots, Trust::Pinned);
    reqwest::Client::builder()
        .tls_backend_preconfigured(trust.client_config(&SystemRoots::default()))
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| chain(&error))
}

fn listed(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    addresses.join(", ")
}

async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, Check> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let failed = |reason: String| {
        check("name", Verdict::Bad, format!("`{bare}` has no address here: {reason}"))
            .repair("check the spelling and this machine's DNS (`getent hosts NAME`, /etc/resolv.conf), or give the master's address instead of its name")
    };
    match timeout(PATIENCE, tokio::net::lookup_host((bare, port))).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                return Err(failed("DNS knows the name, but no address".to_owned()));
            }
            Ok(found)
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "DNS did not answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

async fn connect(url: &Url, addresses: &[SocketAddr]) -> Result<(), Check> {
    let port = url.port_or_known_default().unwrap_or(80);
    match timeout(PATIENCE, TcpStream::connect(addresses)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(check(
            "connection",
            Verdict::Bad,
            format!("nothing listens at {url}: {error}"),
        )
        .repair(format!(
            "start the master; does it listen on 127.0.0.1 only (`--host 0.0.0.0`), or on another port than {port}?"
        ))),
        Ok(Err(error)) => Err(check("connection", Verdict::Bad, format!("cannot connect to {url}: {error}"))
            .repair("check cable, VPN and routes: `ping` the master")),
        Err(_) => Err(check(
            "connection",
            Verdict::Bad,
            format!("{url} did not answer within {} s", PATIENCE.as_secs()),
        )
        .repair(format!(
            "a firewall drops it, most likely: on the master's machine `sudo ufw allow {port}/tcp`, and the same in the rules of the cloud or router"
        ))),
    }
}

/// What a master said of itself.
struct Answer {
    date: Option<Timestamp>,
    body: Value,
}

async fn ask(http: &reqwest::Client, url: &Url, asked: &DoctorMasterArgs) -> Result<Answer, Check> {
    let response = http.get(at(url, "/health")).send().await.map_err(|error| {
        let text = chain(&error);
        match NotTrusted::behind(&error) {
            Some(refusal) if asked.master_certificate.is_none() => {
                check("TLS", Verdict::Bad, format!("{url}: {refusal}")).repair(format!(
                    "if that is what the master printed at its start, give `--master-certificate {}`; else something stands in between",
                    refusal.shown
                ))
            }
            Some(refusal) => check("TLS", Verdict::Bad, format!("{url}: {refusal}"))
                .repair("compare with the hash that the master printed at its start; if it made a new certificate, give that one's"),
            None => check("connection", Verdict::Bad, format!("{url}: {text}"))
                .repair("does the master speak `https://` there, or `http://`?"),
        }
    })?;
    let status = response.status();
    let date = response
        .headers()
        .get(header::DATE)
        .and_then(|date| date.to_str().ok())
        .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        .map(|date| date.timestamp());
    let body: Value = response.json().await.unwrap_or_default();
    if status.is_redirection() {
        return Err(check(
            "master",
            Verdict::Bad,
            format!("{url} sends elsewhere ({status})"),
        )
        .repair("give the address it sends to: `https://` instead of `http://`, most likely"));
    }
    if !status.is_success() || body["status"].is_null() {
        return Err(check(
            "master",
            Verdict::Bad,
            format!("what answers at {url} is no master: {status}"),
        )
        .repair("check host and port; behind a reverse proxy, its rule for this name"));
    }
    Ok(Answer { date, body })
}

fn at(url: &Url, path: &str) -> String {
    format!("{}{path}", url.as_str().trim_end_matches('/'))
}

/// How this machine's clock stands to the master's.
fn clock(theirs: Option<Timestamp>) -> Check {
    let Some(theirs) = theirs else {
        return check(
            "clock",
            Verdict::Note,
            "the master did not say what time it has",
        );
    };
    let apart = Timestamp::now().duration_since(theirs);
    if apart.abs() <= CLOCK_TOLERANCE {
        return check("clock", Verdict::Ok, "agrees with the master's");
    }
    let (seconds, way) = (
        apart.abs().as_secs(),
        if apart.is_positive() {
            "ahead of"
        } else {
            "behind"
        },
    );
    check("clock", Verdict::Note, format!("{seconds} s {way} the master's"))
        .repair("switch time synchronisation on, here or there: `sudo timedatectl set-ntp true`. Batwa itself does not need it; certificates, logs and people do")
}

/// Whether WebSockets come through, as terminals and tunnels are made of them.
async fn websocket(http: &reqwest::Client, url: &Url) -> Check {
    let name = "WebSockets";
    let asked = http
        .get(at(url, TUNNEL_PATH))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, WEBSOCKET_KEY)
        .send()
        .await;
    let repair = "let the proxy in between pass upgrades: deploy/ has rules for nginx, Caddy and HAProxy that do";
    match asked.map(|response| response.status()) {
        Ok(StatusCode::SWITCHING_PROTOCOLS) => check(name, Verdict::Ok, "come through"),
        Ok(StatusCode::NOT_FOUND) => check(
            name,
            Verdict::Note,
            "this master knows no tunnels: it is an older one",
        ),
        Ok(status) => check(
            name,
            Verdict::Bad,
            format!("do not come through: asked to upgrade, it answered {status}"),
        )
        .repair(repair),
        Err(error) => check(
            name,
            Verdict::Bad,
            format!("do not come through: {}", chain(&error.without_url())),
        )
        .repair(repair),
    }
}

/// Whether the master takes this agent's key. A heartbeat says nothing but that the agent lives.
async fn key(http: &reqwest::Client, url: &Url, agent: &str, key: Option<&str>) -> Check {
    let name = "key";
    let beat = json!({ "agent_id": agent, "timestamp": Timestamp::now().to_string(), "status": "online", "vm_count": 0 });
    let mut request = http.post(at(url, "/api/agent/heartbeat")).json(&beat);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return check(name, Verdict::Bad, chain(&error.without_url())),
    };
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let said = body["detail"].as_str().unwrap_or_default().to_owned();
    match status {
        StatusCode::OK => check(name, Verdict::Ok, format!("the master knows agent `{agent}` by it")),
        StatusCode::NOT_FOUND => check(name, Verdict::Note, said).repair("start the agent: it registers by itself, and then perhaps waits for an admin on the Machines page"),
        StatusCode::FORBIDDEN => check(name, Verdict::Bad, said).repair(format!(
            "give the agent the key it enrolled with; or make one for this very id (`POST /api/v1/agent-keys` with `agent_id` `{agent}`); if it was revoked, remove the machine on the page"
        )),
        _ => check(name, Verdict::Bad, format!("the master answered {status}: {said}")),
    }
}

/// Which of ours listens on a port of this machine, if one does.
pub(super) async fn who_is_at(port: u16) -> Option<&'static str> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(Trust::Roots.client_config(&SystemRoots::default()))
        .timeout(Duration::from_secs(2))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .ok()?;
    let response = http
        .get(format!("http://127.0.0.1:{port}/health"))
        .send()
        .await
        .ok()?;
    if response.status() == StatusCode::PERMANENT_REDIRECT {
        return Some("a master with TLS");
    }
    let body: Value = response.json().await.ok()?;
    match (body["status"].as_str(), body["agent_id"].as_str()) {
        (Some("ok"), Some(_)) => Some("an agent"),
        (Some("ok"), None) => Some("a master"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_said_and_which_way() {
        let at = |seconds| clock(Some(Timestamp::now() + SignedDuration::from_secs(seconds)));
        assert_eq!(at(5).verdict, Verdict::Ok);
        let behind = at(3600);
        assert_eq!(behind.verdict, Verdict::Note);
        assert!(behind.finding.contains("behind the master's"), "{behind:?}");
        assert!(at(-3600).finding.contains("ahead of"));
        assert!(behind.repair.is_some());
    }
}
