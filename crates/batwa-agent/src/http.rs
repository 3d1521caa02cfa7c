//! The agent API over HTTP: one router for every link.
//!
//! Handlers are thin: extract, call one use, wrap. Everything but `/health` and the old paths answers failures
//! as `application/problem+json`; the old ones add to that only what COMPAT.md fixes.

mod agent;
mod display;
mod error;
mod exec;
mod extract;
mod files;
mod forwards;
mod identity;
mod images;
mod key;
mod legacy;
mod networks;
mod operations;
pub(crate) mod port;
mod ports;
mod recordings;
mod terminals;
mod vms;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use batwa_api::{
    id::{KeyboardId, ViewerId},
    problem::{Problem, ProblemCode},
    tunnel::InstanceId,
};
use batwa_routes::{Finisher, Routes, finish, routes};
use batwa_tls::ServedCertificate;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;

use self::error::ApiError;
pub(crate) use self::key::HEADER as KEY_HEADER;
use crate::{
    config::AgentConfig,
    inside::Inside,
    operations::Operations,
    policy::PolicyFile,
    recording::Library,
    terminal::Terminals,
    upkeep::{Forwards, Upkeep},
    vms::Inventory,
    watch::Picture,
};

/// Largest body that any call takes: a spec with the largest user-data is far below it.
const MAX_BODY: usize = 1 << 20;
/// How long lists wait for the drivers' first word; one that hangs must not keep the others back.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// What handlers need. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Inner>);

/// The parts of an [`App`].
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: AgentConfig,
    pub(crate) certificate: Option<Arc<ServedCertificate>>,
    pub(crate) picture: Arc<Picture>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) recordings: Arc<Library>,
    pub(crate) inside: Arc<Inside>,
    pub(crate) forwards: Forwards,
    pub(crate) policy: PolicyFile,
    /// Owns the requests that change something: a tunnel that breaks does not leave them half done.
    pub(crate) requests: Finisher,
    pub(crate) stop: CancellationToken,
    /// This start of the agent, for its master.
    pub(crate) instance: InstanceId,
    pub(crate) tunnel_is_open: tokio::sync::watch::Sender<bool>,
}

impl App {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn tunnel_is_open(&self) -> &tokio::sync::watch::Sender<bool> {
        &self.0.tunnel_is_open
    }

    pub(crate) fn config(&self) -> &AgentConfig {
        &self.0.config
    }

    /// The certificate that the port shows, when it speaks TLS.
    pub(crate) fn certificate(&self) -> Option<&Arc<ServedCertificate>> {
        self.0.certificate.as_ref()
    }

    pub(crate) fn picture(&self) -> &Arc<Picture> {
        &self.0.picture
    }

    pub(crate) fn inventory(&self) -> &Arc<Inventory> {
        &self.0.inventory
    }

    pub(crate) fn operations(&self) -> &Arc<Operations> {
        &self.0.operations
    }

    pub(crate) fn upkeep(&self) -> &Arc<Upkeep> {
        &self.0.upkeep
    }

    pub(crate) fn inside(&self) -> &Arc<Inside> {
        &self.0.inside
    }

    /// What the machine's owner lets any master ask.
    pub(crate) fn policy(&self) -> &PolicyFile {
        &self.0.policy
    }

    pub(crate) fn forwards(&self) -> &Forwards {
        &self.0.forwards
    }

    pub(crate) fn terminals(&self) -> &Arc<Terminals> {
        &self.0.terminals
    }

    pub(crate) fn recordings(&self) -> &Arc<Library> {
        &self.0.recordings
    }

    pub(crate) fn requests(&self) -> &Finisher {
        &self.0.requests
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.0.instance
    }

    /// Waits until the drivers have said what VMs there are, but not long for one that hangs.
    async fn wait_for_first_word(&self) {
        self.0.inventory.wait_for_first_word(FIRST_WORD).await;
    }

    /// Cancelled when the agent stops: ends what would go on for ever.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Batwa agent API",
        description = "What a master asks of an agent, over any link, and the paths that existed before it."
    ),
    // These are in paths and queries alone.
    components(schemas(KeyboardId, ViewerId)),
)]
struct Document;

fn api() -> Routes<App> {
    Routes::new()
        .routes(routes!(agent::health))
        .routes(routes!(agent::get_agent))
        .routes(routes!(agent::watch))
        .routes(routes!(identity::rotate_key))
        .routes(routes!(vms::list_vms))
        .routes(routes!(vms::get_vm, vms::change_settings))
        .routes(routes!(forwards::save_forward))
        .routes(routes!(forwards::remove_forward))
        .routes(routes!(networks::list_networks))
        .routes(routes!(images::list_images, images::add_image))
        .routes(routes!(images::look_at_upload, images::upload_image))
        .routes(routes!(images::remove_image))
        .routes(routes!(operations::list_operations))
        .routes(routes!(
            operations::get_operation,
            operations::start_operation
        ))
        .routes(routes!(operations::cancel_operation))
        .routes(routes!(operations::get_operation_log))
        .routes(routes!(terminals::list_terminals, terminals::open_terminal))
        .routes(routes!(terminals::update_terminal, terminals::end_terminal))
        .routes(routes!(terminals::set_viewer))
        .routes(routes!(
            terminals::record_terminal,
            terminals::stop_recording
        ))
        .routes(routes!(recordings::list_recordings))
        .routes(routes!(
            recordings::get_recording,
            recordings::delete_recording
        ))
        .routes(routes!(recordings::get_cast))
        .routes(routes!(terminals::attach))
        .routes(routes!(exec::attach, exec::run))
        .routes(routes!(files::download, files::look, files::upload))
        .routes(routes!(ports::connect))
        .routes(routes!(display::show))
        .routes(routes!(terminals::legacy_terminal))
        .routes(routes!(legacy::list_vms))
        .routes(routes!(legacy::vm_info))
        .routes(routes!(legacy::create_vm))
        .routes(routes!(legacy::start_vm))
        .routes(routes!(legacy::stop_vm))
        .routes(routes!(legacy::delete_vm))
        .routes(routes!(legacy::execute))
}

/// The OpenAPI document of everything that an agent serves.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().document(Document::openapi())
}

/// The router for links whose other end is known already.
pub(crate) fn router(app: App) -> Router {
    api()
        .into_router()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(middleware::from_fn_with_state(
            app.requests().clone(),
            finish,
        ))
        .with_state(app)
}

/// The router for a port: as [`router`], with the key asked for where there is one.
pub(crate) fn port_router(app: App) -> Router {
    let guarded = app.clone();
    let guard = move |request: Request, next: Next| {
        let app = guarded.clone();
        async move {
            match key::check(app.config().key.as_ref(), &request) {
                Ok(()) => next.run(request).await,
                Err(refusal) => refusal.into_response(),
            }
        }
    };
    router(app).layer(middleware::from_fn(guard))
}

async fn not_found(method: Method, uri: Uri) -> Response {
    ApiError::new(
        ProblemCode::NotFound,
        format!("there is nothing at {method} {}", uri.path()),
    )
    .into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    ApiError::from(Problem::new(
        ProblemCode::MethodNotAllowed,
        format!("{} cannot be called with {method}", uri.path()),
    ))
    .into_response()
}
