//! `vmmigration run`: client, caches, controllers, health; until SIGTERM.

use crate::{
    cli::RunArgs,
    controller::{self, context::Context},
    crd::{stored::Stored, v1alpha1::VmMigration},
    server::{Health, serve},
    signals::StopSignals,
};
use anyhow::Context as _;
use kube::{Api, Client, Config, api::ListParams};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,openstack_sdk=warn".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    let stop = stop_on_signals()?;
    let mut config = Config::infer().await.context("no cluster: not in a pod, and no kubeconfig")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // A retry inside of a call would hold up a reconcile; the controllers try again by themselves.
    config.default_retry = false;
    let client = Client::try_from(config).context("the cluster's configuration cannot be used")?;
    let metrics = Arc::default();
    let ctx = Arc::new(Context::new(client.clone(), args.settings(), Arc::clone(&metrics)));
    let health = Health { metrics, watches: ctx.watches.clone(), ..Health::default() };
    let served = tokio::spawn(serve(args.listen, health.clone(), stop.clone()));
    if wait_for_crds(&client, &stop).await {
        health.ready.store(true, Ordering::Relaxed);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
        controller::run(ctx, stop.clone()).await;
    }
    stop.cancel();
    served.await.context("the health server panicked")?.context("the health server failed")
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut signals = StopSignals::listen()?;
    let token = stop.clone();
    tokio::spawn(async move {
        signals.recv().await;
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(stop)
}

/// Installing the custom resources is not our job; being ready waits for them. False: stopped meanwhile.
async fn wait_for_crds(client: &Client, stop: &CancellationToken) -> bool {
    let api: Api<Stored<VmMigration>> = Api::all(client.clone());
    loop {
        match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => return true,
            Err(error) => tracing::warn!(%error, "the custom resources are not served yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}
