//! Keeps store and fleet in step: loads at start, writes down what changed, settles what a restart left open.
use tokio_util::sync::CancellationToken;

use super::App;

/// Runs until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    app.fleet().set_loaded();
    stop.cancelled().await;
    app.fleet().finish().await;
}
