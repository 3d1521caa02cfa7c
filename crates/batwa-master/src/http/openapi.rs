//! The OpenAPI document, made from the handlers.

use axum::{Json, extract::State};
use batwa_api::{
    event::Event,
    exec::ExecClientFrame,
    id::KeyboardId,
    problem::Problem,
    terminal::{ClientFrame, ServerFrame},
    vm::VmAction,
};
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, OpenApi as Document, Ref, ResponseBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::app::App;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Batwa",
        description = "One place to run virtual machines on the computers you already own. \
            Errors are problem+json bodies; lists are `{items, next_cursor, counts}`; times RFC 3339 in UTC; sizes bytes.",
    ),
    security(("session" = []), ("token" = [])),
    components(schemas(Problem, Event, ClientFrame, ServerFrame, ExecClientFrame, VmAction, KeyboardId)),
)]
struct Base;

/// What all paths have in common.
fn base() -> Document {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        "session",
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("session_id"))),
    );
    components.add_security_scheme(
        "token",
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
    );
    document
}

/// The OpenAPI document of the whole API.
#[must_use]
pub fn document() -> Document {
    let mut document = super::router::api().document(base());
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let failure = ResponseBuilder::new()
        .description("what went wrong")
        .content(Problem::CONTENT_TYPE, problem)
        .build();
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
            &mut item.head,
        ];
        for operation in operations.into_iter().flatten() {
            // Handlers are called `list` and `create`; the tag makes an id of that.
            let tag = operation.tags.as_ref().and_then(|tags| tags.first());
            if let (Some(tag), Some(id)) = (tag, &mut operation.operation_id) {
                *id = format!("{}_{id}", tag.replace(' ', "_"));
            }
            operation
                .responses
                .responses
                .insert("default".to_owned(), failure.clone().into());
        }
    }
    document
}

/// The OpenAPI document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health", security(()), responses((status = 200)))]
pub(crate) async fn openapi_json(State(_app): State<App>) -> Json<Document> {
    Json(document())
}
