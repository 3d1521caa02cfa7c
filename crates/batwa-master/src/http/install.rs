//! What a machine needs that is to join: `/join.sh`, the program, and its checksum.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use batwa_api::tunnel::JoinToken;
use http::{HeaderValue, header, uri::Authority};
use tokio_util::io::ReaderStream;

use super::{ApiResult, client::Client, extract::Path};
use crate::{
    app::{App, Error, program},
    config::{MasterConfig, origin},
};

/// Read from the file at a time.
const CHUNK: usize = 64 << 10;
const SCRIPT: &str = include_str!("install/join.sh");

/// A script that installs Batwa on the machine it runs on and joins it to this master.
#[utoipa::path(get, path = "/join.sh", tag = "join tokens", security(()),
    responses((status = 200, body = String, content_type = "text/x-shellscript")))]
pub(crate) async fn script(State(app): State<App>, client: Client) -> ApiResult<Response> {
    let program = app.measure_program().await?;
    let script = SCRIPT
        .replace(
            "@MASTER@",
            &master_url(app.config(), &client, app.address()),
        )
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

/// The line to paste on the machine that is to join.
pub(crate) fn command(master_url: &str, token: &JoinToken) -> String {
    format!("curl -fsSL {master_url}/join.sh | sh -s -- {token}")
}

/// Where machines reach this master: the public URL, else where the caller reached it. Goes into a shell script, so
/// nothing gets in that is no plain host and port.
pub(crate) fn master_url(config: &MasterConfig, client: &Client, address: SocketAddr) -> String {
    if let Some(url) = &config.public_url {
        return url.origin().to_owned();
    }
    let scheme = if client.is_secure { "https" } else { "http" };
    match client.host.as_deref().filter(|host| is_plain(host)) {
        Some(host) => origin(scheme, host),
        None => {
            let mut address = address;
            if address.ip().is_unspecified() {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            origin(scheme, &address.to_string())
        }
    }
}

fn is_plain(host: &str) -> bool {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    host.len() <= 255 && host.chars().all(plain) && host.parse::<Authority>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn url(host: &str) -> String {
        let config = MasterConfig::new("unused");
        let mut headers = HeaderMap::new();
        headers.insert(
            header::HOST,
            HeaderValue::from_bytes(host.as_bytes()).unwrap(),
        );
        let peer = "192.0.2.1:1".parse().unwrap();
        let client = Client::of(&config, peer, &headers, "r");
        master_url(&config, &client, "0.0.0.0:8000".parse().unwrap())
    }

    #[test]
    fn the_script_names_the_master_as_the_caller_does() {
        assert_eq!(url("batwa.example"), "http://batwa.example");
        assert_eq!(url("10.0.0.1:8000"), "http://10.0.0.1:8000");
        assert_eq!(url("[fd00::1]:8000"), "http://[fd00::1]:8000");
    }

    #[test]
    fn no_hostile_host_gets_into_the_script() {
        for host in [
            "x'; rm -rf ~; '",
            "$(id)",
            "`id`",
            "a b",
            "a\"b",
            "a;b",
            "a|b",
            "a\\b",
            "user@host",
            "a/b",
            "",
            &"a".repeat(300),
        ] {
            assert_eq!(url(host), "http://127.0.0.1:8000", "{host}");
        }
    }
}
