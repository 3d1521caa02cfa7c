//! Somebody who calls a master or an agent over HTTP.

use std::sync::Once;

use batwa_api::certificate::CertificateHash;
use batwa_tls::{SystemRoots, Trust};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

/// Who calls, and where.
#[derive(Clone)]
pub(crate) struct Caller {
    http: reqwest::Client,
    /// Where.
    pub(crate) url: String,
    headers: Vec<(&'static str, String)>,
    trust: Trust,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body; null when it is no JSON.
    pub(crate) body: Value,
}

impl Answer {
    /// The body, when the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The body, when the call succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.body
        );
        self.body
    }

    /// The text that old clients show, when the call failed in this way.
    #[track_caller]
    pub(crate) fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        self.body["detail"]
            .as_str()
            .unwrap_or_else(|| panic!("no `detail` in {}", self.body))
            .to_owned()
    }

    /// One header.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

static TLS: Once = Once::new();

impl Caller {
    /// Somebody without any credentials.
    pub(crate) fn nobody(url: &str) -> Self {
        Self::believing(url, Trust::Roots)
    }

    /// Somebody without any credentials who takes this certificate for the right one.
    pub(crate) fn pinning(url: &str, certificate: CertificateHash) -> Self {
        Self::believing(url, Trust::Pinned(certificate))
    }

    fn believing(url: &str, trust: Trust) -> Self {
        TLS.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .tls_backend_preconfigured(trust.client_config(&SystemRoots::default()))
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client"),
            url: url.to_owned(),
            headers: Vec::new(),
            trust,
        }
    }

    /// What it believes of certificates.
    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    /// A browser that is signed in.
    pub(crate) async fn with_cookie(url: &str, user: (&str, &str)) -> Self {
        Self::nobody(url).sign_in(user).await
    }

    /// The same, signed in as a browser does.
    pub(crate) async fn sign_in(self, (user, password): (&str, &str)) -> Self {
        let mut caller = self;
        let answer = caller
            .post(
                "/api/auth/login",
                json!({ "username": user, "password": password }),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cookie = answer
            .header("set-cookie")
            .split(';')
            .next()
            .unwrap_or_default();
        caller.headers.push(("cookie", cookie.to_owned()));
        caller
    }

    /// A script with an API token of that user.
    pub(crate) async fn with_token(url: &str, user: (&str, &str)) -> Self {
        Self::nobody(url).take_token(user).await
    }

    /// The same for whoever this is so far.
    pub(crate) async fn take_token(self, user: (&str, &str)) -> Self {
        let browser = self.clone().sign_in(user).await;
        let created = browser
            .post("/api/v1/tokens", json!({ "name": "lab" }))
            .await
            .expect(201);
        let token = created["token"].as_str().expect("a token");
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// A master with an agent's key.
    pub(crate) fn with_key(url: &str, key: &str) -> Self {
        Self::nobody(url).header("x-api-key", key)
    }

    /// The same with a header more.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Its headers.
    pub(crate) fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// The API token, where it has one.
    pub(crate) fn token(&self) -> &str {
        self.headers
            .iter()
            .find_map(|(_, value)| value.strip_prefix("Bearer "))
            .expect("a token")
    }

    /// A request with its credentials.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        Self::answer(request.send().await.expect("an answer")).await
    }

    async fn answer(response: reqwest::Response) -> Answer {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.unwrap_or_default();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            body,
        }
    }

    /// `GET`
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `GET` that may find nobody there.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Answer> {
        let response = self.request(Method::GET, path).send().await.ok()?;
        Some(Self::answer(response).await)
    }

    /// `POST` of JSON
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    /// `PUT` of JSON
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// `PATCH` with JSON
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(&body))
            .await
    }

    /// `DELETE`
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }
}
