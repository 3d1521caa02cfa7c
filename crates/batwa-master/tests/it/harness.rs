//! A master of one's own, and callers of each kind.

use std::{net::SocketAddr, sync::Once};

use batwa_api::problem::{Problem, ProblemCode};
use batwa_master::{Master, MasterConfig};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN_PASSWORD: &str = "correct horse battery";

/// A running master; dropping it stops it.
pub(crate) struct TestMaster {
    pub(crate) address: SocketAddr,
    pub(crate) setup_link: Option<String>,
    pub(crate) state: TempDir,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), batwa_master::MasterError>>,
}

impl TestMaster {
    /// A fresh master without an admin.
    pub(crate) async fn fresh() -> Self {
        Self::with(|_| {}).await
    }

    /// A master whose admin is `admin` with [`ADMIN_PASSWORD`].
    pub(crate) async fn with_admin() -> Self {
        Self::with(give_admin).await
    }

    /// A fresh master with settings of one's own.
    pub(crate) async fn with(settings: impl FnOnce(&mut MasterConfig)) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), settings).await
    }

    /// A master with a state folder that may have been used before.
    pub(crate) async fn in_folder(
        state: TempDir,
        settings: impl FnOnce(&mut MasterConfig),
    ) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap()
        });
        let mut config = MasterConfig::new(state.path().join("state"));
        config.host = "127.0.0.1".to_owned();
        config.port = 0;
        settings(&mut config);
        let bound = Master::new(config).unwrap().bind().await.unwrap();
        let address = bound.address();
        let setup_link = bound.setup_link();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(bound.run(stop.clone()));
        Self {
            address,
            setup_link,
            state,
            stop,
            tasks,
        }
    }

    /// Stops it in order and gives its folder back.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        self.state
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Somebody without credentials.
    pub(crate) fn anonymous(&self) -> Caller<'_> {
        Caller {
            master: self,
            client: Client::builder().cookie_store(true).build().unwrap(),
            bearer: None,
        }
    }

    /// Somebody signed in by cookie.
    pub(crate) async fn signed_in(&self, name: &str, password: &str) -> Caller<'_> {
        let caller = self.anonymous();
        caller
            .post(
                "/api/v1/session",
                json!({"username": name, "password": password}),
            )
            .await
            .expect(StatusCode::OK);
        caller
    }

    /// The admin of [`Self::with_admin`].
    pub(crate) async fn admin(&self) -> Caller<'_> {
        self.signed_in("admin", ADMIN_PASSWORD).await
    }
}

/// Makes the first admin at start.
pub(crate) fn give_admin(config: &mut MasterConfig) {
    let path = config.state_dir.parent().unwrap().join("password");
    std::fs::write(&path, format!("{ADMIN_PASSWORD}\n")).unwrap();
    config.admin_password_file = Some(path);
}

/// Somebody who calls.
pub(crate) struct Caller<'a> {
    pub(crate) master: &'a TestMaster,
    pub(crate) client: Client,
    pub(crate) bearer: Option<String>,
}

impl<'a> Caller<'a> {
    /// The same master, called with a token.
    pub(crate) fn with_token(&self, token: &str) -> Caller<'a> {
        Caller {
            bearer: Some(token.to_owned()),
            ..self.master.anonymous()
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.client.request(method, self.master.url(path));
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(token) = &self.bearer {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body), &[]).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body), &[]).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, &[]).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    async fn read(response: Response) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    /// The body, after a look at the status.
    #[track_caller]
    pub(crate) fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&self.text).unwrap()
        }
    }

    /// The problem, after a look at its kind; every one has the form of all.
    #[track_caller]
    pub(crate) fn problem(&self, code: ProblemCode) -> Problem {
        let problem: Problem =
            serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(problem.code, code, "{self:?}");
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(self.headers["content-type"], Problem::CONTENT_TYPE);
        assert_eq!(
            problem.request_id.as_deref(),
            Some(self.headers["x-request-id"].to_str().unwrap())
        );
        problem
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
            .to_str()
            .unwrap()
    }
}
