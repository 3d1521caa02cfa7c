//! The page: static files, embedded at build time.
//!
//! Every path that is no file and no API is the page itself, whose own router shows what belongs there. Without
//! a built page a placeholder says how to build it.

mod csp;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use batwa_api::problem::{Problem, ProblemCode};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rust_embed::RustEmbed;

use super::ApiError;

#[derive(RustEmbed)]
#[folder = "../../web/build"]
#[allow_missing = true]
struct Files;

/// Files whose name holds their hash never change.
const HASHED: &str = "_app/immutable/";

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// The page's files.
#[derive(Debug)]
pub(crate) struct Ui {
    files: HashMap<String, File>,
    index: File,
    policy: HeaderValue,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    kind: HeaderValue,
    tag: HeaderValue,
}

impl File {
    fn new(bytes: Cow<'static, [u8]>, kind: &str, hash: &[u8]) -> Self {
        let header = |text: &str| HeaderValue::from_str(text).expect("a header of plain letters");
        // Text is UTF-8 here, and browsers want to be told.
        let charset = if kind.starts_with("text/") {
            "; charset=utf-8"
        } else {
            ""
        };
        Self {
            bytes: match bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => Bytes::from(bytes),
            },
            kind: header(&format!("{kind}{charset}")),
            tag: header(&format!("W/\"{}\"", hex::encode(&hash[..16]))),
        }
    }
}

impl Ui {
    /// The page as it was built.
    pub(crate) fn load() -> Self {
        let mut files = HashMap::new();
        for path in Files::iter() {
            if let Some(file) = Files::get(&path) {
                let hash = file.metadata.sha256_hash();
                files.insert(
                    path.to_string(),
                    File::new(file.data.clone(), file.metadata.mimetype(), &hash),
                );
            }
        }
        let index = files.get("index.html").cloned().unwrap_or_else(|| {
            let placeholder = include_bytes!("ui/placeholder.html");
            File::new(Cow::Borrowed(placeholder), "text/html", b"placeholder-page")
        });
        Self::new(files, index)
    }

    fn new(files: HashMap<String, File>, index: File) -> Self {
        let policy = csp::policy(&String::from_utf8_lossy(&index.bytes));
        let policy = HeaderValue::from_str(&policy).expect("a policy of plain letters");
        Self {
            files,
            index,
            policy,
        }
    }

