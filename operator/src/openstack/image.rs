//! Images (Glance), with their bytes as streams.

use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{Method, StatusCode};
use openstack_sdk::types::ServiceType;
use serde_json::{Value, json};

use super::bounded;
use super::endpoint::{Call, path};
use super::error::{CloudError, ErrorKind};
use super::session::Cloud;
use crate::cloud::{Image, Listed};

/// A download on which nothing arrives for this long is given up.
const IDLE: Duration = Duration::from_secs(300);

fn call(method: Method, segments: &[&str]) -> Call {
    Call::new(ServiceType::Image, method, path(segments))
}

/// The bytes of an image on their way. Compare length and hash with the image's record: the stream ends in an
/// error when the connection breaks or fewer bytes than announced come, and only then.
pub struct ImageDownload {
    /// Whether these are the bytes of the range that was asked for, not the whole image.
    pub partial: bool,
    /// Number of bytes announced.
    pub content_length: Option<u64>,
    /// The bytes. An item that is an error is the last one.
    pub stream: Pin<Box<dyn Stream<Item = Result<Bytes, CloudError>> + Send>>,
}

impl std::fmt::Debug for ImageDownload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageDownload").field("content_length", &self.content_length).finish_non_exhaustive()
    }
}

impl Cloud {
    /// One image; `None` when there is none with this id.
    pub async fn get_image(&self, id: &str) -> Result<Option<Image>, CloudError> {
        self.fetch_optional("get image", "", call(Method::GET, &["images", id])).await
    }

    /// All images that belong to the project, whatever their state and visibility.
    pub async fn list_images(&self) -> Result<Listed<Image>, CloudError> {
        let call = call(Method::GET, &["images"]).query("owner", self.project_id()).query("limit", "1000");
        self.listed("list images", "images", "id", call).await
    }

    /// Makes an image record without bytes. `body` is the record itself (`name`, `disk_format`, tags, properties
    /// side by side).
    pub async fn create_image(&self, body: &Value) -> Result<Image, CloudError> {
        let call = call(Method::POST, &["images"]).json(body.clone());
        self.fetch("create image", "", call).await
    }

    /// Deletes an image; done when it is not there.
    pub async fn delete_image(&self, id: &str) -> Result<(), CloudError> {
        self.remove("delete image", call(Method::DELETE, &["images", id])).await
    }

    /// Adds one tag.
    pub async fn add_image_tag(&self, id: &str, tag: &str) -> Result<(), CloudError> {
        let action = "tag image";
        if !tag.contains('/') {
            let call = call(Method::PUT, &["images", id, "tags", tag]);
            return self.send(action, call).await.map(drop);
        }
        // Glance decodes the path before it looks up the route: such a tag is 404 there, encoded or not.
        let image: Image = self.fetch(action, "", call(Method::GET, &["images", id])).await?;
        let mut tags = image.tags;
        tags.push(tag.to_string());
        self.update_image(id, &[json!({"op": "replace", "path": "/tags", "value": tags})]).await.map(drop)
    }

    /// Changes an image by JSON patch operations, e.g. `{"op": "replace", "path": "/name", "value": "x"}`.
    pub async fn update_image(&self, id: &str, operations: &[Value]) -> Result<Image, CloudError> {
        let call = call(Method::PATCH, &["images", id])
            .content_type("application/openstack-images-v2.1-json-patch")
            .json(json!(operations));
        self.fetch("update image", "", call).await
    }

    /// Begins a download. Status and token are settled before this returns; what fails later is in the stream.
    pub async fn download_image(&self, id: &str) -> Result<ImageDownload, CloudError> {
        self.begin_download(id, None).await
    }

