//! What changes something is finished once it is begun, though its caller hangs up.
//!
//! A server drops the handler of a connection that ends, wherever it waits just then: between a row and the agent that is to
//! hear of it, between what was done and its line in the audit. So such requests run as tasks of whoever serves them, and the
//! connection only waits for the answer.
//!
//! What has the caller at its other end still ends with it: a body that is not whole by then ends in an error (hyper sees to
//! that, and a test here), and an answer that nobody waits for is dropped, with what streams it.

use std::{panic, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// Requests under way at a time; more wait. As many as a master takes connections: callers that hang up hold no more of it
/// than those that stay.
const PLACES: usize = 16_384;
/// How long a request goes on without its caller: a slow call to an agent and the line about it are long done by then. What
/// takes longer waits for something, and that goes on by itself.
const WITHOUT_CALLER: Duration = Duration::from_secs(120);

/// The owner of requests that change something.
#[derive(Debug, Clone)]
pub struct Finisher {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Default for Finisher {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }
}

impl Finisher {
    /// Waits, once no new ones come, until all requests are finished. It may take as long as they do: whoever cannot wait goes
    /// on with [`Self::cut`].
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Drops the requests that are under way, wherever they are.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    async fn finish(&self, request: Request, next: Next) -> Response {
        let places = Arc::clone(&self.places);
        let place = places
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let hung_up = CancellationToken::new();
        let _waiting = hung_up.clone().drop_guard();
        let cut = self.cut.clone();
        let work = async move {
            let _place = place;
            let alone = async {
                hung_up.cancelled().await;
                sleep(WITHOUT_CALLER).await;
            };
            tokio::select! {
                biased;
                answer = next.run(request) => Some(answer),
                () = cut.cancelled() => None,
                () = alone => None,
            }
        };
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(Some(answer)) => answer,
            // The rest is at the very end, where hardly anybody hears it.
            Ok(None) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Err(error) => match error.try_into_panic() {
                Ok(reason) => panic::resume_unwind(reason),
                Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            },
        }
    }
}

/// The layer, outside of all that must not be cut off: `middleware::from_fn_with_state(finisher, finish)`.
///
/// The method alone decides. `GET` changes nothing, and lasts as long as its caller listens: WebSockets are among them.
pub async fn finish(State(finisher): State<Finisher>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    finisher.finish(request, next).await
}

#[cfg(test)]
mod tests;
