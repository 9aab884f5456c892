//! `mover probe`: proves that this pod reaches the store and the cloud.

use std::{future::Future, time::Instant};

use super::{error::MoverError, image::ImageService};
use crate::{
    contract::{FailureReason, ProbeResult},
    store::{Probed, Store},
};

/// An image that cannot be there: "not found" proves login, endpoint and rights as well as "found" would.
const NO_IMAGE: &str = "00000000-0000-0000-0000-000000000000";

/// Tries both side by side; a failure says what the other side did.
pub async fn probe<I: ImageService>(
    store: &Store,
    connect: impl Future<Output = Result<I, MoverError>>,
) -> Result<ProbeResult, MoverError> {
    let cloud = async {
        let start = Instant::now();
        let images = connect.await?;
        let connect_ms = millis(start);
        let start = Instant::now();
        images.get_image(NO_IMAGE).await.map_err(MoverError::from)?;
        Ok::<_, MoverError>((connect_ms, millis(start)))
    };
    let (store, cloud) = tokio::join!(store.probe(), cloud);
    match (store.map_err(MoverError::from), cloud) {
        (Ok(store), Ok(cloud)) => Ok(result(store, cloud)),
        (Err(store), Ok((connect, call))) => {
            Err(store.context(&format!("the cloud works ({connect} and {call} ms), the store does not")))
        }
        (Ok(_), Err(cloud)) => Err(cloud.context("the store works, the cloud does not")),
        (Err(store), Err(cloud)) => Err(both(store, &cloud)),
    }
}

fn result(store: Probed, (cloud_connect_ms, cloud_image_ms): (u64, u64)) -> ProbeResult {
    ProbeResult {
        store_write_ms: store.write_ms,
        store_read_ms: store.read_ms,
        store_delete_ms: store.delete_ms,
        cloud_connect_ms,
        cloud_image_ms,
        store_keeps: store.kept,
    }
}

/// Worth a retry only when neither side needs somebody to change something.
fn both(store: MoverError, cloud: &MoverError) -> MoverError {
    let reason: FailureReason = if store.retryable { cloud.reason } else { store.reason };
    let message = format!("neither works: {store}; {cloud}");
    MoverError { reason, message, retryable: store.retryable && cloud.retryable }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
