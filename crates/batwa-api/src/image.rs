//! Images: what can be launched on a machine, what of it lies there, and what can be done with it.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    Timestamp, agent::DriverKind, id::AgentId, name::VmName, problem::FieldError, size::ByteSize,
    vm::Reason,
};

/// What an image is called: a name of a catalogue, an alias, an address with its checksum, or a file.
///
/// Drivers know many forms, so this refuses only what can be none: 1 to 512 bytes, no white space, no control
/// characters, and no hyphen first, so that it can never be read as an option.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(Arc<str>);

/// Why a text is no image's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageNameError {
    /// The text cannot name any.
    #[error(
        "an image name has 1 to 512 bytes, none of them a space or control character, and no hyphen first"
    )]
    Unusable,
    /// The text cannot name a new one.
    #[error(
        "an image of one's own is named by 1 to 63 lower-case letters, digits, dots, colons, hyphens and underscores, a letter or digit first and last, and not by `file:`, `http:` or `https:`"
    )]
    NotForNew,
}

impl ImageName {
    /// Longest one, in bytes.
    pub const MAX_LEN: usize = 512;
    /// Longest one of an image that somebody adds, in bytes.
    pub const MAX_NEW_LEN: usize = 63;

    /// Checks the name of an image that may be there.
    ///
    /// # Errors
    /// [`ImageNameError::Unusable`].
    pub fn parse(text: &str) -> Result<Self, ImageNameError> {
        let good = !text.is_empty()
            && text.len() <= Self::MAX_LEN
            && !text.starts_with('-')
            && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(ImageNameError::Unusable)
        }
    }

    /// Checks the name of an image that somebody adds.
    ///
    /// # Errors
    /// [`ImageNameError::NotForNew`].
    pub fn parse_new(text: &str) -> Result<Self, ImageNameError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = text.len() <= Self::MAX_NEW_LEN
            && text.starts_with(plain)
            && text.ends_with(plain)
            && text.chars().all(|c| plain(c) || ".:-_".contains(c))
            && !["file:", "http:", "https:"]
                .iter()
                .any(|form| text.starts_with(form));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(ImageNameError::NotForNew)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ImageName {
    type Error = ImageNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageName({})", self.0)
    }
}

impl PartialSchema for ImageName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(1))
            .max_length(Some(Self::MAX_LEN))
            .build()
            .into()
    }
}

impl ToSchema for ImageName {}

/// One image of an agent's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// The name to launch it by: `ubuntu:24.04`.
    pub name: String,
    /// Other names for it: `24.04`, `noble`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// For people: `Ubuntu 24.04 LTS`.
    pub title: String,
    /// Which driver launches it.
    pub driver: DriverKind,
    /// Bytes to download, where known; `None` for images that are built on the machine.
    #[serde(default)]
    pub download_size: Option<ByteSize>,
    /// Whether it lies on the machine already.
    pub cached: bool,
    /// Least disk size.
    #[serde(default)]
    pub min_disk: Option<ByteSize>,
    /// Least memory with which it is known to boot.
    #[serde(default)]
    pub min_memory: Option<ByteSize>,
    /// How it comes to the machine, for people: `from cloud-images.ubuntu.com`, `built here from Debian packages`.
    pub origin: String,
    /// Whether it reads `#cloud-config` user-data; otherwise only `#!` scripts.
    pub cloud_config: bool,
    /// Whether this one is proposed first.
    #[serde(default)]
    pub default: bool,
    /// Where it comes from.
    #[serde(default)]
    pub source: ImageSource,
    /// Whether somebody added it to this machine, under a name of their own.
    #[serde(default)]
    pub own: bool,
    /// The processor architecture that it is for, as Rust and Linux name it; `None` where nobody said.
    #[serde(default)]
    pub architecture: Option<String>,
    /// What it takes on the machine's disk, older versions of it that VMs still use included; `None` where nothing of
    /// it is there or the driver does not say.
    #[serde(default)]
    pub size_on_disk: Option<ByteSize>,
    /// When a VM was last made from it, or it was last pulled; `None` where nothing of it is there.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    /// The VMs whose disks lie on it, by name, those in the trash included.
    #[serde(default)]
    pub used_by: Vec<VmName>,
    /// What can be done with it.
    #[serde(default)]
    pub actions: ImageActions,
}

