//! What a driver does that keeps images of its own: pulling them ahead, taking them in, removing them.

use std::{io, pin::Pin};

use async_trait::async_trait;
use batwa_api::{
    file::UploadId,
    image::{AddImage, Image, ImageName, ImageStore},
    name::VmName,
    size::ByteSize,
};
use bytes::Bytes;
use futures_util::Stream;

use super::{DriverError, Progress};

/// Most names of VMs in one sentence; a machine may have hundreds on one image.
const NAMED: usize = 5;

/// The images of a driver that keeps them itself.
///
/// Invariants: an image is whole or not there, whatever cuts a call off; one that a VM's disk lies on, or that
/// an operation is about to use, is never removed.
#[async_trait]
pub trait ImageKeeper: Send + Sync {
    /// How much there is, and how much room.
    async fn store(&self) -> ImageStore;

    /// Refuses, before an operation is accepted, a pull that cannot work: no such image, no space for it. Quick,
    /// changes nothing. What is known of the image.
    ///
    /// # Errors
    /// [`DriverError::Invalid`] for `image`; [`DriverError::NoSpace`].
    async fn check_pull(&self, image: &ImageName) -> Result<Image, DriverError>;

    /// Brings an image here, verified; one that is here already is success. What a call that was cut off has brought
    /// is gone on with.
    async fn pull(&self, image: &ImageName, progress: &Progress) -> Result<(), DriverError>;

    /// Takes an image in by its address or by a file of this machine. Its content comes when it is pulled or launched.
    /// Whatever [`AddImage::check`] refuses does not come here.
    ///
    /// # Errors
    /// [`DriverError::ImageTaken`]; [`DriverError::Invalid`].
    async fn add(&self, image: &AddImage) -> Result<Image, DriverError>;

    /// Takes an image in whose content comes with the call. Of one that has a name, what came is kept when it is cut
    /// off, for a while, to be gone on with.
    ///
    /// # Errors
    /// [`DriverError::ImageTaken`]; [`DriverError::Invalid`] for a content that is none, or not the one that was
    /// announced; [`DriverError::NoSpace`]; [`DriverError::IllegalState`] where it does not go on from what is kept.
    async fn upload(&self, image: &AddImage, upload: Upload) -> Result<Image, DriverError>;

    /// How many bytes are kept of an upload that was cut off; 0 where nothing is known of it.
    ///
    /// # Errors
    /// [`DriverError::IllegalState`] while it is still being written to.
    async fn held(&self, upload: &UploadId) -> Result<u64, DriverError>;

    /// Removes what is here of an image, and forgets it where somebody added it.
    ///
    /// # Errors
    /// [`DriverError::ImageInUse`]; [`DriverError::NoImage`] where there is nothing to remove.
    async fn remove(&self, image: &ImageName) -> Result<(), DriverError>;
}

/// The content of an image as it comes in.
pub struct Upload {
    /// How many bytes were announced, those that came before included.
    pub size: ByteSize,
    /// Its name and how many bytes came before, where it is to be gone on with.
    pub part: Option<Part>,
    /// The bytes.
    pub content: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

/// An upload that is gone on with when it was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub id: UploadId,
    /// Where what comes now begins.
    pub offset: u64,
}

/// Why an image stays: the VMs that lie on it.
pub(crate) fn used_by(vms: &[VmName]) -> String {
    let named: Vec<String> = vms
        .iter()
        .take(NAMED)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = match vms.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = if vms.len() == 1 { "VM" } else { "VMs" };
    let verb = if vms.len() == 1 { "uses" } else { "use" };
    format!("{what} {}{more} {verb} it", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_use_an_image_are_named_but_not_hundreds_of_them() {
        let vms = |count: usize| -> Vec<VmName> {
            (1..=count)
                .map(|n| VmName::parse(&format!("vm{n}")).unwrap())
                .collect()
        };
        assert_eq!(used_by(&vms(1)), "VM `vm1` uses it");
        assert_eq!(used_by(&vms(2)), "VMs `vm1`, `vm2` use it");
        assert!(used_by(&vms(300)).ends_with("`vm5` and 295 more use it"));
    }
}
