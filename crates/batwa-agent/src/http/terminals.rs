//! Terminal sessions over HTTP, and the WebSockets on top of them.

use std::future::ready;

use axum::{
    Json,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use batwa_api::{
    id::{KeyboardId, TerminalId, UserId, ViewerId},
    list::Items,
    name::VmName,
    problem::{Problem, ProblemCode},
    recording::RecordTerminal,
    terminal::{
        Admission, ClientFrame, OpenTerminal, ServerFrame, SetViewer, TermSize, Terminal,
        TerminalAccess, TerminalKind, TerminalViewer, UpdateTerminal, close_code,
    },
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    error::{ApiError, ApiResult},
    extract::{JsonBody, PathOf, PathsOf, QueryOf},
};
use crate::terminal::{Close, Inbound, JoinError, Outbound, Seat};

/// What a WebSocket reads at once: keystrokes are tiny, a paste comes in many reads.
const READ_BUFFER: usize = 8 << 10;
/// Largest message: a paste of 10 MB in one piece, with room to spare.
const MAX_MESSAGE: usize = 64 << 20;
/// Longest reason that a close frame holds.
const MAX_REASON: usize = 120;

/// Open a terminal of a running VM. The same id again answers with the same session.
#[utoipa::path(
    post, path = "/api/v1/terminals", tag = "terminals", request_body = OpenTerminal,
    responses(
        (status = 201, body = Terminal), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem),
    )
)]
pub(crate) async fn open_terminal(
    State(app): State<App>,
    JsonBody(request): JsonBody<OpenTerminal>,
) -> ApiResult<Response> {
    app.wait_for_first_word().await;
    let session = app.terminals().open(request).await?;
    Ok((StatusCode::CREATED, Json(session.terminal())).into_response())
}

/// All terminal sessions, the oldest first.
#[utoipa::path(get, path = "/api/v1/terminals", tag = "terminals", responses((status = 200, body = Items<Terminal>)))]
pub(crate) async fn list_terminals(State(app): State<App>) -> Json<Items<Terminal>> {
    Json(app.terminals().list().into())
}

/// End a terminal session and its program.
#[utoipa::path(
    delete, path = "/api/v1/terminals/{id}", tag = "terminals", params(("id" = TerminalId, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(crate) async fn end_terminal(
    State(app): State<App>,
    PathOf(id): PathOf<TerminalId>,
) -> ApiResult<StatusCode> {
    let session = app.terminals().get(id).ok_or_else(|| missing(id))?;
    session.end("the terminal was closed", close_code::ENDED);
    Ok(StatusCode::NO_CONTENT)
}

/// Name a terminal session, or change how long it lives on.
#[utoipa::path(
    patch, path = "/api/v1/terminals/{id}", tag = "terminals", params(("id" = TerminalId, Path)),
    request_body = UpdateTerminal,
    responses((status = 200, body = Terminal), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(crate) async fn update_terminal(
    State(app): State<App>,
    PathOf(id): PathOf<TerminalId>,
    JsonBody(update): JsonBody<UpdateTerminal>,
) -> ApiResult<Json<Terminal>> {
    let session = app.terminals().get(id).ok_or_else(|| missing(id))?;
    Ok(Json(app.terminals().update(&session, &update)?))
}

/// Let a viewer type, or only watch, from now on.
#[utoipa::path(
    put, path = "/api/v1/terminals/{id}/viewers/{viewer}", tag = "terminals",
    params(("id" = TerminalId, Path), ("viewer" = ViewerId, Path)), request_body = SetViewer,
    responses((status = 204), (status = 404, body = Problem))
)]
pub(crate) async fn set_viewer(
    State(app): State<App>,
    PathsOf(id, viewer): PathsOf<TerminalId, ViewerId>,
    JsonBody(set): JsonBody<SetViewer>,
) -> ApiResult<StatusCode> {
    let session = app.terminals().get(id).ok_or_else(|| missing(id))?;
    if app.terminals().set_access(&session, viewer, set.access) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::new(
            ProblemCode::NotFound,
            format!("terminal session `{id}` has no viewer `{viewer}`: it has left"),
        ))
    }
}

