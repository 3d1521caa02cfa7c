//! The qemu driver with real VMs: the image `tiny`, built once into a cache that all tests share.
//!
//! The cache is `target/test-cache`, or what `BATWA_TEST_CACHE` names. Where QEMU or the Debian tools are not
//! installed, each test says that it is skipped.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics where it fails, and says what it skips"
)]

mod agent;
mod contract;
mod debian;
mod display;
#[path = "../it/driver_contract.rs"]
mod driver_contract;
mod faults;
mod full;
mod images;
mod inside;
#[path = "../it/inside_contract.rs"]
mod inside_contract;
mod lab;
mod lifecycle;
mod mounts;
mod networks;
#[path = "../it/rfb.rs"]
mod rfb;
#[path = "../it/small_disk.rs"]
mod small_disk;
mod snapshots;
mod terminal;
mod upkeep;
