//! Images: what can be launched here, and what is done with it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use batwa_api::{
    agent::DriverKind,
    file::{UploadId, header as own},
    image::{AddImage, Image, ImageCatalogue, ImageContent, ImageName, ImageStore},
    problem::{FieldError, Problem, ProblemCode},
    size::ByteSize,
    vm::{Reason, Vm},
};
use futures_util::{TryStreamExt, future::join_all};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::{
    App,
    error::ApiResult,
    extract::{JsonBody, PathOf, QueryOf},
    files::{content_range, digest_of, text},
};
use crate::driver::{Driver, DriverError, ImageKeeper, Part, Upload};

/// How long a driver may take to list its images; its images are left out then.
const LIST_DEADLINE: Duration = Duration::from_secs(5);

/// What can be launched on this machine, the driver for new VMs first, and what lies here of it.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", responses((status = 200, body = ImageCatalogue)))]
pub(crate) async fn list_images(State(app): State<App>) -> Json<ImageCatalogue> {
    let vms = app.picture().vms();
    let lists = app.inventory().drivers().into_iter().map(|driver| {
        let vms = &vms;
        async move { list(&driver, vms).await }
    });
    let mut catalogue = ImageCatalogue {
        items: Vec::new(),
        stores: Vec::new(),
    };
    for (images, store) in join_all(lists).await {
        catalogue.items.extend(images);
        catalogue.stores.push(store);
    }
    Json(catalogue)
}

/// One driver's images. Where it does not answer, the other drivers' are still of use.
async fn list(driver: &Arc<dyn Driver>, vms: &[Vm]) -> (Vec<Image>, ImageStore) {
    let listed = async {
        let images = driver.images().await;
        let store = match driver.image_keeper() {
            Some(keeper) => keeper.store().await,
            None => kept_elsewhere(driver.kind()),
        };
        (images, store)
    };
    let Ok((images, store)) = timeout(LIST_DEADLINE, listed).await else {
        let error = format!(
            "driver `{}` did not list its images within {} s",
            driver.kind(),
            LIST_DEADLINE.as_secs()
        );
        let store = kept_elsewhere(driver.kind());
        return (
            Vec::new(),
            ImageStore {
                error: Some(error),
                ..store
            },
        );
    };
    match images {
        Ok(mut images) => {
            if driver.image_keeper().is_none() {
                note_users(&mut images, vms, driver.kind());
            }
            (images, store)
        }
        Err(error) => (
            Vec::new(),
            ImageStore {
                error: Some(error.to_string()),
                ..store
            },
        ),
    }
}

/// The store of a driver that leaves its images to another program.
fn kept_elsewhere(driver: DriverKind) -> ImageStore {
    ImageStore {
        driver,
        used: None,
        limit: None,
        free: None,
        add_refusal: Some(Reason::Borrowed(
            "the driver of this machine leaves its images to another program, which has no command to add one",
        )),
        error: None,
    }
}

/// Notes with the images of a driver that does not know it which VMs were made from them, as far as the VMs say so.
fn note_users(images: &mut [Image], vms: &[Vm], driver: DriverKind) {
    for image in images {
        let called = |name: &str| image.name == name || image.aliases.iter().any(|a| a == name);
        image.used_by = vms
            .iter()
            .filter(|vm| vm.driver == driver && vm.image.as_deref().is_some_and(called))
            .map(|vm| vm.name.clone())
            .collect();
    }
}

/// Add an image by its address and SHA-256, or by a file of this machine. Its content comes when it is pulled or launched.
#[utoipa::path(
    post, path = "/api/v1/images", tag = "images", request_body = AddImage,
    responses(
        (status = 201, body = Image), (status = 409, body = Problem, description = "the name is taken"),
        (status = 422, body = Problem),
    )
)]
pub(crate) async fn add_image(
    State(app): State<App>,
    JsonBody(add): JsonBody<AddImage>,
) -> ApiResult<(StatusCode, Json<Image>)> {
    refuse_wrong(&add, ImageContent::Named)?;
    let driver = app.driver_with_images(add.driver)?;
    let image = keeper(&driver)?.add(&add).await?;
    Ok((StatusCode::CREATED, Json(image)))
}

/// What is said of an image that is uploaded.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadQuery {
    /// Other names for it, separated by commas.
    aliases: Option<String>,
    /// For people; the name when absent.
    title: Option<String>,
    /// The account that people use in it; `batwa` when absent.
    user: Option<String>,
    /// Which driver is to have it; the one for new VMs when absent.
    driver: Option<DriverKind>,
    /// Names an upload that can be gone on with: 8 to 64 letters, digits and hyphens.
    upload: Option<String>,
}

impl UploadQuery {
    fn upload(&self) -> Result<Option<UploadId>, Problem> {
        let id = self.upload.as_deref().map(UploadId::parse).transpose();
        id.map_err(|error| refused("upload", error.to_string()))
    }

    fn describe(self, name: ImageName, sha256: Option<String>) -> Result<AddImage, Problem> {
        let aliases = self.aliases.unwrap_or_default();
        let aliases = aliases
            .split(',')
            .map(str::trim)
            .filter(|alias| !alias.is_empty())
            .map(ImageName::parse)
            .collect::<Result<_, _>>()
            .map_err(|error| refused("aliases", error.to_string()))?;
        Ok(AddImage {
            name,
            aliases,
            title: self.title,
            user: self.user,
            driver: self.driver,
            url: None,
            sha256,
            file: None,
        })
    }
}

