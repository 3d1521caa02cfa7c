//! The `batwa` binary.

fn main() {}
