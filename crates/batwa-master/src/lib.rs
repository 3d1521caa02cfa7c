//! Batwa's master: serves the page, the REST API and the terminals, and knows the fleet.
//!
//! `Master::new(config)` checks the settings and touches nothing; `bind` takes the port, then opens the
//! state folder; `run` serves until it is told to stop. The binary calls these three; everything else is
//! reached over HTTP.
//!
//! Dependencies run one way: `http -> app -> {store, fleet}`, and `fleet -> client -> link`. Only `store` sees
//! the database, only `http` sees requests.

mod addresses;
mod app;
mod client;
mod config;
mod fleet;
mod http;
mod identity;
mod link;
mod master;
#[doc(hidden)]
pub mod measure;
mod store;

pub use app::{
    Error as AppError,
    auth::{Caller, Right, Via},
};
pub use batwa_tls::{CertificateSource, ServedCertificate, TlsError};
pub use config::{
    ConfigError, Connector, DatabaseUrl, LocalAgent, MasterConfig, PublicUrl, SessionLimits,
};
pub use http::openapi::document as openapi;
pub use master::{Bound, Master, MasterError};
pub use store::StoreError;
