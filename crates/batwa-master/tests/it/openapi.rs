//! The OpenAPI document: kept in `docs/openapi.json`, from which the page's types are made.

use std::{collections::BTreeSet, fs, path::Path};

/// `BATWA_UPDATE=1 cargo test` writes the file anew.
const UPDATE: &str = "BATWA_UPDATE";

#[test]
fn the_document_in_docs_is_the_one_we_serve() {
    let mut document = batwa_master::openapi().to_pretty_json().unwrap();
    document.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &document).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == document,
        "docs/openapi.json is out of date: run the tests with {UPDATE}=1, and the page's `npm run schema`"
    );
}

/// Tools refuse a document of which one does not.
#[test]
fn every_reference_of_both_documents_leads_somewhere() {
    const SCHEMAS: &str = "#/components/schemas/";
    for name in ["openapi.json", "openapi-agent.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs")
            .join(name);
        let text = fs::read_to_string(&path).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let known = document["components"]["schemas"].as_object().unwrap();
        let wanted = text
            .split(SCHEMAS)
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let missing: BTreeSet<_> = wanted
            .filter(|&schema| !known.contains_key(schema))
            .collect();
        assert!(
            missing.is_empty(),
            "{name} does not say what these are: {missing:?}"
        );
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = serde_json::to_value(batwa_master::openapi()).unwrap();
    let mut seen = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(
                seen.insert(id.to_owned()),
                "{method} {path}: `{id}` is there twice"
            );
        }
    }
}
