//! Getting into VMs beside terminals: commands, files, connections to ports, displays. The master says who may, writes it down, and
//! copies; nothing of it is held or read here but a command's first frame, for the audit.

mod start;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use batwa_api::{
    exec::{ExecCommand, ExecServerFrame, PostExec},
    problem::{Problem, ProblemCode},
    vm::VmAction,
};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    App, Error,
    audit::{Outcome, Record},
    auth::{Caller, Right},
    operations::agent_error,
    terminals::{
        frames::{Ending, TEXT, push_frame},
        splice,
    },
    vms::VmRef,
};
use crate::{
    client::{Attached, ClientError, SLOW_CALL_DEADLINE, legacy::path_segment},
    fleet::contact::Contact,
};

/// How long a caller may take to say what to run.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long a caller may take to hear why nothing runs.
const FAREWELL: Duration = Duration::from_secs(1);
/// Longest text of a command in the audit.
const MAX_WORDS: usize = 1000;

/// A way into a VM: its agent, and who goes.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) vm: VmRef,
    caller: Caller,
    contact: Arc<Contact>,
}

impl App {
    /// Whether `caller` may get into a VM, and can now. `what` says what for: `run a command in`.
    pub(crate) fn way_into(&self, caller: &Caller, vm: VmRef, what: &str) -> Result<Way, Error> {
        self.way_for(caller, vm, VmAction::Shell, what)
    }

    /// Whether `caller` may see a VM's display, and can now.
    pub(crate) fn way_to_display(&self, caller: &Caller, vm: VmRef) -> Result<Way, Error> {
        self.way_for(caller, vm, VmAction::Display, "show the display of")
    }

    fn way_for(
        &self,
        caller: &Caller,
        vm: VmRef,
        action: VmAction,
        what: &str,
    ) -> Result<Way, Error> {
        caller.require(Right::Terminal)?;
        let contact = self.online(&vm.agent)?;
        if self.is_legacy(&vm.agent) {
            return Err(Error::Problem(Box::new(Problem::new(
                ProblemCode::Unsupported,
                format!(
                    "cannot {what} VM `{}`: {} runs an agent of the old kind, which has terminals only: run `batwa agent` there",
                    vm.name,
                    Self::agent_words(&vm.agent)
                ),
            ))));
        }
        self.can_enter(&vm, action, what)?;
        Ok(Way {
            vm,
            caller: caller.clone(),
            contact,
        })
    }

    /// Runs a command for a caller whose WebSocket is open: hears what, writes it down, and joins the two.
    pub(crate) async fn exec(
        &self,
        way: Way,
        key: HeaderValue,
        mut viewer: impl AsyncRead + AsyncWrite + Send + Unpin,
    ) {
        let begun = async {
            let heard = timeout(START_DEADLINE, start::read(&mut viewer)).await;
            let start = heard
                .map_err(|_| {
                    Error::Problem(Box::new(start::malformed(
                        "nothing was said to be run in time",
                    )))
                })?
                .map_err(|problem| Error::Problem(Box::new(problem)))?;
            let path = way.path("exec");
            let opened = way.contact.client.open_websocket(&path, key).await;
            let opened = opened.map_err(|error| way.error(error));
            self.audit_way(
                &way,
                "vm.exec",
                Some(words(&start.command)),
                opened.as_ref().err(),
            )
            .await?;
            let mut attached = opened?;
            let sent = attached.stream.write_all(&start.frame).await;
            sent.map_err(|error| {
                Error::Problem(Box::new(Problem::new(
                    ProblemCode::AgentOffline,
                    format!("the agent went: {error}"),
                )))
            })?;
            Ok::<_, Error>(attached)
        };
        match begun.await {
            Ok(attached) => {
                let ending = self.ending(&way.caller, &way.contact);
                splice::splice(viewer, attached.stream, ending).await;
            }
            Err(error) => {
                let _ = timeout(FAREWELL, turn_away(&mut viewer, &error)).await;
            }
        }
    }

