//! The one client of the agent API, over any [`Link`].
//!
//! Every call has a deadline and a bound on the answer's size; whatever a hostile or broken agent sends becomes a
//! [`ClientError`]. Connections of plain calls are kept and used again; the watch and terminals have their own.
//!
//! `legacy.rs` holds the paths of old agents (COMPAT.md).

pub(crate) mod legacy;
pub(crate) mod watch;

use std::{io, net::SocketAddr, sync::Mutex, time::Duration};

use std::sync::Arc;

use axum::body::Body;
use batwa_api::{
    agent::DriverKind,
    id::{OperationId, RecordingId, TerminalId, ViewerId},
    image::{AddImage, Image, ImageCatalogue, ImageName},
    list::Items,
    name::VmName,
    operation::{LogLine, Operation, StartOperation},
    problem::{Problem, ProblemCode},
    recording::{FoundRecordings, RecordTerminal, Recording},
    terminal::{OpenTerminal, SetViewer, Terminal, TerminalAccess, UpdateTerminal},
    tunnel::RotatedKey,
    vm::{HostNetwork, SaveForward, SettingsChange, Vm},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::link::{Hold, Link, Stream};

/// How long a stream may take to come up; a machine that is off does not refuse, it is silent.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long an answer may take that needs no driver.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer may take that may ask the driver: preflight of a create, a shell over SSH.
pub(crate) const SLOW_CALL_DEADLINE: Duration = Duration::from_secs(60);
/// Largest answer: a log or list of VMs is far below, an endless body stops here.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Largest text of an answer that goes into an error message.
const MAX_DETAIL_CHARS: usize = 500;
/// Most refused fields of an answer that are passed on.
const MAX_FIELD_ERRORS: usize = 64;
/// Connections kept for the next call; more only come from calls beside each other.
const MAX_IDLE_CONNECTIONS: usize = 2;

/// Why a call to an agent failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No stream could be made.
    #[error("cannot connect to the agent")]
    Connect(#[source] io::Error),
    /// The agent did not answer in time.
    #[error("the agent did not answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The connection broke or what came is not HTTP.
    #[error("the agent's connection failed")]
    Http(#[source] hyper::Error),
    /// The answer is larger than any honest one.
    #[error("the agent's answer is larger than {} MiB", MAX_ANSWER_BYTES >> 20)]
    TooLarge,
    /// The answer is not what the agent API says.
    #[error("the agent's answer makes no sense: {0}")]
    Garbage(String),
    /// The agent refused, with its reason.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The agent answered with a status and, if any, a text; an old agent's way to refuse.
    #[error("the agent answered {status}: {detail}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What it said.
        detail: String,
    },
}

impl ClientError {
    /// A refusal that came with its status alone.
    fn headless(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            403 => ProblemCode::PermissionDenied,
            404 => ProblemCode::NotFound,
            409 => ProblemCode::IllegalState,
            422 => ProblemCode::InvalidField,
            _ => {
                return Self::Status {
                    status,
                    detail: String::new(),
                };
            }
        };
        Self::Refused(Box::new(Problem::new(code, code.title())))
    }

    /// Whether the agent may never have seen the request or may see it again: asking once more is safe and useful.
    #[must_use]
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Timeout(_) | Self::Http(_))
    }

    /// Whether the agent says that there is no such thing.
    #[must_use]
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status == 404,
            Self::Status { status, .. } => *status == StatusCode::NOT_FOUND,
            _ => false,
        }
    }

    /// The error with its causes on one line, for an agent's row.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        clip(&text, MAX_DETAIL_CHARS)
    }
}

/// The first `max` characters of `text`, control characters blanked: agents' words go to pages and logs.
#[must_use]
pub(crate) fn clip(text: &str, max: usize) -> String {
    let mut clipped: String = text
        .chars()
        .take(max)
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect();
    if clipped.len() < text.len() && text.chars().nth(max).is_some() {
        clipped.push('…');
    }
    clipped
}

