//! Files inside VMs: download and upload, streamed.

use std::str::FromStr;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use batwa_api::{
    file::{FileInfo, UploadId, WrittenFile, header as own},
    name::VmName,
    problem::{FieldError, Problem, ProblemCode},
};
use futures_util::{TryStreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    error::ApiResult,
    extract::{PathOf, QueryOf},
};
use crate::inside::{Reading, Wanted, Writing};

/// Which file, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FileQuery {
    /// The file or folder; a relative one begins at the account's home.
    #[serde(default)]
    path: String,
    /// `tar` for a folder and all that is in it.
    archive: Option<String>,
    /// Names an upload that can be gone on with: 8 to 64 letters, digits and hyphens.
    upload: Option<String>,
    /// Make folders that are missing.
    #[serde(default)]
    parents: bool,
    /// The new file's permissions in octal; those of the file it replaces when absent.
    mode: Option<String>,
}

impl FileQuery {
    fn is_archive(&self) -> Result<bool, Problem> {
        match self.archive.as_deref() {
            None => Ok(false),
            Some("tar") => Ok(true),
            Some(_) => Err(refused("archive", "`tar` is the one kind of archive")),
        }
    }

    fn upload(&self) -> Result<Option<UploadId>, Problem> {
        self.upload
            .as_deref()
            .map(UploadId::parse)
            .transpose()
            .map_err(|error| refused("upload", &error.to_string()))
    }

    fn mode(&self) -> Result<Option<String>, Problem> {
        match self.mode.as_deref() {
            None => Ok(None),
            Some(mode)
                if (3..=4).contains(&mode.len())
                    && mode.bytes().all(|b| (b'0'..=b'7').contains(&b)) =>
            {
                Ok(Some(mode.to_owned()))
            }
            Some(_) => Err(refused("mode", "permissions in octal, such as `644`")),
        }
    }
}

fn refused(field: &str, message: &str) -> Problem {
    Problem::invalid_fields(vec![FieldError::new(field, message)])
}

/// Download a file of a VM, or a folder as tar. `Range` and `If-Range` go on with one that was cut off.
#[utoipa::path(
    get, path = "/api/v1/vms/{vm}/files", tag = "inside", params(("vm" = VmName, Path), FileQuery),
    responses(
        (status = 200, description = "the content", content_type = "application/octet-stream"),
        (status = 206, description = "the rest of the content", content_type = "application/octet-stream"),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 416, body = Problem), (status = 422, body = Problem),
    )
)]
pub(crate) async fn download(
    State(app): State<App>,
    PathOf(vm): PathOf<VmName>,
    QueryOf(query): QueryOf<FileQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    app.wait_for_first_word().await;
    let inside = app.inside();
    if query.is_archive()? {
        let reading = inside.read_folder(&vm, &query.path).await?;
        return Ok(([(header::CONTENT_TYPE, "application/x-tar")], body(reading)).into_response());
    }
    let offset = range_start(&headers)?;
    let wanted = Wanted {
        offset: offset.unwrap_or(0),
        tag: text(&headers, header::IF_RANGE.as_str()).map(|tag| tag.trim_matches('"').to_owned()),
        checksum: headers.contains_key(own::WANT_DIGEST),
    };
    let reading = inside.read_file(&vm, &query.path, &wanted).await?;
    let Some(info) = reading.info.clone() else {
        return Err(Problem::new(ProblemCode::Internal, "a file without its facts").into());
    };
    let (size, from) = (info.size.as_u64(), reading.offset);
    if offset.is_some_and(|offset| offset > size) {
        return Err(Problem::new(
            ProblemCode::OutOfRange,
            format!("`{}` has {size} bytes", query.path),
        )
        .into());
    }
    let mut response = (facts(&info), body(reading)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size - from));
    if from > 0 {
        let range = format!("bytes {from}-{}/{size}", size.saturating_sub(1).max(from));
        if let Ok(range) = HeaderValue::from_str(&range) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Look at a file of a VM: its size, permissions and checksum in headers; or, with `upload`, how much of an upload that
/// was cut off is there (`Upload-Offset`).
#[utoipa::path(
    head, path = "/api/v1/vms/{vm}/files", tag = "inside", params(("vm" = VmName, Path), FileQuery),
    responses((status = 200), (status = 404), (status = 409), (status = 422))
)]
pub(crate) async fn look(
    State(app): State<App>,
    PathOf(vm): PathOf<VmName>,
    QueryOf(query): QueryOf<FileQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    app.wait_for_first_word().await;
    if let Some(upload) = query.upload()? {
        let offset = app
            .inside()
            .upload_offset(&vm, &query.path, &upload)
            .await?;
        return Ok([(own::UPLOAD_OFFSET, offset.to_string())].into_response());
    }
    let checksum = headers.contains_key(own::WANT_DIGEST);
    let info = app.inside().file_info(&vm, &query.path, checksum).await?;
    let mut response = facts(&info).into_response();
    let size = HeaderValue::from(info.size.as_u64());
    response.headers_mut().insert(header::CONTENT_LENGTH, size);
    Ok(response)
}

