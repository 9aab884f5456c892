//! Where a task works: the pod's files, the repository in its store, the image service of its cloud.

use std::{path::PathBuf, process::ExitCode, sync::atomic::AtomicU64, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{config::ConfigDir, ended, error::MoverError, glance, repository::Repository};
use crate::{
    contract::{Failure, FailureReason, Pod, Transfer, paths},
    net::{AddressCheck, EndpointPolicy, address_check},
    openstack::Cloud,
    restic::{Complaints, Restic, Traffic, program_from_environment},
    store::{ObjectStoreLocation, Store, StoreOptions},
    transfer::tags::PassKey,
};

/// What restic does by itself, made explicit.
pub(super) const DEFAULT_TRAFFIC: Traffic = Traffic { connections: 5, upload_kib: 0, download_kib: 0 };
/// A dump fetches blob by blob.
const RESTORE_CONNECTIONS: u16 = 16;
/// restic processes at once.
const PROCESSES: u16 = 2;

/// A pod, and the repository that its task is about.
pub(super) struct Place<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The repository, in restic's form.
    pub repository: &'a str,
}

/// Which addresses cloud, store and checks may have.
pub(super) fn endpoint_policy(pod: &Pod) -> EndpointPolicy {
    EndpointPolicy { allow_loopback: pod.allow_loopback, denied: pod.denied_cidr.clone() }
}

/// The same for what is connected to directly.
pub(super) fn addresses(pod: &Pod) -> AddressCheck {
    address_check(endpoint_policy(pod))
}

/// How many restic processes run at once.
pub(super) fn processes(transfer: &Transfer) -> u16 {
    transfer.processes.unwrap_or(PROCESSES)
}

/// What each process may use of network and store.
pub(super) fn traffic(transfer: &Transfer, connections: u16) -> Traffic {
    // A limit that is shared out never becomes none.
    let share = |kib: Option<u64>| match kib.unwrap_or(0) {
        0 => 0,
        kib => (kib / u64::from(processes(transfer))).max(1),
    };
    Traffic {
        connections: transfer.connections.unwrap_or(connections),
        upload_kib: share(transfer.limit_upload),
        download_kib: share(transfer.limit_download),
    }
}

/// The path of this program.
pub(super) fn self_exe() -> Result<PathBuf, MoverError> {
    std::env::current_exe().map_err(|error| {
        MoverError::terminal(FailureReason::Internal, format!("our own path is not known: {error}"))
    })
}

impl Place<'_> {
    /// Runs a task's work here, and tells how it ended.
    pub async fn job<T, F>(&self, grace: Duration, work: impl FnOnce(CancellationToken) -> F) -> ExitCode
    where
        T: Clone + Serialize + DeserializeOwned,
        F: Future<Output = Result<T, Failure<T>>>,
    {
        ended::job(&self.pod.termination_log, self.config().secrets(), grace, work).await
    }

    /// The mounted Secret.
    pub fn config(&self) -> ConfigDir {
        ConfigDir::new(&self.pod.config_dir)
    }

    fn location(&self) -> Result<ObjectStoreLocation, MoverError> {
        ObjectStoreLocation::parse_with(self.repository, self.pod.allow_loopback).map_err(|error| {
            MoverError::terminal(FailureReason::InvalidArguments, format!("--repository: {error}"))
        })
    }

    /// The store.
    pub fn store(&self) -> Result<Store, MoverError> {
        let config = self.config();
        let mut options = StoreOptions::new(addresses(self.pod));
        options.ca_pem = config.optional(paths::STORE_CACERT)?;
        let location = self.location()?;
        Ok(Store::new(&location, &config.store_keys(&location)?, &options)?)
    }

    /// restic, for the repository.
    pub fn restic(&self, traffic: Traffic) -> Result<Restic, MoverError> {
        let config = self.config();
        config.password()?;
        let location = self.location()?;
        Ok(Restic {
            program: program_from_environment(),
            repository: location.to_string(),
            guard: Some(self_exe()?),
            password_file: config.path().join(paths::RESTIC_PASSWORD),
            keys: config.store_keys(&location)?,
            cacert: config.existing_path(paths::STORE_CACERT),
            scratch: self.pod.scratch_dir.clone(),
            traffic,
            complaints: Complaints::default(),
        })
    }

    /// The image service.
    pub async fn images(&self) -> Result<Cloud, MoverError> {
        glance::connect(&self.config(), endpoint_policy(self.pod)).await
    }

    /// A pass that was saved, or is being saved.
    pub fn saved_pass(&self, disk: u32, pass: u32, transfer: &Transfer) -> Result<Repository, MoverError> {
        // A repository is one migration's, and is called after it.
        let migration = self.location()?.last_part().to_owned();
        let key = PassKey { migration, disk, pass };
        self.repository(key, traffic(transfer, RESTORE_CONNECTIONS), true)
    }

    /// The repository, for one pass over a disk.
    pub fn repository(
        &self,
        key: PassKey,
        traffic: Traffic,
        no_extra_verify: bool,
    ) -> Result<Repository, MoverError> {
        let (restic, own_program) = (self.restic(traffic)?, self_exe()?);
        let store = self.store()?;
        Ok(Repository { restic, store, key, own_program, no_extra_verify, counter: AtomicU64::new(0) })
    }
}
