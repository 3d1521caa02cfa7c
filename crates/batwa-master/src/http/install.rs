//! What a machine needs that is to join: `/join.sh`, the program, and its checksum.

mod ways;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use batwa_api::tunnel::{JoinToken, JoinWay};
use batwa_tls::CertificateSource;
use http::{HeaderValue, header};
use tokio_util::io::ReaderStream;

use self::ways::{Asked, Way};
use super::{ApiResult, client::Client, extract::Path};
use crate::{
    addresses,
    app::{App, Error, program},
};

/// Read from the file at a time.
const CHUNK: usize = 64 << 10;
const SCRIPT: &str = include_str!("install/join.sh");

/// A script that installs Batwa on the machine it runs on and joins it to this master.
#[utoipa::path(get, path = "/join.sh", tag = "join tokens", security(()),
    responses((status = 200, body = String, content_type = "text/x-shellscript")))]
pub(crate) async fn script(State(app): State<App>, client: Client) -> ApiResult<Response> {
    let program = app.measure_program().await?;
    let here = asked(&app, &client).here();
    let pin = pin(&app, &here).unwrap_or_default();
    let script = SCRIPT
        .replace("@MASTER@", &here.url)
        .replace("@PIN@", &pin)
        .replace("@PLATFORM@", &program::platform())
        .replace("@SHA256@", &program.sha256.to_string())
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    Ok(([(header::CONTENT_TYPE, "text/x-shellscript")], script).into_response())
}

/// This master's own program, or with `.sha256` at its end the checksum of it.
#[utoipa::path(get, path = "/api/v1/download/{file}", tag = "join tokens", security(()),
    params(("file" = String, Path, description = "`batwa-linux-x86_64`, or with `.sha256` at its end")),
    responses((status = 200, content_type = "application/octet-stream")))]
pub(crate) async fn download(
    State(app): State<App>,
    Path(file): Path<String>,
) -> ApiResult<Response> {
    let name = format!("batwa-{}", program::platform());
    if file == format!("{name}.sha256") {
        let program = app.measure_program().await?;
        let line = format!("{}  {name}\n", program.sha256);
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], line).into_response());
    }
    if file != name {
        return Err(Error::NotFound(format!(
            "`{file}`: this master has `{name}` alone; for another platform build Batwa {} there (cargo install --locked --path crates/batwa); that file",
            env!("CARGO_PKG_VERSION")
        ))
        .into());
    }
    let (program, measured) = app.open_program().await?;
    let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(
        program, CHUNK,
    )));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, measured.length.into());
    Ok(response)
}

/// Every line that can be pasted on a machine that is to join, the best first.
pub(crate) async fn ways(app: &App, client: &Client, token: &JoinToken) -> Vec<JoinWay> {
    let own = tokio::task::spawn_blocking(addresses::own);
    let own = own.await.unwrap_or_default();
    let ways = asked(app, client).for_others(&own);
    ways.into_iter()
        .map(|way| JoinWay {
            command: command(&way.url, pin(app, &way).as_deref(), token),
            url: way.url,
            this_machine_only: way.this_machine_only,
        })
        .collect()
}

fn asked<'a>(app: &'a App, client: &'a Client) -> Asked<'a> {
    Asked {
        config: app.config(),
        host: client.host.as_deref(),
        is_secure: client.is_secure,
        own_tls: client.own_tls,
        listens_on: app.address(),
    }
}

/// What `curl` knows the master by where no authority vouches for it: its public key, as `--pinnedpubkey` wants it.
fn pin(app: &App, way: &Way) -> Option<String> {
    let is_self_signed = matches!(app.config().tls, Some(CertificateSource::SelfSigned { .. }));
    if !(is_self_signed && way.own_certificate) {
        return None;
    }
    let key = app.certificate()?.public_key_hash()?;
    Some(format!("sha256//{}", STANDARD.encode(key)))
}

/// The line to paste. With a pin the key is checked instead of the certificate's issuer, which `--insecure` lets be.
fn command(master_url: &str, pin: Option<&str>, token: &JoinToken) -> String {
    let pinned = pin.map(|pin| format!(" --insecure --pinnedpubkey '{pin}'"));
    format!(
        "curl -fsSL{} {master_url}/join.sh | sh -s -- {token}",
        pinned.unwrap_or_default()
    )
}