/// Upload a file to a VM, or unpack tar into a folder of it. With `upload`, one that is cut off is gone on with by
/// `Content-Range`. A `Repr-Digest` is checked before the file takes its place.
#[utoipa::path(
    put, path = "/api/v1/vms/{vm}/files", tag = "inside", params(("vm" = VmName, Path), FileQuery),
    request_body(content_type = "application/octet-stream", description = "the content"),
    responses(
        (status = 200, body = WrittenFile), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 416, body = Problem), (status = 422, body = Problem),
        (status = 507, body = Problem, description = "no space is left in the VM"),
    )
)]
pub(crate) async fn upload(
    State(app): State<App>,
    PathOf(vm): PathOf<VmName>,
    QueryOf(query): QueryOf<FileQuery>,
    request: Request,
) -> ApiResult<Json<WrittenFile>> {
    app.wait_for_first_word().await;
    let (parts, body) = request.into_parts();
    let content = body.into_data_stream().map_err(std::io::Error::other);
    let inside = app.inside();
    if query.is_archive()? {
        let written = inside
            .write_folder(vm, query.path, query.parents, content)
            .await?;
        return Ok(Json(written));
    }
    let (offset, total) = content_range(&parts.headers)?;
    let writing = Writing {
        upload: query.upload()?,
        offset,
        total,
        mode: query.mode()?,
        sha256: text(&parts.headers, own::DIGEST)
            .map(|digest| digest_of(&digest))
            .transpose()?,
        parents: query.parents,
    };
    if offset > 0 && writing.upload.is_none() {
        return Err(refused("upload", "name the upload that this goes on with").into());
    }
    Ok(Json(
        inside.write_file(vm, query.path, writing, content).await?,
    ))
}

fn body(reading: Reading) -> Body {
    Body::from_stream(stream::unfold(reading.content, async |mut content| {
        content.recv().await.map(|piece| (piece, content))
    }))
}

/// What is known of a file, as headers.
fn facts(info: &FileInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put("content-type", "application/octet-stream".to_owned());
    put("accept-ranges", "bytes".to_owned());
    put("etag", format!("\"{}\"", info.tag));
    put(own::MODE, info.mode.clone());
    if let Some(at) = info.modified_at {
        put(
            "last-modified",
            at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        );
    }
    if let Some(sum) = info.sha256.as_deref().and_then(|sum| hex::decode(sum).ok()) {
        put(own::DIGEST, format!("sha-256=:{}:", STANDARD.encode(sum)));
    }
    headers
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

/// `bytes=N-`: the one range that goes on with what was cut off.
fn range_start(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(range) = text(headers, header::RANGE.as_str()) else {
        return Ok(None);
    };
    range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'))
        .and_then(|start| start.parse().ok())
        .map(Some)
        .ok_or_else(|| {
            Problem::new(
                ProblemCode::OutOfRange,
                "a range has the form `bytes=N-`: from a byte to the end",
            )
        })
}

/// `bytes FROM-TO/TOTAL` as `(FROM, TOTAL)`; from the beginning without it, and as long as the body is.
pub(super) fn content_range(headers: &HeaderMap) -> Result<(u64, Option<u64>), Problem> {
    let Some(range) = text(headers, header::CONTENT_RANGE.as_str()) else {
        return Ok((0, number(headers, header::CONTENT_LENGTH.as_str())));
    };
    let parse = || {
        let (range, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        // Nothing is left to send when all has come, but its place is still to be taken.
        let from: u64 = match range {
            "*" => total?,
            range => range.split_once('-')?.0.parse().ok()?,
        };
        total
            .is_none_or(|total| from <= total)
            .then_some((from, total))
    };
    parse().ok_or_else(|| {
        Problem::new(
            ProblemCode::Malformed,
            "`Content-Range` has the form `bytes FROM-TO/TOTAL`, or `bytes */TOTAL` when all has come",
        )
    })
}

fn number<T: FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

/// The SHA-256 of `sha-256=:…:`, in hexadecimal.
pub(super) fn digest_of(digest: &str) -> Result<String, Problem> {
    let sum = digest.split(',').find_map(|part| {
        let value = part.trim().strip_prefix("sha-256=:")?.strip_suffix(':')?;
        STANDARD.decode(value).ok().filter(|sum| sum.len() == 32)
    });
    sum.map(hex::encode).ok_or_else(|| {
        Problem::new(
            ProblemCode::Malformed,
            "`Repr-Digest` has the form `sha-256=:BASE64:`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn ranges_say_where_to_go_on() {
        let from = |value| range_start(&with("range", value)).ok();
        assert_eq!(range_start(&HeaderMap::new()).unwrap(), None);
        assert_eq!(from("bytes=5-"), Some(Some(5)));
        assert_eq!(from("bytes=5-9"), None);
        assert_eq!(from("bytes=-5"), None);
        let range = |value| content_range(&with("content-range", value)).ok();
        assert_eq!(content_range(&HeaderMap::new()).unwrap(), (0, None));
        assert_eq!(
            content_range(&with("content-length", "7")).unwrap(),
            (0, Some(7))
        );
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("bytes */10"), Some((10, Some(10))));
        assert_eq!(range("bytes 11-12/10"), None);
        assert_eq!(range("5-9/10"), None);
    }

    #[test]
    fn a_checksum_is_sixty_four_hexadecimal_digits() {
        let base64 = STANDARD.encode([7; 32]);
        assert_eq!(
            digest_of(&format!("md5=:AA==:, sha-256=:{base64}:")).unwrap(),
            "07".repeat(32)
        );
        assert!(digest_of("sha-256=:AA==:").is_err());
        assert!(digest_of("sha-256=abc").is_err());
    }
}