    /// Begins the download of some bytes. A service that takes no ranges sends the whole image (`partial` is false
    /// then) or refuses.
    pub async fn download_image_range(
        &self,
        id: &str,
        range: Range<u64>,
    ) -> Result<ImageDownload, CloudError> {
        self.begin_download(id, Some(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))).await
    }

    async fn begin_download(&self, id: &str, range: Option<String>) -> Result<ImageDownload, CloudError> {
        let action = "download image";
        let answer = self.request_image_file(id, action, range.as_deref()).await?;
        let status = answer.status();
        if status == StatusCode::NO_CONTENT {
            let message = "the image has no bytes yet";
            return Err(CloudError::local(self.name(), action, ErrorKind::Conflict, message));
        }
        let partial = status == StatusCode::PARTIAL_CONTENT && range.is_some();
        if status != StatusCode::OK && !partial {
            let headers = answer.headers().clone();
            let body = bounded::of_error(answer).await;
            return Err(CloudError::from_answer(self.name(), action, status, &headers, &body));
        }
        let content_length = answer.content_length();
        Ok(ImageDownload {
            partial,
            content_length,
            stream: self.image_bytes(action, answer, content_length),
        })
    }

    /// The answer to a GET of the file, asked again once with a new token after a 401.
    async fn request_image_file(
        &self,
        id: &str,
        action: &str,
        range: Option<&str>,
    ) -> Result<reqwest::Response, CloudError> {
        let file = path(&["images", id, "file"]);
        let ask = async || {
            let (request, generation) = self.data_request(action, Method::GET, &ServiceType::Image, &file)?;
            let request = match range {
                Some(range) => request.header(http::header::RANGE, range),
                None => request,
            };
            let answer =
                request.send().await.map_err(|e| CloudError::from_reqwest(self.name(), action, &e))?;
            Ok::<_, CloudError>((answer, generation))
        };
        let (answer, generation) = ask().await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.renew(action, generation).await?;
        Ok(ask().await?.0)
    }

    fn image_bytes(
        &self,
        action: &'static str,
        answer: reqwest::Response,
        announced: Option<u64>,
    ) -> Pin<Box<dyn Stream<Item = Result<Bytes, CloudError>> + Send>> {
        let cloud = self.clone();
        let fail =
            move |message: String| CloudError::local(cloud.name(), action, ErrorKind::Unreachable, message);
        let cloud = self.clone();
        let steps = stream::unfold(Some((answer.bytes_stream().boxed(), 0u64)), move |state| {
            let (fail, cloud) = (fail.clone(), cloud.clone());
            async move {
                let (mut rest, count) = state?;
                match tokio::time::timeout(IDLE, rest.next()).await {
                    Ok(Some(Ok(chunk))) => {
                        let count = count + chunk.len() as u64;
                        Some((Ok(chunk), Some((rest, count))))
                    }
                    Ok(Some(Err(e))) => Some((Err(CloudError::from_reqwest(cloud.name(), action, &e)), None)),
                    Ok(None) if announced.is_some_and(|length| length != count) => {
                        Some((Err(fail(format!("the download ended after {count} bytes"))), None))
                    }
                    Ok(None) => None,
                    Err(_) => Some((Err(fail(format!("nothing arrived for {} s", IDLE.as_secs()))), None)),
                }
            }
        });
        Box::pin(steps)
    }

    /// Sends an image's bytes, in one request of unknown length. A body cannot be sent twice, so a new token, if
    /// one is needed, is fetched by a small request before.
    pub async fn upload_image(
        &self,
        id: &str,
        body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ) -> Result<(), CloudError> {
        let action = "upload image";
        self.send(action, call(Method::GET, &["images", id])).await?;
        let file = path(&["images", id, "file"]);
        let (request, _) = self.data_request(action, Method::PUT, &ServiceType::Image, &file)?;
        let answer = request
            .header(http::header::CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(body))
            .send()
            .await
            .map_err(|e| CloudError::from_reqwest(self.name(), action, &e))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_success() {
            return Ok(());
        }
        let body = bounded::of_error(answer).await;
        Err(CloudError::from_answer(self.name(), action, status, &headers, &body))
    }
}
