//! The OpenAPI document in `docs/` is that of the code.

use std::{fs, path::Path};

#[test]
fn the_document_in_docs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi-agent.json");
    let mut current = batwa_agent::openapi().to_pretty_json().unwrap();
    current.push('\n');
    if std::env::var_os("BATWA_UPDATE").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == current,
        "docs/openapi-agent.json is not current: run this test with BATWA_UPDATE=1"
    );
}
