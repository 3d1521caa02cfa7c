//! Ubuntu's catalogue of images: simplestreams, one JSON document.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::download::{Checksum, Remote};

/// The catalogue's place below its server's folder.
pub(super) const INDEX: &str = "streams/v1/com.ubuntu.cloud:released:download.json";

/// One release with its newest image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    /// `24.04`
    pub(super) version: String,
    /// `noble`
    pub(super) codename: String,
    /// `24.04 LTS`
    pub(super) title: String,
    /// The image's own version: a day.
    pub(super) serial: String,
    /// Its file.
    pub(super) remote: Remote,
}

/// The supported releases for `arch` (in Ubuntu's words), newest first; `base` is where the catalogue's paths begin.
pub(super) fn releases(
    json: &[u8],
    arch: &str,
    base: &str,
) -> Result<Vec<Release>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Index {
        products: BTreeMap<String, Product>,
    }
    #[derive(Deserialize)]
    struct Product {
        arch: String,
        #[serde(default)]
        os: Option<String>,
        release: String,
        #[serde(default)]
        release_title: Option<String>,
        #[serde(default)]
        supported: bool,
        version: String,
        versions: BTreeMap<String, Version>,
    }
    #[derive(Deserialize)]
    struct Version {
        items: BTreeMap<String, Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        ftype: String,
        path: String,
        #[serde(default)]
        sha256: String,
        #[serde(default)]
        size: Option<u64>,
    }
    let index: Index = serde_json::from_slice(json)?;
    let mut releases: Vec<Release> = index
        .products
        .into_values()
        .filter(|product| product.supported && product.arch == arch)
        .filter(|product| product.os.as_deref().is_none_or(|os| os == "ubuntu"))
        .filter_map(|product| {
            // Days sort as text; the newest that has a disk counts.
            let (serial, item) =
                product
                    .versions
                    .into_iter()
                    .rev()
                    .find_map(|(day, version)| {
                        let disk = version
                            .items
                            .into_values()
                            .find(|item| item.ftype == "disk1.img")?;
                        Some((day, disk))
                    })?;
            let safe = !item.path.contains("..") && !item.path.contains("://");
            Some(Release {
                title: product
                    .release_title
                    .unwrap_or_else(|| product.version.clone()),
                version: product.version,
                codename: product.release,
                serial,
                remote: Remote {
                    url: format!(
                        "{base}{}",
                        safe.then_some(item.path)?.trim_start_matches('/')
                    ),
                    checksum: Checksum::parse(&item.sha256)?,
                    size: item.size,
                },
            })
        })
        .collect();
    releases.sort_by(|a, b| b.version.cmp(&a.version));
    Ok(releases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_disk_of_each_supported_release_is_found() {
        let sha = "ab".repeat(32);
        let json = format!(
            r#"{{"format": "products:1.0", "products": {{
              "com.ubuntu.cloud:server:24.04:amd64": {{"arch": "amd64", "os": "ubuntu", "release": "noble", "release_title": "24.04 LTS", "supported": true, "version": "24.04", "versions": {{
                "20260101": {{"items": {{"disk1.img": {{"ftype": "disk1.img", "path": "server/old.img", "sha256": "{sha}", "size": 1}}}}}},
                "20260201": {{"items": {{"disk1.img": {{"ftype": "disk1.img", "path": "server/new.img", "sha256": "{sha}", "size": 7}}}}}},
                "20260301": {{"items": {{"manifest": {{"ftype": "manifest", "path": "server/x.manifest"}}}}}}}}}},
              "com.ubuntu.cloud:server:22.04:amd64": {{"arch": "amd64", "release": "jammy", "supported": true, "version": "22.04", "versions": {{
                "20260101": {{"items": {{"disk1.img": {{"ftype": "disk1.img", "path": "../etc", "sha256": "{sha}"}}}}}}}}}},
              "com.ubuntu.cloud:server:24.04:arm64": {{"arch": "arm64", "release": "noble", "supported": true, "version": "24.04", "versions": {{}}}},
              "com.ubuntu.cloud:server:12.04:amd64": {{"arch": "amd64", "release": "precise", "supported": false, "version": "12.04", "versions": {{}}}}
            }}}}"#
        );
        let found = releases(json.as_bytes(), "amd64", "https://images/").unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].codename, "noble");
        assert_eq!(found[0].serial, "20260201");
        assert_eq!(found[0].remote.url, "https://images/server/new.img");
        assert_eq!(found[0].remote.size, Some(7));
        releases(b"rubbish", "amd64", "").unwrap_err();
    }
}
