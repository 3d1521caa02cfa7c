//! Rebuilds when a migration or the built page changes: both are embedded.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
    // Cargo takes a missing path for a changed one and would rebuild each time, and a folder that is not
    // watched would not be noticed when the page is built later: so it is made here, empty.
    let page = "../../web/build";
    let _ = std::fs::create_dir_all(page);
    println!("cargo::rerun-if-changed={page}");
}