/// Record a terminal session from now on; one that is recorded already goes on being so.
#[utoipa::path(
    put, path = "/api/v1/terminals/{id}/recording", tag = "terminals", params(("id" = TerminalId, Path)),
    request_body = RecordTerminal,
    responses(
        (status = 200, body = Terminal), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 507, body = Problem),
    )
)]
pub(crate) async fn record_terminal(
    State(app): State<App>,
    PathOf(id): PathOf<TerminalId>,
    JsonBody(record): JsonBody<RecordTerminal>,
) -> ApiResult<Json<Terminal>> {
    let session = app.terminals().get(id).ok_or_else(|| missing(id))?;
    app.terminals().record(&session, &record).await?;
    app.terminals().tell(&session);
    Ok(Json(session.terminal()))
}

/// End the recording of a terminal session, unless a policy requires it.
#[utoipa::path(
    delete, path = "/api/v1/terminals/{id}/recording", tag = "terminals", params(("id" = TerminalId, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(crate) async fn stop_recording(
    State(app): State<App>,
    PathOf(id): PathOf<TerminalId>,
) -> ApiResult<StatusCode> {
    let session = app.terminals().get(id).ok_or_else(|| missing(id))?;
    app.terminals().stop_recording(&session)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where to begin, and who comes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttachQuery {
    /// The first byte wanted; the oldest held when absent.
    from: Option<u64>,
    /// By what the master speaks of this viewer later.
    viewer: Option<ViewerId>,
    /// The account's name, for the others.
    user: Option<String>,
    /// What this viewer may do; to write when absent.
    access: Option<TerminalAccess>,
    /// What it types with, the same each time it attaches.
    keyboard: Option<KeyboardId>,
}

impl AttachQuery {
    fn admission(&self) -> Admission {
        let user = self.user.as_deref().unwrap_or_default();
        Admission {
            viewer: self.viewer.unwrap_or_else(ViewerId::new),
            user: user
                .chars()
                .filter(|c| !c.is_control())
                .take(TerminalViewer::MAX_USER)
                .collect(),
            access: self.access.unwrap_or_default(),
            keyboard: self.keyboard,
        }
    }
}

/// Watch and type: a WebSocket whose binary frames are bytes, its text frames `ClientFrame` and `ServerFrame`.
#[utoipa::path(
    get, path = "/api/v1/terminals/{id}/attach", tag = "terminals",
    params(("id" = TerminalId, Path), AttachQuery),
    responses(
        (status = 101, description = "a WebSocket; its text frames to the client are these", body = ServerFrame),
        (status = 404, body = Problem), (status = 416, body = Problem), (status = 429, body = Problem),
    )
)]
pub(crate) async fn attach(
    State(app): State<App>,
    PathOf(id): PathOf<TerminalId>,
    QueryOf(query): QueryOf<AttachQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let session = app.terminals().get(id).ok_or_else(|| missing(id))?;
    let upgrade = upgrade.map_err(no_websocket)?;
    let seat = app
        .terminals()
        .join(session, query.from, Some(query.admission()))
        .map_err(|error| not_joined(id, error))?;
    Ok(prepared(upgrade)
        .on_upgrade(async move |socket| serve(&app, socket, seat, Dialect::V1).await))
}

/// The parameters of the old terminal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LegacyQuery {
    /// The VM.
    #[serde(default)]
    vm_name: String,
    /// `required` where a policy of the master requires that it is recorded.
    record: Option<String>,
    /// Whether what is typed is recorded too.
    #[serde(default)]
    input: bool,
    /// The account whose session it is, for the master.
    owner: Option<UserId>,
    /// That account's name.
    #[serde(default)]
    user: String,
}

impl LegacyQuery {
    fn record(&self) -> Option<RecordTerminal> {
        (self.record.as_deref() == Some("required")).then(|| RecordTerminal {
            input: self.input,
            required: true,
            owner: self.owner,
            user: self.user.clone(),
        })
    }
}