/// Where an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// A server with a catalogue that the driver knows.
    #[default]
    Catalogue,
    /// It is built on the machine.
    Built,
    /// An address that somebody named, with its checksum.
    Url,
    /// Somebody uploaded it.
    Upload,
    /// A file of the machine.
    File,
}

/// What can be done with an image: for each why it is not possible now, `null` when it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageActions {
    /// Bringing it to the machine before a VM wants it.
    #[schema(value_type = Option<String>)]
    pub pull: Option<Reason>,
    /// Taking it off the machine; one that somebody added is forgotten with it.
    #[schema(value_type = Option<String>)]
    pub remove: Option<Reason>,
}

impl Default for ImageActions {
    /// Those of an image whose agent says nothing of them.
    fn default() -> Self {
        Self::none_because(
            "this machine's agent is too old: bring it to this master's version of Batwa",
        )
    }
}

impl ImageActions {
    /// Nothing is possible, for one reason.
    #[must_use]
    pub const fn none_because(reason: &'static str) -> Self {
        Self {
            pull: Some(Cow::Borrowed(reason)),
            remove: Some(Cow::Borrowed(reason)),
        }
    }
}

/// One image with the agents that can launch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedImage {
    /// The agent whose catalogue it is in.
    pub agent_id: AgentId,
    /// The image.
    #[serde(flatten)]
    pub image: Image,
}

/// Where a driver keeps its images, and what room there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageStore {
    /// The driver.
    pub driver: DriverKind,
    /// What its images take on disk, those half downloaded included; `None` where it does not say.
    #[serde(default)]
    pub used: Option<ByteSize>,
    /// From which size on images that no VM uses are removed, the one longest unused first; `None` without a limit.
    #[serde(default)]
    pub limit: Option<ByteSize>,
    /// Free space of the disk that holds them.
    #[serde(default)]
    pub free: Option<ByteSize>,
    /// Why no image can be added here; `null` when one can.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub add_refusal: Option<Reason>,
    /// Why its images are not known now.
    #[serde(default)]
    pub error: Option<String>,
}

/// Answer to the agent's `GET /api/v1/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageCatalogue {
    /// All images, the driver for new VMs first.
    pub items: Vec<Image>,
    /// Where each driver keeps its own.
    #[serde(default)]
    pub stores: Vec<ImageStore>,
}

/// Where the images of one agent lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentImages {
    /// The agent.
    pub agent_id: AgentId,
    /// Where each of its drivers keeps its own.
    pub stores: Vec<ImageStore>,
    /// Why its images are not in the list.
    #[serde(default)]
    pub error: Option<String>,
}

/// Answer to the master's `GET /api/v1/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    /// All images, those of one agent together.
    pub items: Vec<ListedImage>,
    /// The agents that were asked, those that did not answer included.
    pub agents: Vec<AgentImages>,
}

/// An image that somebody adds to a machine: the body of `POST …/images`, and what is said of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddImage {
    /// What to launch it by.
    pub name: ImageName,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<ImageName>,
    /// For people; the name when absent.
    #[serde(default)]
    pub title: Option<String>,
    /// The account that people use in it; `batwa` when absent. cloud-init makes it where it is missing.
    #[serde(default)]
    pub user: Option<String>,
    /// Which driver is to have it; the one for new VMs when absent.
    #[serde(default)]
    pub driver: Option<DriverKind>,
    /// Where to download it from; needs `sha256`. It is fetched when it is pulled or launched.
    #[serde(default)]
    pub url: Option<String>,
    /// The SHA-256 of its content, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// A file of the machine, by its whole path, in a folder that the agent's own settings name.
    #[serde(default)]
    pub file: Option<String>,
}