    /// Runs a command whose output is the answer, line by line.
    pub(crate) async fn run_exec(
        &self,
        way: Way,
        post: &PostExec,
    ) -> Result<Response<Body>, Error> {
        let errors = post.command.check();
        if !errors.is_empty() {
            return Err(Error::Invalid(errors));
        }
        let body = serde_json::to_vec(post).map_err(Error::internal)?;
        let headers = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )]);
        let said = words(&post.command);
        let path = way.path("exec");
        let client = &way.contact.client;
        let begun = client.stream(Method::POST, &path, headers, Body::from(body));
        let begun = async {
            let late = Err(ClientError::Timeout(SLOW_CALL_DEADLINE));
            timeout(SLOW_CALL_DEADLINE, begun).await.unwrap_or(late)
        };
        let answer = self.write_down_and(&way, "vm.exec", said, begun).await?;
        Ok(self.pass_on(way, answer))
    }

    /// A call about files, passed on as it is in both directions.
    pub(crate) async fn files(
        &self,
        way: Way,
        call: FileCall,
        body: Body,
    ) -> Result<Response<Body>, Error> {
        let path = format!("{}?{}", way.path("files"), call.query);
        let method = call.method.clone();
        // The answer to an upload comes when all has been sent: no deadline but the reasons to end.
        let send = way.contact.client.stream(method, &path, call.headers, body);
        let answer = match call.action {
            Some(action) => self.write_down_and(&way, action, call.path, send).await,
            None => self.until_ending(&way, send).await,
        }?;
        Ok(self.pass_on(way, answer))
    }

    /// What is asked of an agent, after its line in the audit: what cannot be written down is not done. What came to
    /// nothing has a second line, with the reason.
    async fn write_down_and<T>(
        &self,
        way: &Way,
        action: &str,
        detail: String,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Error> {
        self.audit_way(way, action, Some(detail.clone()), None)
            .await?;
        let done = self.until_ending(way, work).await;
        if let Err(error) = &done {
            self.audit_way(way, action, Some(detail), Some(error))
                .await?;
        }
        done
    }

    /// What is asked of an agent, given up as soon as the caller may no longer, the agent is gone, or the master stops.
    async fn until_ending<T>(
        &self,
        way: &Way,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Error> {
        tokio::select! {
            done = work => done.map_err(|error| way.error(error)),
            ending = self.ending(&way.caller, &way.contact) => Err(Error::Conflict(ending.reason)),
        }
    }

    /// Connects to a port of a VM, for a caller whose WebSocket is still to be opened.
    pub(crate) async fn connect_port(
        &self,
        way: &Way,
        port: u16,
        key: HeaderValue,
    ) -> Result<Attached, Error> {
        let path = way.path(&format!("ports/{port}"));
        let opened = way.contact.client.open_websocket(&path, key).await;
        let opened = opened.map_err(|error| way.error(error));
        let detail = Some(format!("port {port}"));
        self.audit_way(way, "vm.connect", detail, opened.as_ref().err())
            .await?;
        opened
    }

    /// Connects to the display of a VM, for a caller whose WebSocket is still to be opened.
    pub(crate) async fn connect_display(
        &self,
        way: &Way,
        key: HeaderValue,
    ) -> Result<Attached, Error> {
        let opened = way
            .contact
            .client
            .open_websocket(&way.path("display"), key)
            .await;
        let opened = opened.map_err(|error| way.error(error));
        self.audit_way(way, "vm.display", None, opened.as_ref().err())
            .await?;
        opened
    }

    /// Joins the two ends of a connection.
    pub(crate) async fn join_connection(
        &self,
        way: &Way,
        attached: Attached,
        viewer: impl AsyncRead + AsyncWrite + Send + Unpin,
    ) {
        let ending = self.ending(&way.caller, &way.contact);
        splice::splice(viewer, attached.stream, ending).await;
    }

    async fn audit_way(
        &self,
        way: &Way,
        action: &str,
        detail: Option<String>,
        failure: Option<&Error>,
    ) -> Result<(), Error> {
        let (outcome, detail) = match failure {
            None => (Outcome::Ok, detail),
            Some(error) => (
                Outcome::Failed,
                Some(
                    detail.map_or_else(|| error.to_string(), |detail| format!("{detail}: {error}")),
                ),
            ),
        };
        let record = Record {
            outcome,
            detail,
            ..Record::ok(action, format!("{}/{}", way.vm.agent, way.vm.name))
        };
        self.audit(&way.caller, record).await
    }

    /// The agent's answer for the caller, cut as soon as the caller may no longer, or the agent is gone.
    fn pass_on(&self, way: Way, answer: Response<Incoming>) -> Response<Body> {
        const PASSED: [&str; 9] = [
            "content-length",
            "content-range",
            "accept-ranges",
            "etag",
            "last-modified",
            batwa_api::file::header::MODE,
            batwa_api::file::header::UPLOAD_OFFSET,
            batwa_api::file::header::DIGEST,
            "content-disposition",
        ];
        let (parts, body) = answer.into_parts();
        let app = self.clone();
        let ending = Box::pin(async move { app.ending(&way.caller, &way.contact).await });
        let pieces = Body::new(body).into_data_stream();
        let cut = stream::unfold(Some((pieces, ending)), async |held| {
            let (mut pieces, mut ending) = held?;
            tokio::select! {
                piece = pieces.next() => {
                    let piece = piece?.map_err(std::io::Error::other);
                    Some((piece, Some((pieces, ending))))
                }
                ending = &mut ending => Some((Err(std::io::Error::other(ending.reason)), None)),
            }
        });
        let mut response = Response::new(Body::from_stream(cut));
        *response.status_mut() = parts.status;
        if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
            let kind = kind_passed_on(kind);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        for name in PASSED {
            if let Some(value) = parts.headers.get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}

/// What an agent's answer is called: nothing that a browser would show as a page of the master's, whatever a liar says.
fn kind_passed_on(kind: &HeaderValue) -> HeaderValue {
    const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
    const KNOWN: [&str; 3] = [
        "application/json",
        "application/x-ndjson",
        "application/x-tar",
    ];
    let is_known = KNOWN
        .iter()
        .any(|known| kind.as_bytes() == known.as_bytes());
    if is_known { kind.clone() } else { BYTES }
}

/// What a caller asks of a VM's files.
pub(crate) struct FileCall {
    pub(crate) method: Method,
    /// As it goes to the agent.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// The file, for the audit.
    pub(crate) path: String,
    /// What the audit calls it; nothing for a look.
    pub(crate) action: Option<&'static str>,
}

impl Way {
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/vms/{}/{rest}", path_segment(self.vm.name.as_str()))
    }

    fn error(&self, error: ClientError) -> Error {
        agent_error(&self.vm.agent, error)
    }
}

/// An argument vector for the audit. Variables are not in it: they are where secrets are.
fn words(command: &ExecCommand) -> String {
    let words = command.argv.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("{word:?}")
        }
    });
    crate::client::clip(&words.collect::<Vec<_>>().join(" "), MAX_WORDS)
}

