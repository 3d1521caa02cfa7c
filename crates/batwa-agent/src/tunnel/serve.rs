//! Streams of an open tunnel: each is one HTTP/1.1 connection to the agent's router, upgrades included.

use std::time::Duration;

use axum::Router;
use batwa_api::tunnel::CloseCode;
use batwa_tunnel::{Closed, Ended, Mux, Stream, arrivals};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tracing::debug;

use super::backoff::Backoff;
use crate::http::App;

/// Longest head of a request.
const MAX_HEAD: usize = 64 << 10;
/// Longest time that a master may ask us to stay away.
const LONGEST_ABSENCE: Duration = Duration::from_secs(120);

/// Serves the tunnel until it ends; when the agent stops it says so.
pub(super) async fn streams<S>(app: &App, router: &Router, mux: Mux<S>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closer = mux.closer();
    let (sender, mut arriving) = arrivals();
    let mut running = std::pin::pin!(mux.run_agent(sender));
    let mut serving = JoinSet::new();
    let mut is_told = false;
    loop {
        tokio::select! {
            ended = &mut running => return ended,
            Some(stream) = arriving.recv() => {
                serving.spawn(serve(stream, TowerToHyperService::new(router.clone())));
            }
            Some(_) = serving.join_next() => {}
            () = app.stop().cancelled(), if !is_told => {
                is_told = true;
                closer.close(Closed::new(CloseCode::GoingAway, "the agent stops"));
            }
        }
    }
}

async fn serve(stream: Stream, router: TowerToHyperService<Router>) {
    let connection = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), router)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!("a stream ended: {error}");
    }
}

/// Why a tunnel ended, in words, and how long to wait before the next.
pub(super) fn after(ended: &Ended, backoff: &mut Backoff) -> (String, Duration) {
    match ended {
        Ended::ByUs => ("the agent stops".to_owned(), Duration::ZERO),
        Ended::Broken(why) => (why.clone(), backoff.next()),
        Ended::Violation(what) => (
            format!("the master broke the rules: {what}"),
            backoff.long(),
        ),
        Ended::ByPeer(None) => ("the connection ended".to_owned(), backoff.next()),
        Ended::ByPeer(Some(closed)) => {
            let pause = match CloseCode::from_u16(closed.code) {
                Some(CloseCode::ComeBack) => come_back_after(&closed.reason),
                // Coming back at once would push the other one aside, and so on for ever.
                Some(CloseCode::Replaced | CloseCode::ShutOut | CloseCode::Violation) => {
                    backoff.long()
                }
                Some(CloseCode::GoingAway) | None => backoff.next(),
            };
            (format!("the master closed it{closed}"), pause)
        }
    }
}

/// `1234 the master stops`: milliseconds first.
fn come_back_after(reason: &str) -> Duration {
    let words = reason.split_whitespace().next();
    let pause = words
        .and_then(|word| word.parse().ok())
        .map(Duration::from_millis);
    pause.unwrap_or_default().min(LONGEST_ABSENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_what_the_reason_asks_for() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut pause = |code: CloseCode, reason: &str| {
            let closed = Closed::new(code, reason);
            after(&Ended::ByPeer(Some(closed)), &mut backoff).1
        };
        let come_back = |ms| Duration::from_millis(ms);
        assert_eq!(pause(CloseCode::ComeBack, "1234 it stops"), come_back(1234));
        assert_eq!(pause(CloseCode::ComeBack, ""), come_back(0));
        assert_eq!(pause(CloseCode::ComeBack, "-5"), come_back(0));
        assert_eq!(
            pause(CloseCode::ComeBack, "99999999999 x"),
            LONGEST_ABSENCE,
            "no master keeps an agent away for ever"
        );
        for code in [CloseCode::Replaced, CloseCode::ShutOut] {
            assert!(pause(code, "") >= Duration::from_secs(15));
        }
    }
}
