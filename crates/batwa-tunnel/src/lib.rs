//! What both ends of a tunnel share.
//!
//! A tunnel is one WebSocket that an agent opened to its master. First the two prove who they are ([`wire`] carries
//! the frames of `batwa_api::tunnel`, [`keys`] signs them); then the socket becomes plain bytes ([`socket`]) and many
//! streams run inside ([`mux`]), opened by the master alone. Neither end's business is known here: the master decides
//! whom to admit, the agent what to serve.

pub mod keys;
pub mod mux;
mod socket;
pub mod wire;

pub use self::{
    keys::{Identity, JoinSecret, KeyError},
    mux::{Closer, Ended, Hold, Mux, Opener, Requests, Stream, Streams, arrivals},
    socket::{Closed, Timing},
    wire::{WireError, config},
};
