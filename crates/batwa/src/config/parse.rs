//! Texts that people write as settings and flags, and what they mean.

use std::time::Duration;

use batwa_api::{agent::DriverKind, operation::OperationKind, vm::label_is_good};
use reqwest::Url;

/// A port's number.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "it must be a number from 0 to 65535".to_owned())
}

/// An address, or a network with its prefix's length.
pub(super) fn network(text: &str) -> Result<ipnet::IpNet, String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    text.parse()
        .map_err(|_| "it must be an address or a network such as `10.0.0.0/8`".to_owned())
}

/// An absolute `http` or `https` URL that names a host.
pub(crate) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("{error}; it should look like `http://192.168.1.10:8000`"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it must begin with `http://` or `https://` and name a host".to_owned());
    }
    Ok(url)
}

/// Whose images a mirror has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageServer {
    Ubuntu,
    Debian,
}

/// `ubuntu=URL` or `debian=URL`; the URL is given back with a slash at its end.
pub(super) fn image_server(text: &str) -> Result<(ImageServer, String), String> {
    let server = match text.split_once('=') {
        Some(("ubuntu", url)) => Some((ImageServer::Ubuntu, url)),
        Some(("debian", url)) => Some((ImageServer::Debian, url)),
        _ => None,
    };
    let (server, url) = server.ok_or("it must look like `ubuntu=URL` or `debian=URL`")?;
    http_url(url)?;
    Ok((server, format!("{}/", url.trim_end_matches('/'))))
}

/// `90s`, `15m`, `1h 30m`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a time such as `30s`, `15m` or `1h`".to_owned();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    duration.try_into().map_err(|_| wrong())
}

/// `KIND=DURATION`: how long operations of a kind may take.
pub(super) fn deadline(text: &str) -> Result<(OperationKind, Duration), String> {
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let (kind, time) = text
        .split_once('=')
        .ok_or("it must look like `create=2h`")?;
    let kind = OperationKind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind)
        .ok_or_else(|| {
            let kinds = OperationKind::ALL.map(OperationKind::as_str).join("`, `");
            format!("the kinds of operations are `{kinds}`")
        })?;
    match duration(time)? {
        time if (Duration::from_secs(1)..=LONGEST).contains(&time) => Ok((kind, time)),
        _ => Err("a deadline is from 1 second to 7 days".to_owned()),
    }
}

/// How often something happens.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("it must be a number from 0 to 100000".to_owned()),
    }
}

/// `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("it must look like `key=value`")?;
    if label_is_good(key, value) {
        Ok((key.to_owned(), value.to_owned()))
    } else {
        Err(
            "a label's key has letters, digits and `._-/`, its value printable characters"
                .to_owned(),
        )
    }
}

/// One driver's name.
pub(crate) fn driver_kind(text: &str) -> Result<DriverKind, String> {
    [DriverKind::Multipass, DriverKind::Qemu, DriverKind::Fake]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| "it must be `multipass`, `qemu` or `fake`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_names_its_kind() {
        let two_hours = Duration::from_secs(7200);
        assert_eq!(
            deadline("create=2h"),
            Ok((OperationKind::Create, two_hours))
        );
        assert_eq!(
            deadline("delete_snapshot=90s"),
            Ok((OperationKind::DeleteSnapshot, Duration::from_secs(90)))
        );
        for bad in [
            "",
            "create",
            "create=",
            "2h",
            "make=2h",
            "create=0",
            "create=8d",
            "create=0.5",
        ] {
            assert!(deadline(bad).is_err(), "{bad}");
        }
        assert!(deadline("make=2h").unwrap_err().contains("`create`"));
    }

    #[test]
    fn times_are_words_or_seconds() {
        let secs = |text| duration(text).map(|time| time.as_secs_f64());
        assert_eq!(secs("30"), Ok(30.0));
        assert_eq!(secs("0.5"), Ok(0.5));
        assert_eq!(secs("15m"), Ok(900.0));
        assert_eq!(secs("1h 30m"), Ok(5400.0));
        for bad in ["", "soon", "-1", "-5s", "nan", "1e99"] {
            assert!(secs(bad).is_err(), "{bad}");
        }
    }
}