/// The old terminal: opens a shell and ends it when the connection closes.
#[utoipa::path(
    get, path = "/ws", tag = "before v1", params(LegacyQuery),
    responses((status = 101, description = "a WebSocket"))
)]
pub(crate) async fn legacy_terminal(
    State(app): State<App>,
    QueryOf(query): QueryOf<LegacyQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let upgrade = upgrade.map_err(no_websocket)?;
    Ok(prepared(upgrade).on_upgrade(async move |mut socket| {
        match open_legacy(&app, &query).await {
            Ok(seat) => serve(&app, socket, seat, Dialect::Legacy).await,
            Err(problem) => {
                let text = format!("Error: {}\r\n", problem.detail);
                // The client may be gone already; there is nobody else to tell.
                let _ = socket.send(Message::Text(text.into())).await;
                let code = match problem.code {
                    ProblemCode::NotFound => close_code::NOT_FOUND,
                    ProblemCode::IllegalState => close_code::VM_NOT_RUNNING,
                    _ => close_code::INTERNAL,
                };
                close(&mut socket, Some((code, problem.detail))).await;
            }
        }
    }))
}

async fn open_legacy(app: &App, query: &LegacyQuery) -> Result<Seat, Problem> {
    let vm = VmName::parse(&query.vm_name).map_err(|_| {
        Problem::new(
            ProblemCode::NotFound,
            format!("VM `{}` does not exist", query.vm_name.escape_debug()),
        )
    })?;
    app.wait_for_first_word().await;
    let session = app
        .terminals()
        .open(OpenTerminal {
            id: None,
            vm,
            kind: TerminalKind::Shell,
            size: TermSize::default(),
            ttl_s: Some(0),
            record: query.record(),
        })
        .await?;
    app.terminals()
        .join(session, Some(0), None)
        .map_err(|_| Problem::new(ProblemCode::Internal, "the terminal ended before it began"))
}

fn missing(id: TerminalId) -> ApiError {
    ApiError::new(
        ProblemCode::NotFound,
        format!("there is no terminal session `{id}`: it has ended"),
    )
}

fn not_joined(id: TerminalId, error: JoinError) -> ApiError {
    match error {
        JoinError::Beyond(end) => ApiError::new(
            ProblemCode::OutOfRange,
            format!("the output of terminal `{id}` ends at {end}"),
        ),
        JoinError::Full(viewers) => ApiError::new(
            ProblemCode::TooManyRequests,
            format!("{viewers} watch terminal `{id}` already, which is all that may"),
        ),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function for map_err"
)]
pub(super) fn no_websocket(rejection: WebSocketUpgradeRejection) -> ApiError {
    ApiError::new(
        ProblemCode::Malformed,
        format!("this path is a WebSocket: {}", rejection.body_text()),
    )
}

pub(super) fn prepared(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
}

/// Which frames a WebSocket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V1,
    Legacy,
}

async fn serve(app: &App, socket: WebSocket, seat: Seat, dialect: Dialect) {
    let (sink, stream) = socket.split();
    let incoming = stream
        // A close is answered by the library.
        .take_while(|message| ready(!matches!(message, Ok(Message::Close(_)))))
        .map(move |message| match message {
            Ok(message) => inbound(message, dialect),
            // Too long, no text, no frame at all. Where it is the connection that broke, nobody hears the answer.
            Err(error) => Inbound::Wrong(error.to_string()),
        });
    let mut outgoing = sink.with_flat_map(move |frame| {
        stream::iter(outbound(frame, dialect).map(Ok::<_, axum::Error>))
    });
    let reason = seat.view(incoming, &mut outgoing, app.stop()).await;
    let mut sink = outgoing.into_inner();
    if let Some(frame) = close_frame(reason) {
        // A viewer that does not read does not hold us.
        let _ = tokio::time::timeout(CLOSE_DEADLINE, sink.send(Message::Close(Some(frame)))).await;
    }
}