impl AddImage {
    /// Most aliases of one image.
    pub const MAX_ALIASES: usize = 16;
    /// Longest title, in characters.
    pub const MAX_TITLE: usize = 200;
    /// Longest address or path, in bytes.
    pub const MAX_SOURCE: usize = 2000;

    /// What is wrong with it, field by field, whatever machine it is for.
    #[must_use]
    pub fn check(&self, content: ImageContent) -> Vec<FieldError> {
        let mut errors = self.wrong_words();
        let mut refuse = |field: &str, message: &str| errors.push(FieldError::new(field, message));
        if self.sha256.as_deref().is_some_and(|sum| !is_sha256(sum)) {
            refuse("sha256", "a SHA-256 has 64 hexadecimal digits");
        }
        match (content, &self.url, &self.file) {
            (ImageContent::Uploaded, None, None) => {}
            (ImageContent::Uploaded, _, _) => {
                refuse("url", "an upload has neither an address nor a file");
            }
            (ImageContent::Named, Some(_), Some(_)) | (ImageContent::Named, None, None) => {
                refuse("url", "name either an address or a file of the machine");
            }
            (ImageContent::Named, Some(url), None) => {
                let known = ["https://", "http://"]
                    .iter()
                    .any(|scheme| url.starts_with(scheme) && url.len() > scheme.len());
                if !known || !is_one_word(url) {
                    refuse("url", "give an address as `https://…`, without spaces");
                }
                if names_account(url) {
                    refuse("url", NO_ACCOUNT);
                }
                if self.sha256.is_none() {
                    refuse(
                        "sha256",
                        "an image from an address needs its SHA-256, so that nobody can put another in its place",
                    );
                }
            }
            (ImageContent::Named, None, Some(file)) => {
                let usable = file.starts_with('/')
                    && file.len() <= Self::MAX_SOURCE
                    && !file.chars().any(char::is_control);
                if !usable {
                    refuse("file", "give the file's whole path: `/…`");
                }
            }
        }
        errors
    }

