//! Whether a browser's request comes from our own page.
//!
//! A cookie is sent by the browser whatever page asks; so a call that rests on one, or that signs in, must come
//! from our own page when the browser says where it comes from. A call with neither `Origin` nor `Sec-Fetch-Site`
//! is no browser's and passes, as do those that carry a key of their own.

use http::{HeaderMap, header};

use super::client::Client;
use crate::{
    app::Error,
    config::{MasterConfig, origin},
};

/// Refuses a request that another site's page made.
pub(crate) fn check(
    config: &MasterConfig,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Error> {
    let public = config.public_url.as_ref().map(|url| url.origin());
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let own_origin =
        text(header::ORIGIN.as_str()).map(|origin| is_own(origin, client.host.as_deref(), public));
    // `none`: typed or bookmarked by the person themselves.
    let own_site = text("sec-fetch-site").map(|site| matches!(site, "same-origin" | "none"));
    // Behind a proxy that changes the host, the browser still knows that page and call are of one origin; but
    // what it says of the origin itself has to fit.
    if own_origin.unwrap_or(true) && own_site.unwrap_or(true) {
        Ok(())
    } else {
        Err(Error::CrossOrigin)
    }
}

/// Whether `given` is the origin of `host`, by either scheme, or the public one.
fn is_own(given: &str, host: Option<&str>, public: Option<&str>) -> bool {
    let Some((scheme @ ("http" | "https"), authority)) = given.split_once("://") else {
        // `null` too: a sandboxed frame or a file.
        return false;
    };
    let given = origin(scheme, authority);
    public == Some(given.as_str()) || host.is_some_and(|host| origin(scheme, host) == given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(headers: &[(&'static str, &str)]) -> bool {
        let mut config = MasterConfig::new("unused");
        config.public_url = Some("https://batwa.example".parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let client = Client::of(&config, "192.0.2.9:1".parse().unwrap(), &map, "r");
        check(&config, &client, &map).is_ok()
    }

    #[test]
    fn our_own_page_and_programs_pass() {
        for headers in [
            &[("host", "10.0.0.5:8000")][..],
            &[
                ("host", "10.0.0.5:8000"),
                ("origin", "http://10.0.0.5:8000"),
            ],
            &[
                ("host", "10.0.0.5:8000"),
                ("origin", "http://10.0.0.5:8000"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("host", "10.0.0.5:8000"), ("sec-fetch-site", "same-origin")],
            &[("host", "10.0.0.5:8000"), ("sec-fetch-site", "none")],
            &[("host", "inner:8000"), ("origin", "https://batwa.example")],
            &[
                ("host", "Batwa.Example"),
                ("origin", "https://batwa.example"),
            ],
            &[("host", "lab:80"), ("origin", "http://lab")],
            &[("host", "lab"), ("origin", "https://lab")],
        ] {
            assert!(passes(headers), "{headers:?}");
        }
    }

    #[test]
    fn other_sites_do_not() {
        for headers in [
            &[("host", "lab"), ("origin", "https://evil.example")][..],
            &[("host", "lab"), ("origin", "http://lab:8080")],
            &[("host", "lab:8000"), ("origin", "http://lab")],
            &[("host", "lab"), ("origin", "null")],
            &[("host", "lab"), ("origin", "")],
            &[("host", "lab"), ("origin", "http://lab.evil.example")],
            &[
                ("host", "lab"),
                ("origin", "http://evil.example/http://lab"),
            ],
            &[("host", "lab"), ("sec-fetch-site", "cross-site")],
            &[("host", "lab"), ("sec-fetch-site", "same-site")],
            &[
                ("host", "lab"),
                ("origin", "http://lab"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[
                ("host", "lab"),
                ("origin", "https://evil.example"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            assert!(!passes(headers), "{headers:?}");
        }
    }
}
