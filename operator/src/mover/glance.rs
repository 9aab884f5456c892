//! The image service of a real cloud.

use std::{io, ops::Range};

use futures::StreamExt;

use super::{
    config::ConfigDir,
    error::MoverError,
    image::{ByteStream, ImageBody, ImageError, ImageRecord, ImageService},
};
use crate::{
    contract::{FailureReason, paths},
    net::EndpointPolicy,
    openstack::{Cloud, CloudError, Credentials, ErrorKind, Timeouts},
};

/// What Glance answers to an upload whose content it refuses.
const UNSUPPORTED_MEDIA_TYPE: u16 = 415;

/// Logs in with the Job's credentials: the only entry of its `clouds.yaml`.
pub async fn connect(config: &ConfigDir, policy: EndpointPolicy) -> Result<Cloud, MoverError> {
    let yaml = config.required(paths::CLOUDS_YAML)?;
    let cacert = config.optional(paths::CLOUD_CACERT)?;
    let credentials = Credentials::parse(&yaml, None, cacert.as_deref())
        .map_err(|error| MoverError::terminal(FailureReason::InvalidConfiguration, error.to_string()))?;
    let connected =
        Cloud::connect(&credentials, &policy, credentials.cloud_name(), Timeouts::default()).await;
    Ok(connected.map_err(ImageError::from)?)
}

impl From<CloudError> for ImageError {
    fn from(error: CloudError) -> Self {
        let message = error.to_string();
        match error.kind {
            _ if error.is_transient() => Self::Transient(message),
            ErrorKind::Unauthorized | ErrorKind::Forbidden => Self::Unauthorized(message),
            _ if error.status == Some(UNSUPPORTED_MEDIA_TYPE) => Self::Content(message),
            _ => Self::Refused(message),
        }
    }
}

impl ImageService for Cloud {
    async fn get_image(&self, id: &str) -> Result<Option<ImageRecord>, ImageError> {
        let image = Cloud::get_image(self, id).await?;
        Ok(image.map(|image| ImageRecord {
            status: image.status,
            size: image.size.and_then(|size| u64::try_from(size).ok()),
            hash_algo: image.os_hash_algo,
            hash_value: image.os_hash_value,
        }))
    }

    async fn download_image(&self, id: &str, range: Option<Range<u64>>) -> Result<ImageBody, ImageError> {
        let download = match range {
            Some(range) => Cloud::download_image_range(self, id, range).await?,
            None => Cloud::download_image(self, id).await?,
        };
        let stream = download.stream.map(|item| item.map_err(io::Error::other)).boxed();
        Ok(ImageBody { partial: download.partial, content_length: download.content_length, stream })
    }

    async fn upload_image(&self, id: &str, body: ByteStream) -> Result<(), ImageError> {
        Ok(Cloud::upload_image(self, id, body).await?)
    }
}