/// The answer to an upgrade: the raw stream, and the headers that go back to the browser.
pub(crate) struct Attached {
    /// Bytes to and from the agent's end of the WebSocket.
    pub(crate) stream: TokioIo<Upgraded>,
    /// The agent's `Sec-WebSocket-Accept`, made from the key that was sent.
    pub(crate) accept: Option<HeaderValue>,
}

/// A client of one agent. Cheap to share; lives as long as the agent's address and key do.
pub(crate) struct AgentClient {
    link: Arc<dyn Link>,
    key: Option<HeaderValue>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    connections: TaskTracker,
}

impl AgentClient {
    /// A client over `link` that presents `key`; its connections are driven as tasks of `connections`.
    ///
    /// # Errors
    /// When the key cannot stand in a header.
    pub(crate) fn new(
        link: Arc<dyn Link>,
        key: Option<&SecretString>,
        connections: TaskTracker,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let key = key
            .map(|key| {
                let mut value = HeaderValue::from_str(key.expose_secret())?;
                value.set_sensitive(true);
                Ok::<_, http::header::InvalidHeaderValue>(value)
            })
            .transpose()?;
        Ok(Self {
            link,
            key,
            idle: Mutex::new(Vec::new()),
            connections,
        })
    }

    /// The link it speaks over.
    #[must_use]
    pub(crate) fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }

    /// Starts an operation; the same id again answers with the same operation.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Refused`] when the agent does not accept it.
    pub(crate) async fn start_operation(
        &self,
        id: OperationId,
        start: &StartOperation,
    ) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/operations/{id}");
        self.json(Method::PUT, &path, Some(start), SLOW_CALL_DEADLINE)
            .await
    }

    /// Changes what the agent does about a VM by itself; the VM from then on.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Refused`] when the agent does not take it.
    pub(crate) async fn change_settings(
        &self,
        vm: &VmName,
        change: &SettingsChange,
    ) -> Result<Vm, ClientError> {
        let path = format!("/api/v1/vms/{}", legacy::path_segment(vm.as_str()));
        self.json(Method::PATCH, &path, Some(change), CALL_DEADLINE)
            .await
    }

    /// The machine's networks that VMs can be put on.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn networks(&self) -> Result<Vec<HostNetwork>, ClientError> {
        let networks: Items<HostNetwork> = self.get("/api/v1/networks").await?;
        Ok(networks.items)
    }

    /// Has the machine listen for a VM; the VM from then on.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Refused`] when the agent does not take it.
    pub(crate) async fn save_forward(
        &self,
        vm: &VmName,
        forward: &SaveForward,
    ) -> Result<Vm, ClientError> {
        let path = format!("/api/v1/vms/{}/forwards", legacy::path_segment(vm.as_str()));
        self.json(Method::PUT, &path, Some(forward), CALL_DEADLINE)
            .await
    }

    /// Has the machine listen there no more; the VM from then on.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Refused`] when the agent does not take it.
    pub(crate) async fn remove_forward(
        &self,
        vm: &VmName,
        listen: SocketAddr,
    ) -> Result<Vm, ClientError> {
        let vm = legacy::path_segment(vm.as_str());
        let listen = legacy::path_segment(&listen.to_string());
        let path = format!("/api/v1/vms/{vm}/forwards/{listen}");
        self.json(Method::DELETE, &path, None::<&()>, CALL_DEADLINE)
            .await
    }

    /// One operation.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn operation(&self, id: OperationId) -> Result<Operation, ClientError> {
        self.get(&format!("/api/v1/operations/{id}")).await
    }

    /// Asks for an operation to be cancelled.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn cancel_operation(&self, id: OperationId) -> Result<(), ClientError> {
        let path = format!("/api/v1/operations/{id}/cancel");
        self.send(Method::POST, &path, None, CALL_DEADLINE).await?;
        Ok(())
    }

    /// What an operation's driver printed.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn operation_log(&self, id: OperationId) -> Result<Vec<LogLine>, ClientError> {
        let list: Items<LogLine> = self.get(&format!("/api/v1/operations/{id}/log")).await?;
        Ok(list.items)
    }

    /// Has the agent change its key; it answers once master and agent go by the new one.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn rotate_key(&self) -> Result<RotatedKey, ClientError> {
        let path = "/api/v1/identity/rotate-key";
        self.json(Method::POST, path, None::<&()>, SLOW_CALL_DEADLINE)
            .await
    }

    /// What can be launched there.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn images(&self) -> Result<ImageCatalogue, ClientError> {
        self.get("/api/v1/images").await
    }

    /// Adds an image by its address or file.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn add_image(&self, add: &AddImage) -> Result<Image, ClientError> {
        let path = "/api/v1/images";
        self.json(Method::POST, path, Some(add), SLOW_CALL_DEADLINE)
            .await
    }

    /// Passes an image on as it comes in. No deadline: the caller has reasons to end it.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn upload_image(
        &self,
        name: &ImageName,
        query: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Image, ClientError> {
        let name = legacy::path_segment(name.as_str());
        let path = format!("/api/v1/images/{name}/content?{query}");
        let answer = self.stream(Method::PUT, &path, headers, body).await?;
        let answer = timeout(CALL_DEADLINE, read_all(answer.into_body()))
            .await
            .unwrap_or(Err(ClientError::Timeout(CALL_DEADLINE)))?;
        serde_json::from_slice(&answer)
            .map_err(|error| ClientError::Garbage(clip(&error.to_string(), MAX_DETAIL_CHARS)))
    }

    /// How many bytes are there of an upload that was cut off; none where the agent knows of no such thing.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn held_of_upload(
        &self,
        name: &ImageName,
        query: &str,
    ) -> Result<u64, ClientError> {
        let name = legacy::path_segment(name.as_str());
        let path = format!("/api/v1/images/{name}/content?{query}");
        let look = self.stream(Method::HEAD, &path, HeaderMap::new(), Body::empty());
        let answer = timeout(CALL_DEADLINE, look)
            .await
            .unwrap_or(Err(ClientError::Timeout(CALL_DEADLINE)))?;
        let held = answer.headers().get(batwa_api::file::header::UPLOAD_OFFSET);
        Ok(held
            .and_then(|held| held.to_str().ok()?.parse().ok())
            .unwrap_or(0))
    }

    /// Removes what is there of an image.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn remove_image(
        &self,
        name: &ImageName,
        driver: Option<DriverKind>,
    ) -> Result<(), ClientError> {
        let name = legacy::path_segment(name.as_str());
        let query = driver.map_or_else(String::new, |driver| format!("?driver={driver}"));
        let path = format!("/api/v1/images/{name}{query}");
        self.send(Method::DELETE, &path, None, SLOW_CALL_DEADLINE)
            .await?;
        Ok(())
    }

    /// Opens a terminal session.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn open_terminal(&self, open: &OpenTerminal) -> Result<Terminal, ClientError> {
        self.json(
            Method::POST,
            "/api/v1/terminals",
            Some(open),
            SLOW_CALL_DEADLINE,
        )
        .await
    }

    /// Names a terminal session, or changes how long it lives on.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn update_terminal(
        &self,
        id: TerminalId,
        update: &UpdateTerminal,
    ) -> Result<Terminal, ClientError> {
        let path = format!("/api/v1/terminals/{id}");
        self.json(Method::PATCH, &path, Some(update), CALL_DEADLINE)
            .await
    }

    /// Lets a viewer of a terminal session type, or only watch.
    ///
    /// # Errors
    /// Any [`ClientError`]; one that [is not found](ClientError::is_not_found) when the viewer has left.
    pub(crate) async fn set_viewer(
        &self,
        id: TerminalId,
        viewer: ViewerId,
        access: TerminalAccess,
    ) -> Result<(), ClientError> {
        let path = format!("/api/v1/terminals/{id}/viewers/{viewer}");
        let body = to_json(&SetViewer { access })?;
        self.send(Method::PUT, &path, Some(body), CALL_DEADLINE)
            .await?;
        Ok(())
    }

    /// Begins to record a terminal session.
    ///
    /// # Errors
    /// Any [`ClientError`]; one that [is not found](ClientError::is_not_found) from agents that cannot.
    pub(crate) async fn record_terminal(
        &self,
        id: TerminalId,
        record: &RecordTerminal,
    ) -> Result<Terminal, ClientError> {
        let path = format!("/api/v1/terminals/{id}/recording");
        self.json(Method::PUT, &path, Some(record), CALL_DEADLINE)
            .await
    }

    /// Ends the recording of a terminal session.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn stop_recording(&self, id: TerminalId) -> Result<(), ClientError> {
        let path = format!("/api/v1/terminals/{id}/recording");
        self.send(Method::DELETE, &path, None, CALL_DEADLINE)
            .await?;
        Ok(())
    }

    /// The recordings that a path with its query asks for.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn recordings(&self, path: &str) -> Result<FoundRecordings, ClientError> {
        self.get(path).await
    }

    /// One recording.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn recording(&self, id: RecordingId) -> Result<Recording, ClientError> {
        self.get(&format!("/api/v1/recordings/{id}")).await
    }

    /// Deletes a recording.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn delete_recording(&self, id: RecordingId) -> Result<(), ClientError> {
        let path = format!("/api/v1/recordings/{id}");
        self.send(Method::DELETE, &path, None, CALL_DEADLINE)
            .await?;
        Ok(())
    }

    /// Ends a terminal session.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub(crate) async fn close_terminal(&self, id: TerminalId) -> Result<(), ClientError> {
        let path = format!("/api/v1/terminals/{id}");
        self.send(Method::DELETE, &path, None, CALL_DEADLINE)
            .await?;
        Ok(())
    }

    /// Opens the WebSocket at `path_and_query`, sending on the browser's own handshake key.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Refused`] or [`ClientError::Status`] when the agent does not upgrade.
    pub(crate) async fn open_websocket(
        &self,
        path_and_query: &str,
        key: HeaderValue,
    ) -> Result<Attached, ClientError> {
        let mut request = self.request(Method::GET, path_and_query, None)?;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        let deadline = SLOW_CALL_DEADLINE;
        timeout(deadline, async {
            let mut sender = self.connect(Hold::Long).await?;
            let response = sender
                .send_request(request)
                .await
                .map_err(ClientError::Http)?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(refusal(response).await);
            }
            let accept = response
                .headers()
                .get(header::SEC_WEBSOCKET_ACCEPT)
                .cloned();
            let upgraded = hyper::upgrade::on(response)
                .await
                .map_err(ClientError::Http)?;
            Ok(Attached {
                stream: TokioIo::new(upgraded),
                accept,
            })
        })
        .await
        .unwrap_or(Err(ClientError::Timeout(deadline)))
    }

    /// One call over a connection of its own, both bodies streamed. There is no deadline once it is connected: the
    /// caller has reasons to end it.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Refused`] or [`ClientError::Status`] when the agent does not do it.
    pub(crate) async fn stream(
        &self,
        method: Method,
        path_and_query: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let is_head = method == Method::HEAD;
        let plain = self.request(method, path_and_query, None)?;
        let (mut parts, _) = plain.into_parts();
        parts.headers.extend(headers);
        let mut sender = self.connect(Hold::Long).await?;
        let response = sender
            .send_request(Request::from_parts(parts, body))
            .await
            .map_err(ClientError::Http)?;
        if response.status().is_success() {
            return Ok(response);
        }
        if is_head {
            // Its reason has no body to stand in.
            return Err(ClientError::headless(response.status()));
        }
        Err(refusal(response).await)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, None::<&()>, CALL_DEADLINE)
            .await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let body = body.map(to_json).transpose()?;
        let answer = self.send(method, path, body, deadline).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| ClientError::Garbage(clip(&error.to_string(), MAX_DETAIL_CHARS)))
    }

    /// One call: the body of a 2xx answer, whole.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, ClientError> {
        timeout(deadline, async {
            let request = self.request(method.clone(), path, body.clone())?;
            let (sender, result) = match self.take_idle() {
                Some(mut sender) => {
                    let result = sender.send_request(request).await;
                    match result {
                        // The agent may close a kept connection at any moment. Reading again, or doing again what
                        // the agent knows by its id, is safe; anything else is the caller's to decide.
                        Err(error) if error.is_canceled() || is_idempotent(&method) => {
                            let mut sender = self.connect(Hold::Brief).await?;
                            let again = self.request(method, path, body)?;
                            let result = sender.send_request(again).await;
                            (sender, result)
                        }
                        result => (sender, result),
                    }
                }
                None => {
                    let mut sender = self.connect(Hold::Brief).await?;
                    let result = sender.send_request(request).await;
                    (sender, result)
                }
            };
            let response = result.map_err(ClientError::Http)?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            let answer = read_all(response.into_body()).await?;
            self.keep(sender);
            Ok(answer)
        })
        .await
        .unwrap_or(Err(ClientError::Timeout(deadline)))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.link.path_prefix()))
            .header(header::HOST, self.link.host())
            .header(
                header::USER_AGENT,
                concat!("batwa-master/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, "application/json");
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ClientError::Garbage(error.to_string()))
    }

    /// A new connection, its driving task owned by the tracker; it ends when the sender and all it gave are gone.
    async fn connect<B>(&self, hold: Hold) -> Result<SendRequest<B>, ClientError>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = timeout(CONNECT_DEADLINE, self.link.connect(hold))
            .await
            .map_err(|_| ClientError::Timeout(CONNECT_DEADLINE))?
            .map_err(ClientError::Connect)?;
        handshake(stream, &self.connections).await
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().expect("no holder panics");
        std::iter::from_fn(|| idle.pop()).find(SendRequest::is_ready)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().expect("no holder panics");
        if idle.len() < MAX_IDLE_CONNECTIONS && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