/// How long a viewer may take to receive the close frame.
const CLOSE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);

async fn close(socket: &mut WebSocket, reason: Close) {
    if let Some(frame) = close_frame(reason) {
        let _ =
            tokio::time::timeout(CLOSE_DEADLINE, socket.send(Message::Close(Some(frame)))).await;
    }
}

fn close_frame(reason: Close) -> Option<CloseFrame> {
    let (code, mut reason) = reason?;
    let end = (0..=MAX_REASON.min(reason.len()))
        .rev()
        .find(|&at| reason.is_char_boundary(at))
        .unwrap_or(0);
    reason.truncate(end);
    Some(CloseFrame {
        code,
        reason: reason.into(),
    })
}

fn inbound(message: Message, dialect: Dialect) -> Inbound {
    match (message, dialect) {
        (Message::Binary(bytes), _) => Inbound::Input(bytes),
        (Message::Text(text), Dialect::V1) => match serde_json::from_str(&text) {
            Ok(frame) => Inbound::Control(frame),
            Err(error) => Inbound::Wrong(format!("a text frame is no control frame: {error}")),
        },
        (Message::Text(text), Dialect::Legacy) => match legacy_resize(&text) {
            Some(size) => Inbound::Control(ClientFrame::Resize { size }),
            None => Inbound::Input(Bytes::from(text)),
        },
        (Message::Ping(_) | Message::Pong(_) | Message::Close(_), _) => Inbound::Alive,
    }
}

/// The one text frame of the old terminal that is no keyboard input: an object of type `resize` with two
/// integers.
fn legacy_resize(text: &str) -> Option<TermSize> {
    if !text.starts_with('{') && !text.trim_start().starts_with('{') {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let side = |name: &str| {
        let n = value.get(name)?.as_i64()?;
        u16::try_from(n.clamp(1, i64::from(TermSize::MAX))).ok()
    };
    (value.get("type")?.as_str()? == "resize").then_some(())?;
    Some(TermSize {
        cols: side("cols")?,
        rows: side("rows")?,
    })
}

fn outbound(frame: Outbound, dialect: Dialect) -> std::option::IntoIter<Message> {
    let message = match (frame, dialect) {
        (Outbound::Output(bytes), _) => Some(Message::Binary(bytes)),
        (Outbound::Ping, _) => Some(Message::Ping(Bytes::new())),
        (Outbound::Control(frame), Dialect::V1) => serde_json::to_string(&frame)
            .ok()
            .map(|text| Message::Text(text.into())),
        (Outbound::Control(ServerFrame::Error { message }), Dialect::Legacy) => {
            Some(Message::Text(format!("Error: {message}\r\n").into()))
        }
        // Old clients know no other; how the shell ended is in the close frame.
        (Outbound::Control(_), Dialect::Legacy) => None,
    };
    message.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resize_is_no_keyboard_input_on_the_old_path() {
        let resize = |text: &str| legacy_resize(text).map(|size| (size.cols, size.rows));
        assert_eq!(
            resize(r#"{"type":"resize","cols":100,"rows":30}"#),
            Some((100, 30))
        );
        assert_eq!(
            resize(r#" {"rows":30,"cols":100,"type":"resize","x":1}"#),
            Some((100, 30))
        );
        assert_eq!(
            resize(r#"{"type":"resize","cols":99999999,"rows":-5}"#),
            Some((1000, 1))
        );
        for typed in [
            "5",
            "{",
            r#"{"a":1}"#,
            r#"{"type":"resize"}"#,
            r#"{"type":"resize","cols":"1","rows":2}"#,
            r#"{"type":"resize","cols":1.5,"rows":2}"#,
            r#"["resize"]"#,
            "null",
            "",
        ] {
            assert_eq!(resize(typed), None, "{typed}");
        }
    }

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        let frame = close_frame(Some((1000, "ä".repeat(100)))).unwrap();
        assert_eq!(frame.reason.as_str(), "ä".repeat(60));
    }
}
