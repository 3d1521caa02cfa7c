//! What the name of an image means.

use std::path::PathBuf;

use batwa_api::image::{NO_ACCOUNT, names_account};

use super::{
    cache::UPLOAD,
    download::Checksum,
    manifest::{ImageId, Manifest},
    own::{OwnImage, OwnSource},
    simplestreams::Release,
    tiny,
};
use crate::driver::DriverError;

/// An image that somebody named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// Built here, see [`super::tiny`].
    Tiny,
    /// `debian:12`.
    Debian,
    /// A release of Ubuntu, by its version.
    Ubuntu(String),
    /// A file on any server, with the checksum that it must have.
    Url {
        /// Where it is.
        url: String,
        /// What it must be.
        checksum: Checksum,
    },
    /// A file of this machine.
    File(PathBuf),
    /// One that somebody uploaded, by its SHA-256.
    Upload(String),
}

impl Wanted {
    /// What an image of one's own is made of.
    pub(super) fn of(own: &OwnImage) -> Self {
        match &own.source {
            OwnSource::Url { url, sha256 } => Self::Url {
                url: url.clone(),
                checksum: Checksum::Sha256(sha256.clone()),
            },
            OwnSource::Upload { sha256 } => Self::Upload(sha256.clone()),
            OwnSource::File { path } => Self::File(path.clone()),
        }
    }

    /// What the id of its image in the cache begins with, of `serial` where it has such. `None` for a file: what it
    /// holds today has to be looked at.
    pub(super) fn current(&self, serial: &str) -> Option<String> {
        Some(match self {
            Self::Tiny => format!("tiny-{}-", tiny::RECIPE),
            Self::Debian => "debian-12-".to_owned(),
            Self::Ubuntu(version) => format!("ubuntu-{version}-{serial}"),
            Self::Url { checksum, .. } => format!("url-{}", first_half(checksum.hex())),
            Self::Upload(sha256) => format!("{UPLOAD}{}", first_half(sha256)),
            Self::File(_) => return None,
        })
    }

    /// Whether an image in the cache is a version of it.
    pub(super) fn covers(&self, manifest: &Manifest) -> bool {
        let begin = match self {
            Self::Tiny => "tiny-".to_owned(),
            Self::File(_) => return is_file(&manifest.id) && manifest.name == self.name(),
            other => other.current("").unwrap_or_default(),
        };
        manifest.id.as_str().starts_with(&begin)
    }

    /// Finds out which image a name means. A bare version or code name is Ubuntu's.
    pub(super) fn parse(name: &str, releases: &[Release]) -> Result<Self, DriverError> {
        match name {
            "tiny" => return Ok(Self::Tiny),
            "debian:12" | "debian" | "debian:bookworm" | "bookworm" => return Ok(Self::Debian),
            _ => {}
        }
        if name.starts_with("https://") || name.starts_with("http://") {
            return url(name);
        }
        if let Some(path) = name.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(Self::File(path.into()))
            } else {
                Err(invalid(
                    "an image file is named by its whole path: `file:/…`".to_owned(),
                ))
            };
        }
        let bare = name.strip_prefix("ubuntu:").unwrap_or(name);
        let newest_lts = || {
            releases
                .iter()
                .find(|release| release.title.contains("LTS"))
        };
        let release = if matches!(bare, "ubuntu" | "lts" | "default") {
            newest_lts()
        } else {
            releases
                .iter()
                .find(|release| release.version == bare || release.codename == bare)
        };
        release
            .map(|release| Self::Ubuntu(release.version.clone()))
            .ok_or_else(|| unknown(name, releases))
    }

    /// The catalogue's name for it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tiny => "tiny".to_owned(),
            Self::Debian => "debian:12".to_owned(),
            Self::Ubuntu(version) => format!("ubuntu:{version}"),
            Self::Url { url, checksum } => format!("{url}#{checksum}"),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Upload(sha256) => format!("{UPLOAD}{sha256}"),
        }
    }
}

/// As much of a checksum as tells images apart.
fn first_half(hex: &str) -> &str {
    hex.get(..32).unwrap_or(hex)
}

/// The id of a file's image.
pub(super) fn file_id(fingerprint: &str) -> ImageId {
    ImageId::from_text(&format!("file-{fingerprint}"))
}

fn is_file(id: &ImageId) -> bool {
    id.as_str().starts_with("file-")
}

