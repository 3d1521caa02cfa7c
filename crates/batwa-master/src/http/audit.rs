//! `GET /api/v1/audit`, and the lines that no use case wrote itself.

use axum::{Json, extract::State};
use batwa_api::{problem::ProblemCode, user::AuditEntry};
use http::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{ApiResult, error::Failure, extract::Query};
use crate::app::{
    App, Error,
    audit::{Outcome, Record},
    auth::{Caller, Source},
};

/// Which lines of the audit.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// At most this many, 1 to 1000.
    #[serde(default = "default_limit")]
    limit: u32,
    /// The `next_cursor` of the page before.
    cursor: Option<i64>,
}

fn default_limit() -> u32 {
    100
}

/// A page of the audit, the newest line first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditList {
    /// This page.
    items: Vec<AuditEntry>,
    /// What to give as `cursor` for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// What was done, by whom, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(AuditQuery), responses((status = 200, body = AuditList)))]
pub(crate) async fn list(
    State(app): State<App>,
    query: Query<AuditQuery>,
) -> ApiResult<Json<AuditList>> {
    let AuditQuery { limit, cursor } = query.0;
    if !(1..=1000).contains(&limit) {
        return Err(Error::invalid("limit", "a page has 1 to 1000 lines").into());
    }
    let items = app.audit_entries(cursor, limit).await?;
    let full = items.len() == limit as usize;
    let next = items
        .last()
        .map(|last| last.seq)
        .filter(|&seq| full && seq > 1);
    Ok(Json(AuditList {
        items,
        next_cursor: next.map(|seq| seq.to_string()),
    }))
}

/// What is known of a request when its answer is ready.
pub(crate) struct Answered<'a> {
    pub(crate) source: &'a Source,
    pub(crate) method: &'a Method,
    /// The path's pattern; `None` for files of the page.
    pub(crate) route: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) failure: Option<&'a Failure>,
}

/// Writes the line of a write or refusal that no use case wrote itself.
pub(crate) async fn complete(app: &App, answered: Answered<'_>) {
    let Answered {
        source,
        method,
        route,
        path,
        caller,
        failure,
    } = answered;
    let Some(route) = route else {
        return;
    };
    if source.is_audited() {
        return;
    }
    let refused = failure.is_some_and(|failure| {
        use ProblemCode::{CrossOrigin, Forbidden, Unauthenticated};
        matches!(
            failure.problem.code,
            CrossOrigin | Forbidden | Unauthenticated
        )
    });
    let action = format!("{method} {route}");
    let written = match caller {
        Some(caller) if refused || !method.is_safe() => {
            let outcome = match failure {
                None => Outcome::Ok,
                Some(_) if refused => Outcome::Refused,
                Some(_) => Outcome::Failed,
            };
            let record = Record {
                outcome,
                detail: failure.map(|failure| failure.problem.detail.clone()),
                ..Record::ok(action, path)
            };
            app.audit(caller, record).await
        }
        None if refused => app.audit_refusal(source, action).await,
        _ => return,
    };
    if let Err(error) = written {
        tracing::error!(request.id = %source.request_id, "cannot write the audit: {}", super::error::chain(&error));
    }
}