/// Says why nothing runs, and closes.
async fn turn_away(
    viewer: &mut (impl AsyncRead + AsyncWrite + Unpin),
    error: &Error,
) -> std::io::Result<()> {
    let problem = error.to_problem();
    let frame = ExecServerFrame::Error {
        code: problem.code,
        detail: problem.detail,
    };
    let mut bytes = Vec::new();
    push_frame(
        &mut bytes,
        TEXT,
        &serde_json::to_vec(&frame).unwrap_or_default(),
    );
    bytes.extend(Ending::new(batwa_api::terminal::close_code::ENDED, "").frames());
    viewer.write_all(&bytes).await?;
    viewer.shutdown().await?;
    // Closed with its answer unread, the connection would be reset and the reason lost.
    tokio::io::copy(viewer, &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_agent_makes_pages_of_the_masters() {
        let passed = |kind: &'static str| kind_passed_on(&HeaderValue::from_static(kind));
        assert_eq!(passed("application/json"), "application/json");
        for page in [
            "text/html",
            "image/svg+xml",
            "application/json;,text/html",
            "Text/HTML; x",
        ] {
            assert_eq!(passed(page), "application/octet-stream", "{page}");
        }
    }

    #[test]
    fn the_audit_has_the_words_and_not_the_variables() {
        let command = ExecCommand {
            argv: ["sh", "-c", "echo $TOKEN", ""].map(str::to_owned).into(),
            env: [("TOKEN".to_owned(), "secret".to_owned())].into(),
            ..ExecCommand::default()
        };
        assert_eq!(words(&command), r#"sh -c "echo $TOKEN" """#);
        let long = ExecCommand {
            argv: vec!["x".repeat(5000)],
            ..ExecCommand::default()
        };
        assert!(words(&long).chars().count() <= MAX_WORDS + 1);
    }
}