/// `https://…#sha256=…`
fn url(name: &str) -> Result<Wanted, DriverError> {
    let (url, checksum) = name.split_once('#').unwrap_or((name, ""));
    let checksum = checksum
        .split_once('=')
        .filter(|(kind, _)| matches!(*kind, "sha256" | "sha512"))
        .and_then(|(_, hex)| Checksum::parse(hex))
        .ok_or_else(|| {
            invalid("an image from a server needs its checksum: `https://…#sha256=…`".to_owned())
        })?;
    if url.starts_with("http://") {
        return Err(invalid("an image is downloaded by https only".to_owned()));
    }
    if names_account(url) {
        return Err(invalid(NO_ACCOUNT.to_owned()));
    }
    Ok(Wanted::Url {
        url: url.to_owned(),
        checksum,
    })
}

/// The image is not there: says which ones are near.
fn unknown(name: &str, releases: &[Release]) -> DriverError {
    let mut known = vec!["tiny".to_owned(), "debian:12".to_owned()];
    known.extend(
        releases
            .iter()
            .map(|release| format!("ubuntu:{}", release.version)),
    );
    let near: Vec<String> = known
        .iter()
        .filter(|candidate| distance(name, candidate) <= 2 || candidate.contains(name))
        .cloned()
        .collect();
    let shown = if near.is_empty() { known } else { near };
    invalid(format!(
        "there is no image `{name}` here; there is {}",
        shown
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    ))
}

fn invalid(message: String) -> DriverError {
    DriverError::Invalid {
        field: "image",
        message,
    }
}

/// How many letters lie between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{super::download::Remote, *};

    fn releases() -> Vec<Release> {
        [
            ("25.10", "questing", "25.10"),
            ("24.04", "noble", "24.04 LTS"),
        ]
        .map(|(version, codename, title)| Release {
            version: version.to_owned(),
            codename: codename.to_owned(),
            title: title.to_owned(),
            serial: "1".to_owned(),
            remote: Remote {
                url: String::new(),
                checksum: Checksum::Sha256(String::new()),
                size: None,
            },
        })
        .to_vec()
    }

    #[test]
    fn names_mean_images() {
        let noble = Wanted::Ubuntu("24.04".to_owned());
        for name in [
            "24.04",
            "noble",
            "ubuntu:24.04",
            "ubuntu:noble",
            "lts",
            "ubuntu",
        ] {
            assert_eq!(Wanted::parse(name, &releases()).unwrap(), noble, "{name}");
        }
        for name in ["debian", "debian:12", "bookworm"] {
            assert_eq!(Wanted::parse(name, &releases()).unwrap(), Wanted::Debian);
        }
        let url = format!("https://a/b.img#sha256={}", "0".repeat(64));
        assert!(
            matches!(Wanted::parse(&url, &[]).unwrap(), Wanted::Url { url, .. } if url == "https://a/b.img")
        );
        assert_eq!(
            Wanted::parse("file:///srv/a.img", &[]).unwrap(),
            Wanted::File("/srv/a.img".into())
        );
    }

    #[test]
    fn older_versions_of_an_image_are_of_it_too_and_only_they() {
        let stored = |id: &str, name: &str| Manifest {
            id: ImageId::from_text(id),
            name: name.to_owned(),
            ..Manifest::example()
        };
        let noble = Wanted::Ubuntu("24.04".to_owned());
        assert!(noble.covers(&stored("ubuntu-24.04-20240101", "ubuntu:24.04")));
        assert!(!noble.covers(&stored("ubuntu-24.10-20240101", "ubuntu:24.10")));
        assert!(Wanted::Tiny.covers(&stored("tiny-0-1.30", "tiny")));
        let file = Wanted::File("/srv/a.img".into());
        assert!(file.covers(&stored("file-00", "file:/srv/a.img")));
        assert!(!file.covers(&stored("file-00", "file:/srv/b.img")));
        let url = |sum: &str| Wanted::Url {
            url: "https://a/b".to_owned(),
            checksum: Checksum::Sha256(sum.repeat(64)),
        };
        let name = url("0").name();
        assert_eq!(Wanted::parse(&name, &[]).unwrap(), url("0"));
        let there = stored(&url("0").current("").unwrap(), &name);
        assert!(url("0").covers(&there) && !url("1").covers(&there));
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_is_near() {
        let refusal = |name: &str| match Wanted::parse(name, &releases()) {
            Err(DriverError::Invalid {
                field: "image",
                message,
            }) => message,
            other => panic!("{name} gave {other:?}"),
        };
        assert!(refusal("tinny").ends_with("there is `tiny`"));
        assert!(refusal("ubuntu:24.05").contains("`ubuntu:24.04`"));
        assert!(refusal("windows").contains("`debian:12`"));
        assert!(refusal("https://a/b.img").contains("checksum"));
        assert!(refusal(&format!("http://a/b#sha256={}", "0".repeat(64))).contains("https"));
        refusal("file:a.img");
    }
}
