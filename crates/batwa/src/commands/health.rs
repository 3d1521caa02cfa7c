//! `batwa health`: whether the master or agent at an address does its work; for health checks of containers.

use std::time::Duration;

use batwa_tls::{SystemRoots, Trust};

use crate::{
    cli::HealthArgs,
    config,
    failure::{Exit, Failure, chain},
    output,
};

/// Health checks are asked often, and by who waits.
const TIMEOUT: Duration = Duration::from_secs(4);

/// `batwa health`
pub(crate) async fn run(args: HealthArgs) -> Result<(), Failure> {
    let url = config::http_url(&args.url)
        .map_err(|reason| Failure::usage(format!("cannot use `{}`: {reason}", args.url)))?;
    let trust = args.master_certificate.map_or(Trust::Roots, Trust::Pinned);
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(trust.client_config(&SystemRoots::default()))
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    let ask = async |path: &str| {
        let asked = format!("{}{path}", url.as_str().trim_end_matches('/'));
        let response = http.get(asked).send().await;
        response.map(|response| response.status()).map_err(|error| {
            let why = chain(&error.without_url());
            Failure::new(
                Exit::Unreachable,
                format!("nothing answers at {url}: {why}"),
            )
        })
    };
    // A master says when it is ready; an agent, which has no such path or hides it behind its key, that it is there.
    let mut status = ask("/ready").await?;
    if status.is_client_error() {
        status = ask("/health").await?;
    }
    if status.is_success() {
        output::print("ok\n")
    } else {
        Err(Failure::new(
            Exit::Failed,
            format!("what is at {url} is not ready: it answers {status}"),
        ))
    }
}