async fn handshake<B>(
    stream: Box<dyn Stream>,
    connections: &TaskTracker,
) -> Result<SendRequest<B>, ClientError>
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(64)
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ClientError::Http)?;
    connections.spawn(async move {
        // A failure reaches whoever waits for an answer; the connection itself has nobody to tell.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::PUT | Method::DELETE)
}

fn to_json(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| ClientError::Garbage(error.to_string()))
}

async fn read_all(body: Incoming) -> Result<Bytes, ClientError> {
    match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(ClientError::Http(*error)),
            Err(other) => Err(ClientError::Garbage(other.to_string())),
        },
    }
}

/// Reads why the agent did not do what was asked.
async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let is_problem = content_type(response.headers()).starts_with(Problem::CONTENT_TYPE);
    let body = match read_all(response.into_body()).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    if is_problem && let Ok(mut problem) = serde_json::from_slice::<Problem>(&body) {
        problem.status = status.as_u16();
        shorten(&mut problem);
        // The request id is the agent's; the master's answer carries its own.
        problem.request_id = None;
        return ClientError::Refused(Box::new(problem));
    }
    let detail = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|value| value.get("detail")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    ClientError::Status {
        status,
        detail: clip(detail.trim(), MAX_DETAIL_CHARS),
    }
}

/// Cuts what an agent says to what people read: a liar's answer may be megabytes.
fn shorten(problem: &mut Problem) {
    problem.title = clip(&problem.title, MAX_DETAIL_CHARS);
    problem.detail = clip(&problem.detail, MAX_DETAIL_CHARS * 4);
    problem.errors.truncate(MAX_FIELD_ERRORS);
    for error in &mut problem.errors {
        error.field = clip(&error.field, MAX_DETAIL_CHARS);
        error.message = clip(&error.message, MAX_DETAIL_CHARS);
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