/// Upload an image. It is there once all of it has come; a `Repr-Digest` is checked before. `Content-Length` is needed.
/// With `upload`, one that is cut off is gone on with by `Content-Range`.
#[utoipa::path(
    put, path = "/api/v1/images/{image}/content", tag = "images",
    params(("image" = ImageName, Path), UploadQuery),
    request_body(content_type = "application/octet-stream", description = "a disk image, qcow2 or raw"),
    responses(
        (status = 201, body = Image), (status = 409, body = Problem, description = "the name is taken"),
        (status = 422, body = Problem), (status = 507, body = Problem, description = "no disk space is left for it"),
    )
)]
pub(crate) async fn upload_image(
    State(app): State<App>,
    PathOf(name): PathOf<ImageName>,
    QueryOf(query): QueryOf<UploadQuery>,
    request: Request,
) -> ApiResult<(StatusCode, Json<Image>)> {
    let (parts, body) = request.into_parts();
    let (offset, size) = content_range(&parts.headers)?;
    let size = size.ok_or_else(|| {
        Problem::new(
            ProblemCode::Malformed,
            "an upload says by `Content-Length` how large it is, or by `Content-Range` where it goes on",
        )
    })?;
    let id = query.upload()?;
    if offset > 0 && id.is_none() {
        return Err(refused(
            "upload",
            "name the upload that this goes on with".to_owned(),
        )
        .into());
    }
    let sha256 = text(&parts.headers, own::DIGEST)
        .map(|digest| digest_of(&digest))
        .transpose()?;
    let add = query.describe(name, sha256)?;
    refuse_wrong(&add, ImageContent::Uploaded)?;
    let driver = app.driver_with_images(add.driver)?;
    let upload = Upload {
        size: ByteSize::bytes(size),
        part: id.map(|id| Part { id, offset }),
        content: Box::pin(body.into_data_stream().map_err(std::io::Error::other)),
    };
    let image = keeper(&driver)?.upload(&add, upload).await?;
    Ok((StatusCode::CREATED, Json(image)))
}

/// Look how much of an upload that was cut off is there: `Upload-Offset`.
#[utoipa::path(
    head, path = "/api/v1/images/{image}/content", tag = "images",
    params(("image" = ImageName, Path), UploadQuery),
    responses((status = 200), (status = 409), (status = 422))
)]
pub(crate) async fn look_at_upload(
    State(app): State<App>,
    PathOf(_name): PathOf<ImageName>,
    QueryOf(query): QueryOf<UploadQuery>,
) -> ApiResult<Response> {
    let id = query
        .upload()?
        .ok_or_else(|| refused("upload", "name the upload".to_owned()))?;
    let driver = app.driver_with_images(query.driver)?;
    let held = keeper(&driver)?.held(&id).await?;
    Ok([(own::UPLOAD_OFFSET, held.to_string())].into_response())
}

/// Which driver's image.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DriverQuery {
    /// Only this driver's; the first one's that has it when absent.
    driver: Option<DriverKind>,
}

/// Remove what is here of an image, and forget it where somebody added it.
#[utoipa::path(
    delete, path = "/api/v1/images/{image}", tag = "images", params(("image" = ImageName, Path), DriverQuery),
    responses(
        (status = 204), (status = 404, body = Problem), (status = 409, body = Problem, description = "it is in use"),
        (status = 422, body = Problem),
    )
)]
pub(crate) async fn remove_image(
    State(app): State<App>,
    PathOf(name): PathOf<ImageName>,
    QueryOf(query): QueryOf<DriverQuery>,
) -> ApiResult<StatusCode> {
    let drivers = match query.driver {
        Some(kind) => vec![app.inventory().driver(kind)?],
        None => app.inventory().drivers(),
    };
    let mut refusal = None;
    for driver in drivers {
        let removed = match keeper(&driver) {
            Ok(keeper) => keeper.remove(&name).await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            // Another one may have it.
            Err(error @ (DriverError::NoImage(_) | DriverError::Unsupported(_))) => {
                refusal.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(refusal.unwrap_or(DriverError::NoImage(name)).into())
}

impl App {
    /// The driver that is to take an image in: the one that was named, or the first one in use that can.
    fn driver_with_images(
        &self,
        asked: Option<DriverKind>,
    ) -> Result<Arc<dyn Driver>, DriverError> {
        if let Some(kind) = asked {
            return self.inventory().driver(kind);
        }
        let drivers = self.inventory().drivers();
        let able = drivers
            .iter()
            .find(|driver| driver.image_keeper().is_some())
            .or(drivers.first());
        able.cloned()
            .ok_or_else(|| DriverError::Missing("no driver is in use".to_owned()))
    }
}

fn keeper(driver: &Arc<dyn Driver>) -> Result<&dyn ImageKeeper, DriverError> {
    driver.image_keeper().ok_or_else(|| {
        DriverError::Unsupported(format!(
            "driver `{}` leaves its images to another program, which has no command to add or remove one",
            driver.kind()
        ))
    })
}

fn refuse_wrong(add: &AddImage, content: ImageContent) -> Result<(), Problem> {
    let errors = add.check(content);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Problem::invalid_fields(errors))
    }
}

fn refused(field: &str, message: String) -> Problem {
    Problem::invalid_fields(vec![FieldError::new(field, message)])
}