    /// Answers what no route took.
    pub(crate) fn answer(self: &Arc<Self>, request: &Request) -> Response {
        let path = request.uri().path().trim_start_matches('/');
        let missing =
            |code, detail: String| ApiError::Request(Problem::new(code, detail)).into_response();
        if is_api(path) {
            return missing(
                ProblemCode::NotFound,
                format!("there is nothing at `/{path}`"),
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return missing(
                ProblemCode::MethodNotAllowed,
                "the page is only read".to_owned(),
            );
        }
        let headers = request.headers();
        if let Some(file) = self.files.get(path).filter(|_| path != "index.html") {
            let caching = if path.starts_with(HASHED) {
                FOR_EVER
            } else {
                ASK_AGAIN
            };
            return self.file(path, file, caching, headers);
        }
        // A missing script must not be answered with the page: browsers would run it as one.
        if path == "index.html" || accepts_html(headers) && !path.starts_with("_app/") {
            return self.file("index.html", &self.index, ASK_AGAIN, headers);
        }
        missing(
            ProblemCode::NotFound,
            format!("there is nothing at `/{path}`"),
        )
    }

    fn file(&self, path: &str, file: &File, caching: HeaderValue, headers: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        let out = response.headers_mut();
        out.insert(header::CACHE_CONTROL, caching);
        out.insert(header::ETAG, file.tag.clone());
        out.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        if headers
            .get(header::IF_NONE_MATCH)
            .is_some_and(|tags| holds(tags, &file.tag))
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        out.insert(header::CONTENT_TYPE, file.kind.clone());
        let packed = ["br", "gzip"]
            .into_iter()
            .filter(|coding| accepts(headers, coding))
            .find_map(|coding| {
                let ending = if coding == "br" { "br" } else { "gz" };
                Some((coding, self.files.get(&format!("{path}.{ending}"))?))
            });
        if let Some((coding, packed)) = packed {
            out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            *response.body_mut() = Body::from(packed.bytes.clone());
        } else {
            *response.body_mut() = Body::from(file.bytes.clone());
        }
        response
    }
}

/// Whether a path belongs to programs: those get errors as problems, never the page. The API's documentation is
/// for people and a part of the page.
fn is_api(path: &str) -> bool {
    path == "api" || (path.starts_with("api/") && path != "api/docs") || path == "ws"
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accepted.is_some_and(|accept| accept.contains("text/html"))
}

/// Whether the client takes this coding.
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|accept| accept.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next() == Some(coding)
            && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn holds(tags: &HeaderValue, tag: &HeaderValue) -> bool {
    let tag = tag.to_str().unwrap_or_default();
    tags.to_str()
        .is_ok_and(|tags| tags.split(',').any(|one| one.trim() == tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ui() -> Arc<Ui> {
        let file = |text: &'static str, kind: &str| {
            File::new(
                Cow::Borrowed(text.as_bytes()),
                kind,
                &<[u8; 32]>::from(sha2::Sha256::digest(text)),
            )
        };
        let files = [
            (
                "index.html",
                file("<script>start()</script>page", "text/html"),
            ),
            ("favicon.svg", file("<svg/>", "image/svg+xml")),
            (
                "_app/immutable/a.1234.js",
                file("script", "text/javascript"),
            ),
            (
                "_app/immutable/a.1234.js.br",
                file("packed", "application/octet-stream"),
            ),
        ];
        let files: HashMap<_, _> = files
            .into_iter()
            .map(|(path, file)| (path.to_owned(), file))
            .collect();
        let index = files["index.html"].clone();
        Arc::new(Ui::new(files, index))
    }

    use sha2::Digest;

    fn get(path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ui().answer(&request.body(Body::empty()).unwrap())
    }

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    #[tokio::test]
    async fn every_page_address_is_the_page() {
        for path in [
            "/",
            "/setup",
            "/vms/local/web.1?tab=terminal",
            "/api/docs",
            "/index.html",
        ] {
            let response = get(path, &[BROWSER]);
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()["cache-control"], "no-cache");
            assert_eq!(
                response.headers()["content-type"],
                "text/html; charset=utf-8"
            );
            let policy = response.headers()["content-security-policy"]
                .to_str()
                .unwrap();
            assert!(policy.contains("script-src 'self' 'sha256-"), "{policy}");
            assert!(!policy.contains("script-src 'self' 'unsafe"), "{policy}");
            assert_eq!(text(response).await, "<script>start()</script>page");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_missing() {
        for path in ["/api/v1/nothing", "/api", "/ws", "/_app/immutable/gone.js"] {
            assert_eq!(get(path, &[BROWSER]).status(), 404, "{path}");
        }
        assert_eq!(get("/gone.js", &[("accept", "*/*")]).status(), 404);
        let post = Request::post("/").body(Body::empty()).unwrap();
        assert_eq!(ui().answer(&post).status(), 405);
    }

    #[tokio::test]
    async fn hashed_files_are_kept_for_ever_and_come_packed() {
        let path = "/_app/immutable/a.1234.js";
        let plain = get(path, &[]);
        assert_eq!(
            plain.headers()["cache-control"],
            "public, max-age=31536000, immutable"
        );
        assert_eq!(text(plain).await, "script");
        let packed = get(path, &[("accept-encoding", "gzip, br")]);
        assert_eq!(packed.headers()["content-encoding"], "br");
        assert_eq!(
            packed.headers()["content-type"],
            "text/javascript; charset=utf-8"
        );
        assert_eq!(text(packed).await, "packed");
        let refused = get(path, &[("accept-encoding", "gzip, br;q=0")]);
        assert_eq!(text(refused).await, "script");
    }

    #[tokio::test]
    async fn what_the_browser_has_is_not_sent_again() {
        let first = get("/favicon.svg", &[]);
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        let second = get("/favicon.svg", &[("if-none-match", &tag)]);
        assert_eq!(second.status(), 304);
        assert_eq!(text(second).await, "");
        assert_eq!(
            get("/favicon.svg", &[("if-none-match", "W/\"other\"")]).status(),
            200
        );
    }

    #[tokio::test]
    async fn a_build_without_page_says_how_to_build_it() {
        let placeholder = File::new(
            Cow::Borrowed(include_bytes!("ui/placeholder.html")),
            "text/html",
            &[0; 16],
        );
        let ui = Arc::new(Ui::new(HashMap::new(), placeholder));
        let request = Request::get("/")
            .header(BROWSER.0, BROWSER.1)
            .body(Body::empty())
            .unwrap();
        assert!(
            text(ui.answer(&request))
                .await
                .contains("npm --prefix web run build")
        );
    }
}
