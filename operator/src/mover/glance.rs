//! The image service of a real cloud.

use super::{
    cli::JobArgs,
    config::ConfigDir,
    error::MoverError,
    image::{ByteStream, ImageBody, ImageError, ImageRecord, ImageService},
};

/// A connected cloud.
pub struct Glance;

/// Logs in with the Job's credentials.
pub async fn connect(config: &ConfigDir, job: &JobArgs) -> Result<Glance, MoverError> {
    let _ = (
        config.required(super::config::CLOUDS_YAML)?,
        config.optional(super::config::CLOUD_CACERT)?,
        job.allow_loopback,
    );
    Ok(Glance)
}

impl ImageService for Glance {
    async fn get_image(&self, _id: &str) -> Result<Option<ImageRecord>, ImageError> {
        Err(ImageError::Refused("not connected".to_owned()))
    }

    async fn download_image(&self, _id: &str) -> Result<ImageBody, ImageError> {
        Err(ImageError::Refused("not connected".to_owned()))
    }

    async fn upload_image(&self, _id: &str, _body: ByteStream) -> Result<(), ImageError> {
        Err(ImageError::Refused("not connected".to_owned()))
    }
}
