//! Every route, under the right that it needs.
//!
//! A path is listed exactly once, in the group of its right, and documented by its handler's attribute. The
//! guard of a group runs before anything of the request but its head is read. `tests/it/rights.rs` walks
//! the document as every kind of caller.

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{caller, health, openapi};
use crate::app::{App, auth::Right};

/// The whole master as one service.
pub(crate) fn router(app: App) -> Router {
    let (routes, _document) = groups(&app).split_for_parts();
    routes.with_state(app)
}

/// The routes without their guards, for the document.
pub(crate) fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(public())
        .merge(read())
        .merge(manage())
        .merge(terminal())
        .merge(administer())
}

fn groups(app: &App) -> OpenApiRouter<App> {
    let guard = |right: Right, routes: OpenApiRouter<App>| {
        if routes.get_openapi().paths.paths.is_empty() {
            return routes;
        }
        let guard = move |app: State<App>, request: Request, next: Next| {
            caller::require(right, app, request, next)
        };
        routes.route_layer(middleware::from_fn_with_state(app.clone(), guard))
    };
    OpenApiRouter::with_openapi(openapi::base())
        .merge(public())
        .merge(guard(Right::Read, read()))
        .merge(guard(Right::Manage, manage()))
        .merge(guard(Right::Terminal, terminal()))
        .merge(guard(Right::Administer, administer()))
}

/// Open to everybody: signs of life, signing in, and what agents prove by their own keys.
fn public() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(openapi::openapi_json))
}

/// Every account.
fn read() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}

/// Operators.
fn manage() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}

/// Accounts with the terminal right, whatever their role.
fn terminal() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}

/// Admins.
fn administer() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
