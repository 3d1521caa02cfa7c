//! Every route, under the right that it needs.
//!
//! A path is listed exactly once, in the group of its right, and documented by its handler's attribute. The
//! guard of a group runs before anything of the request but its head is read. `tests/it/rights.rs` walks
//! the document as every kind of caller.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
};
use batwa_routes::{Routes, finish, routes};
use http::{Extensions, HeaderMap, StatusCode, Version, header};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{
        CompressionLayer,
        predicate::{Predicate, SizeAbove},
    },
};

use super::{
    agent_keys, agents, audit, caller, client::Client, events, files, forwards, health, images,
    inside, install, join_tokens, legacy, legacy_auth, mounts, networks, openapi, operations,
    recordings, security, session, setup, snapshots, ssh_keys, templates, terminals, tokens,
    tunnel, ui::Ui, users, vms,
};
use crate::app::{App, auth::Right};

/// Bodies are small JSON; cloud-init user-data is the largest part of any.
const MAX_BODY: usize = 1024 * 1024;

/// The whole master as one service.
pub(crate) fn router(app: App) -> Router {
    let ui = Arc::new(Ui::load());
    groups(&app)
        .into_router()
        .fallback(move |request: Request| {
            let ui = Arc::clone(&ui);
            async move { ui.answer(&request) }
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(SMALL).and(is_text)))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn_with_state(app.clone(), security::pass))
        // Outermost: a change that was made has its line in the audit, whether or not its caller is still there.
        .layer(middleware::from_fn_with_state(
            app.requests().clone(),
            finish,
        ))
        .with_state(app)
}

/// Bodies smaller than this gain nothing by compression.
const SMALL: u64 = 1024;

/// Text that comes whole. Event streams and logs that grow must not wait in a compressor.
fn is_text(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    const KINDS: [&str; 6] = [
        "application/json",
        "text/html",
        "text/css",
        "text/javascript",
        "image/svg+xml",
        "application/manifest+json",
    ];
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    KINDS.iter().any(|known| kind.starts_with(known))
}

/// The routes without their guards, for the document.
pub(crate) fn api() -> Routes<App> {
    Routes::new()
        .merge(public())
        .merge(read())
        .merge(manage())
        .merge(terminal())
        .merge(host())
        .merge(administer())
}

fn groups(app: &App) -> Routes<App> {
    let guard = |right: Right, routes: Routes<App>| {
        let guard = move |app: State<App>, client: Client, request: Request, next: Next| {
            caller::require(right, app, client, request, next)
        };
        routes.route_layer(middleware::from_fn_with_state(app.clone(), guard))
    };
    Routes::new()
        .merge(public().route_layer(middleware::from_fn_with_state(
            app.clone(),
            caller::refuse_other_sites,
        )))
        .merge(guard(Right::Read, read()))
        .merge(guard(Right::Manage, manage()))
        .merge(guard(Right::Terminal, terminal()))
        .merge(guard(Right::Host, host()))
        .merge(guard(Right::Administer, administer()))
}

/// Open to everybody: signs of life, signing in, and what agents prove by their own keys.
fn public() -> Routes<App> {
    Routes::new()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(openapi::openapi_json))
        .routes(routes!(setup::state, setup::setup))
        .routes(routes!(session::sign_in))
        .routes(routes!(legacy_auth::login))
        .routes(routes!(legacy_auth::logout))
        .routes(routes!(legacy_auth::check))
        .routes(routes!(tunnel::dial_in))
        .routes(routes!(install::script))
        .routes(routes!(install::download))
        .routes(routes!(legacy::register))
        .routes(routes!(legacy::heartbeat))
}

/// Every account. Who may attach to a terminal depends on which: its guests need no other right to watch.
fn read() -> Routes<App> {
    Routes::new()
        .routes(routes!(session::current, session::sign_out))
        .routes(routes!(session::change_password))
        .routes(routes!(session::list))
        .routes(routes!(session::end))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get))
        .routes(routes!(agents::links))
        .routes(routes!(vms::list))
        .routes(routes!(vms::get))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(operations::log))
        .routes(routes!(images::list))
        .routes(routes!(terminals::list))
        .routes(routes!(terminals::attach))
        .routes(routes!(recordings::list))
        .routes(routes!(recordings::get))
        .routes(routes!(recordings::file))
        .routes(routes!(events::follow))
        .routes(routes!(legacy::agents))
        .routes(routes!(legacy::agent))
        .routes(routes!(legacy::vms))
        .routes(routes!(legacy::info))
}

/// Operators.
fn manage() -> Routes<App> {
    Routes::new()
        .routes(routes!(networks::networks))
        .routes(routes!(vms::create))
        .routes(routes!(vms::update))
        .routes(routes!(vms::delete))
        .routes(routes!(vms::dismiss))
        .routes(routes!(vms::act))
        .routes(routes!(snapshots::snapshot))
        .routes(routes!(snapshots::restore))
        .routes(routes!(snapshots::delete_snapshot))
        .routes(routes!(snapshots::clone))
        .routes(routes!(snapshots::resize))
        .routes(routes!(operations::cancel))
        .routes(routes!(operations::retry))
        .routes(routes!(images::pull))
        .routes(routes!(templates::check))
        .routes(routes!(templates::list, templates::create))
        .routes(routes!(
            templates::get,
            templates::update,
            templates::delete
        ))
        .routes(routes!(ssh_keys::list, ssh_keys::add))
        .routes(routes!(ssh_keys::delete))
        .routes(routes!(legacy::create))
        .routes(routes!(legacy::start))
        .routes(routes!(legacy::stop))
        .routes(routes!(legacy::delete))
}

/// Accounts with the terminal right, whatever their role.
fn terminal() -> Routes<App> {
    Routes::new()
        .routes(routes!(terminals::open))
        .routes(routes!(terminals::update, terminals::close))
        .routes(routes!(terminals::share, terminals::unshare))
        .routes(routes!(terminals::unshare_all))
        .routes(routes!(recordings::start, recordings::stop))
        .routes(routes!(inside::exec, inside::run))
        .routes(routes!(inside::connect))
        .routes(routes!(inside::display))
        .routes(routes!(files::download, files::look, files::upload))
        .routes(routes!(terminals::old_ws))
}

/// What touches the machines themselves.
fn host() -> Routes<App> {
    Routes::new()
        .routes(routes!(mounts::mount))
        .routes(routes!(mounts::umount))
        .routes(routes!(forwards::save))
        .routes(routes!(forwards::remove))
}

/// Admins.
fn administer() -> Routes<App> {
    Routes::new()
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::update, users::delete))
        .routes(routes!(audit::list))
        .routes(routes!(recordings::policy, recordings::set_policy))
        .routes(routes!(recordings::delete))
        .routes(routes!(agents::update, agents::delete))
        .routes(routes!(agents::approve))
        .routes(routes!(agents::cordon))
        .routes(routes!(agents::uncordon))
        .routes(routes!(agents::revoke))
        .routes(routes!(agents::rotate_key))
        .routes(routes!(join_tokens::list, join_tokens::create))
        .routes(routes!(join_tokens::revoke))
        .routes(routes!(agent_keys::list, agent_keys::create))
        .routes(routes!(agent_keys::delete))
        .routes(routes!(images::add))
        .routes(routes!(images::look_at_upload, images::upload))
        .routes(routes!(images::remove))
        .routes(routes!(legacy::unregister))
}
