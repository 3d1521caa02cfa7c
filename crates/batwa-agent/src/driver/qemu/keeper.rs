//! The images as the rest of the agent reaches them.

use async_trait::async_trait;
use batwa_api::{
    file::UploadId,
    image::{AddImage, Image, ImageName, ImageStore},
};

use super::vms::Vms;
use crate::driver::{DriverError, ImageKeeper, Progress, Upload};

#[async_trait]
impl ImageKeeper for Vms {
    async fn store(&self) -> ImageStore {
        self.images().store()
    }

    async fn check_pull(&self, image: &ImageName) -> Result<Image, DriverError> {
        self.images().check_pull(image).await
    }

    async fn pull(&self, image: &ImageName, progress: &Progress) -> Result<(), DriverError> {
        self.check_pull(image).await?;
        let (_, held) = self.images().ensure(image.as_str(), progress).await?;
        self.images().trim(&|| self.images_in_use());
        drop(held);
        Ok(())
    }

    async fn add(&self, image: &AddImage) -> Result<Image, DriverError> {
        self.images().add(image, &|| self.images_in_use()).await
    }

    async fn upload(&self, image: &AddImage, upload: Upload) -> Result<Image, DriverError> {
        let in_use = || self.images_in_use();
        let image = self.images().upload(image, upload, &in_use).await?;
        self.images().trim(&in_use);
        Ok(image)
    }

    async fn held(&self, upload: &UploadId) -> Result<u64, DriverError> {
        self.images().held(upload).await
    }

    async fn remove(&self, image: &ImageName) -> Result<(), DriverError> {
        self.images().remove(image, &|| self.images_in_use())
    }
}
