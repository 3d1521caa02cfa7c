//! Routes that are written once: served at once, and documented when somebody asks.
//!
//! `utoipa-axum` makes the documentation of a route together with the route. For an API of a hundred paths that takes
//! milliseconds and megabytes, at every start and for every tunnel, and next to nobody reads it. Here a route remembers
//! how it is documented. What is written down stays the same: a handler's `#[utoipa::path]` says where it is and what it
//! takes, [`routes!`] lists it.
//!
//! [`finish()`] is the layer that both APIs have around theirs.

mod finish;

use std::{convert::Infallible, fmt};

use axum::{
    Router,
    extract::Request,
    response::IntoResponse,
    routing::{MethodRouter, Route as Endpoint},
};
use tower::{Layer, Service};
use utoipa::openapi::{HttpMethod, OpenApi};
use utoipa_axum::{PathItemExt as _, router::OpenApiRouter};

pub use self::finish::{Finisher, finish};

#[doc(hidden)]
pub mod __private {
    pub use axum::{self, routing::MethodRouter};
    pub use pastey::paste;
    pub use utoipa::{self, Path};
    pub use utoipa_axum;
}

/// Adds documentation to what there is already.
type Document<S> = fn(OpenApiRouter<S>) -> OpenApiRouter<S>;

/// One path with the handlers of its methods; [`routes!`] makes it.
pub struct Route<S> {
    path: String,
    methods: MethodRouter<S>,
    document: Document<S>,
}

impl<S> Route<S> {
    #[doc(hidden)]
    pub fn new(path: String, methods: MethodRouter<S>, document: Document<S>) -> Self {
        Self {
            path,
            methods,
            document,
        }
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.path).finish()
    }
}

#[doc(hidden)]
pub fn filter(methods: &[HttpMethod]) -> axum::routing::MethodFilter {
    let mut filters = methods.iter().map(HttpMethod::to_method_filter);
    let first = filters
        .next()
        .expect("`#[utoipa::path]` takes no handler without a method");
    filters.fold(first, axum::routing::MethodFilter::or)
}

/// The route of one or more handlers with `#[utoipa::path]`, each as `module::handler`. Several are methods of one path.
#[macro_export]
macro_rules! routes {
    ($first_module:ident :: $first:ident $(, $module:ident :: $handler:ident)* $(,)?) => {
        $crate::__private::paste! {{
            use $crate::__private::{MethodRouter, Path as _, utoipa, utoipa_axum};
            let methods = MethodRouter::new().on(
                $crate::filter(&$first_module::[<__path_ $first>]::methods()),
                $first_module::$first,
            )$(.on(
                $crate::filter(&$module::[<__path_ $handler>]::methods()),
                $module::$handler,
            ))*;
            $crate::Route::new($first_module::[<__path_ $first>]::path(), methods, |document| {
                document.routes(utoipa_axum::routes!(
                    $first_module::$first $(, $module::$handler)*
                ))
            })
        }}
    };
}

/// Routes of an API.
pub struct Routes<S> {
    router: Router<S>,
    documents: Vec<Document<S>>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self {
            router: Router::new(),
            documents: Vec::new(),
        }
    }
}

impl<S> fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Routes({})", self.documents.len())
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path.
    #[must_use]
    pub fn routes(mut self, route: Route<S>) -> Self {
        self.router = self.router.route(&route.path, route.methods);
        self.documents.push(route.document);
        self
    }

    /// Adds others to these.
    #[must_use]
    pub fn merge(mut self, others: Self) -> Self {
        self.router = self.router.merge(others.router);
        self.documents.extend(others.documents);
        self
    }

    /// Puts a layer around those that there are so far: see [`Router::route_layer`].
    #[must_use]
    pub fn route_layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Endpoint> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Error: Into<Infallible>, Response: IntoResponse>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.router = self.router.route_layer(layer);
        self
    }

    /// What serves them.
    pub fn into_router(self) -> Router<S> {
        self.router
    }

    /// `base` with the documentation of each.
    #[must_use]
    pub fn document(&self, base: OpenApi) -> OpenApi {
        self.documents
            .iter()
            .fold(OpenApiRouter::with_openapi(base), |document, add| {
                add(document)
            })
            .into_openapi()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Method, StatusCode};
    use tower::ServiceExt as _;
    use utoipa::OpenApi as _;

    use super::*;

    mod things {
        /// All of them.
        #[utoipa::path(get, path = "/things", tag = "things")]
        pub(super) async fn list() -> &'static str {
            "list"
        }

        /// One more.
        #[utoipa::path(post, path = "/things", tag = "things")]
        pub(super) async fn add() -> &'static str {
            "add"
        }
    }

    mod health {
        /// Whether it lives.
        #[utoipa::path(get, path = "/health")]
        pub(super) async fn look() -> &'static str {
            "alive"
        }
    }

    #[derive(utoipa::OpenApi)]
    #[openapi(info(title = "Things"))]
    struct Base;

    fn all() -> Routes<()> {
        Routes::new()
            .routes(routes!(things::list, things::add))
            .merge(Routes::new().routes(routes!(health::look)))
    }

    #[tokio::test]
    async fn what_is_listed_is_served() {
        let router = all().into_router();
        let status = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path);
            let answer = router
                .clone()
                .oneshot(request.body(Body::empty()).unwrap())
                .await;
            answer.unwrap().status()
        };
        assert_eq!(status(Method::GET, "/things").await, StatusCode::OK);
        assert_eq!(status(Method::POST, "/things").await, StatusCode::OK);
        assert_eq!(status(Method::GET, "/health").await, StatusCode::OK);
        let wrong = status(Method::PUT, "/things").await;
        assert_eq!(wrong, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn what_is_listed_is_documented() {
        let document = all().document(Base::openapi());
        assert_eq!(document.info.title, "Things");
        let things = &document.paths.paths["/things"];
        let summary = |operation: &Option<utoipa::openapi::path::Operation>| {
            operation.as_ref().and_then(|told| told.summary.clone())
        };
        assert_eq!(summary(&things.get).as_deref(), Some("All of them."));
        assert_eq!(summary(&things.post).as_deref(), Some("One more."));
        assert!(document.paths.paths["/health"].get.is_some());
    }
}