    fn wrong_words(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse =
            |field: &str, message: String| errors.push(FieldError::new(field, message));
        if let Err(error) = ImageName::parse_new(self.name.as_str()) {
            refuse("name", error.to_string());
        }
        if self.aliases.len() > Self::MAX_ALIASES {
            refuse("aliases", format!("at most {}", Self::MAX_ALIASES));
        }
        for alias in &self.aliases {
            if let Err(error) = ImageName::parse_new(alias.as_str()) {
                refuse("aliases", error.to_string());
            }
        }
        let title = self.title.as_deref().unwrap_or("title");
        if title.is_empty()
            || title.chars().count() > Self::MAX_TITLE
            || title.chars().any(char::is_control)
        {
            refuse(
                "title",
                format!(
                    "1 to {} characters, none of them a control character",
                    Self::MAX_TITLE
                ),
            );
        }
        let user = self.user.as_deref().unwrap_or("batwa");
        let good = user.len() <= 32
            && user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && user
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if !good {
            refuse(
                "user",
                "an account is named by at most 32 lower-case letters, digits, hyphens and underscores, no digit first"
                    .to_owned(),
            );
        }
        errors
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Why no account may stand in an image's address.
pub const NO_ACCOUNT: &str =
    "leave name and password out of the address: everybody who sees the image sees them";

/// Whether an address names an account, and maybe its password: `https://NAME:PASSWORD@…`.
#[must_use]
pub fn names_account(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    // Some take a `\\` for a `/` there.
    let host = rest.split(['/', '\\', '?', '#']).next();
    host.is_some_and(|host| host.contains('@'))
}

fn is_one_word(text: &str) -> bool {
    text.len() <= AddImage::MAX_SOURCE && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// How the content of an image that is added comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageContent {
    /// From the address or file that is named.
    Named,
    /// With the request.
    Uploaded,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str) -> AddImage {
        AddImage {
            name: ImageName::parse(name).unwrap(),
            aliases: Vec::new(),
            title: None,
            user: None,
            driver: None,
            url: None,
            sha256: None,
            file: None,
        }
    }

    fn fields(image: &AddImage, content: ImageContent) -> Vec<String> {
        let errors = image.check(content);
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn names_are_checked_leniently_where_they_are_and_strictly_where_they_are_made() {
        for name in ["ubuntu:24.04", "24.04", "my-image_2", "a"] {
            ImageName::parse_new(name).unwrap();
        }
        let long = "x".repeat(64);
        for name in [
            "A", "-a", "a-", "a b", "a/b", "file:a", "https:a", "../a", "", &long,
        ] {
            assert!(ImageName::parse_new(name).is_err(), "{name}");
        }
        ImageName::parse("https://a/b.img#sha256=00").unwrap();
        for name in ["", "--all", "a b", "a\n", &"x".repeat(513)] {
            assert!(ImageName::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_account_in_an_address_is_found_and_an_at_sign_elsewhere_is_none() {
        for url in [
            "https://ann@a/b",
            "http://ann:x@a",
            "https://:x@a?b",
            "https://@a#b",
        ] {
            assert!(names_account(url), "{url}");
        }
        for url in [
            "https://a/b@c",
            "https://a?b@c",
            "https://a#b@c",
            "https://a\\@c",
            "a@b",
        ] {
            assert!(!names_account(url), "{url}");
        }
    }

    #[test]
    fn an_image_comes_from_one_place_and_an_address_needs_its_checksum() {
        let sum = Some("0".repeat(64));
        let url = AddImage {
            url: Some("https://a/b.img".to_owned()),
            sha256: sum.clone(),
            ..add("mine")
        };
        let file = AddImage {
            file: Some("/srv/a.img".to_owned()),
            ..add("mine")
        };
        assert!(fields(&url, ImageContent::Named).is_empty());
        assert!(fields(&file, ImageContent::Named).is_empty());
        assert!(fields(&add("mine"), ImageContent::Uploaded).is_empty());
        for (image, content, wrong) in [
            (add("mine"), ImageContent::Named, "url"),
            (url.clone(), ImageContent::Uploaded, "url"),
            (
                AddImage {
                    url: Some("https://ann:secret@a/b.img".to_owned()),
                    ..url.clone()
                },
                ImageContent::Named,
                "url",
            ),
            (
                AddImage {
                    file: file.file.clone(),
                    ..url.clone()
                },
                ImageContent::Named,
                "url",
            ),
            (
                AddImage {
                    sha256: None,
                    ..url.clone()
                },
                ImageContent::Named,
                "sha256",
            ),
            (
                AddImage {
                    sha256: Some("xyz".to_owned()),
                    ..url.clone()
                },
                ImageContent::Named,
                "sha256",
            ),
            (
                AddImage {
                    url: Some("ftp://a/b".to_owned()),
                    ..url.clone()
                },
                ImageContent::Named,
                "url",
            ),
            (
                AddImage {
                    file: Some("a.img".to_owned()),
                    ..add("mine")
                },
                ImageContent::Named,
                "file",
            ),
            (
                AddImage {
                    user: Some("root; rm".to_owned()),
                    ..file.clone()
                },
                ImageContent::Named,
                "user",
            ),
            (
                AddImage {
                    title: Some("x".repeat(201)),
                    ..file.clone()
                },
                ImageContent::Named,
                "title",
            ),
            (
                AddImage {
                    aliases: vec![ImageName::parse("Not/Good").unwrap()],
                    ..file
                },
                ImageContent::Named,
                "aliases",
            ),
        ] {
            assert_eq!(fields(&image, content), [wrong], "{image:?}");
        }
    }

    #[test]
    fn an_image_of_an_older_agent_has_its_reasons() {
        let old = r#"{"name": "tiny", "title": "Tiny", "driver": "qemu", "cached": false, "origin": "here", "cloud_config": false}"#;
        let image: Image = serde_json::from_str(old).unwrap();
        assert!(image.actions.pull.unwrap().contains("too old"));
    }
}
