//! What a port that speaks TLS says to those who come without: where to go instead.

use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Sends readers to the same place by `https://`. A write is refused: what it carried has been on the wire in the
/// clear, and its sender should notice.
pub(crate) async fn refuse(request: Request) -> Response {
    let text = "this port speaks TLS: use https://\n";
    let to = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(|host| {
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            format!("https://{host}{path}")
        })
        .and_then(|url| HeaderValue::try_from(url).ok());
    let mut response = match (request.method(), to) {
        (&Method::GET | &Method::HEAD, Some(to)) => {
            let mut response = (StatusCode::PERMANENT_REDIRECT, text).into_response();
            response.headers_mut().insert(header::LOCATION, to);
            response
        }
        _ => (StatusCode::BAD_REQUEST, text).into_response(),
    };
    // The port may speak plain HTTP again tomorrow; and nothing more is to come on this connection.
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
