//! Keeps the configuration of a running sidecar up to date.

use std::path::Path;
use std::sync::Arc;

use aquarium_config::reload::{FileWatch, Handle, Hints, Parts, Refused, Reloader, Target};
use aquarium_config::{Config, Diff, Fs, Loaded, Roots, Webhook};
use aquarium_dispatch::{Clock, endpoint};
use aquarium_egress::{self as egress, Egress, Guard};
use tokio::signal::unix::Signal;
use tracing::{info, warn};

/// Follows the configuration in `dir`, of which `loaded` is in force.
pub(crate) fn follow(
    dir: &Path,
    loaded: Loaded,
    egress: Egress,
    clock: Clock,
) -> (Reloader<Outside>, Handle) {
    let hints = Hints::new();
    let parts = Parts {
        dir: dir.to_owned(),
        source: Arc::new(Fs),
        watch: Box::new(FileWatch::new(hints.clone())),
        hints,
        target: Outside { egress },
        now: Box::new(move || clock.now()),
    };
    Reloader::new(parts, loaded)
}

/// What acts on a configuration besides those who look at the current one each time.
#[derive(Debug)]
pub(crate) struct Outside {
    egress: Egress,
}

impl Target for Outside {
    async fn prepare(&mut self, next: &Config, diff: &Diff) -> Result<(), String> {
        let changed = diff.added.iter().chain(diff.changed.iter().map(|changed| &changed.name));
        unusable(changed.filter_map(|name| next.webhook(name)))?;
        if !diff.settings.iter().any(|setting| setting.starts_with("egress.")) {
            return Ok(());
        }
        let (egress, options) = (self.egress.clone(), egress_options(next)?);
        // It may read the certificates of the system.
        let prepared = tokio::task::spawn_blocking(move || egress.reconfigure(options)).await;
        match prepared {
            Ok(reconfigured) => reconfigured.map_err(|error| format!("egress.roots: {error}")),
            Err(error) => Err(format!("egress: {error}")),
        }
    }
}

/// Refuses webhooks that no request could be made to.
///
/// # Errors
/// What is wrong with the first of them, in words.
pub(crate) fn unusable<'a>(webhooks: impl IntoIterator<Item = &'a Arc<Webhook>>) -> Result<(), String> {
    webhooks.into_iter().try_for_each(|webhook| match endpoint(webhook) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{}: {error}", webhook.name)),
    })
}

/// What a configuration says of the way out.
///
/// # Errors
/// What of it cannot be used, in words.
pub(crate) fn egress_options(config: &Config) -> Result<egress::Options, String> {
    let proxy = config.egress.proxy.as_ref().map(|proxy| proxy.parse());
    let proxy: Option<egress::Proxy> = proxy.transpose().map_err(|error| format!("egress.proxy: {error}"))?;
    let proxy = proxy.map(|proxy| proxy.by_address(config.egress.proxy_by_address));
    let guard = Guard::new(config.egress.allow.clone()).denying(config.egress.deny.clone());
    let guard = match &config.egress.deny_ports {
        Some(ports) => guard.denying_ports(ports.clone()),
        None => guard,
    };
    Ok(egress::Options { guard, roots: roots(config), proxy })
}

/// Whose certificates are trusted.
pub(crate) fn roots(config: &Config) -> egress::Roots {
    match &config.egress.roots {
        Roots::Webpki => egress::Roots::Webpki,
        Roots::File { pem, .. } => egress::Roots::Pem(pem.to_vec()),
        _ => egress::Roots::Native,
    }
}

/// Reloads on each SIGHUP; never ends by itself.
pub(crate) async fn on_hangup(configuration: Handle, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        info!("SIGHUP: reading the configuration");
        let rejections = configuration.status().rejections;
        match configuration.reload().await {
            Ok(reloaded) if reloaded.changes.is_empty() => {
                info!(
                    "configuration {} stays in force: nothing that matters has changed",
                    reloaded.generation
                );
            }
            // What was changed, or is wrong, has just been told.
            Ok(_) => {}
            Err(Refused::Rejected(_)) if configuration.status().rejections > rejections => {}
            Err(refused) => warn!("SIGHUP: {refused}"),
        }
    }
    std::future::pending().await
}
