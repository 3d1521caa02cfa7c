//! What every request passes on its way in and out: its id, its origin's facts, the security headers, the
//! final form of failures, the audit's completeness, and one line in the log.

use std::{net::SocketAddr, time::Instant};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

use super::{
    audit::{self, Answered},
    client::Client,
    error::{self, Failure},
};
use crate::app::{App, auth::Caller};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of every answer, the page's policy for scripts apart.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), \
         clipboard-read=(self), clipboard-write=(self), fullscreen=(self)",
    ),
];

/// The policy of answers that are no page: they load nothing.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Two years, as browsers' own lists ask for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// The outermost layer.
pub(crate) async fn pass(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let request_id = Uuid::now_v7().simple().to_string();
    let client = Client::of(app.config(), peer, request.headers(), &request_id);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(client.clone());

    let mut response = next.run(request).await;

    let caller = response.extensions_mut().remove::<Caller>();
    audit::complete(
        &app,
        Answered {
            source: &client.source,
            method: &method,
            route: route.as_ref().map(MatchedPath::as_str),
            path: &path,
            caller: caller.as_ref(),
            failure: response.extensions().get::<Failure>(),
        },
    )
    .await;
    let mut response = error::finish(response, &request_id);
    add_headers(response.headers_mut(), &client, &request_id);
    tracing::debug!(
        request.id = request_id,
        client.address = %client.source.address,
        user.name = caller.as_ref().map(|caller| &*caller.name),
        response.status = response.status().as_u16(),
        response.time_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "{method} {path}",
    );
    response
}

fn add_headers(headers: &mut HeaderMap, client: &Client, request_id: &str) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(NOTHING);
    // Answers about VMs and accounts are nobody else's business, a cache's least of all.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if client.is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}
