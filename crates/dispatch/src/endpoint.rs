//! From a webhook of the configuration to an endpoint that requests can be made to.

use std::sync::Arc;

use aquarium_config::Webhook;
use aquarium_egress::{ClientCertificate, Endpoint, InvalidEndpoint, Tls, TlsError};

/// Why no request can be made to a webhook.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Its URL is none that a request can be made to.
    #[error("its url cannot be requested: {0}")]
    Url(#[from] InvalidEndpoint),
    /// What its `tls` names is damaged, or does not fit together.
    #[error("its tls cannot be used: {0}")]
    Tls(#[from] TlsError),
}

/// The endpoint of a webhook. It reads nothing: certificates and keys are in the configuration.
///
/// # Errors
/// [`Unusable`], which a configuration can be refused for before it is in force.
pub fn endpoint(webhook: &Webhook) -> Result<Endpoint, Unusable> {
    let headers = webhook.headers.iter().map(|header| (header.name.clone(), header.value.clone()));
    let endpoint = Endpoint::new(webhook.url.as_str(), headers, webhook.timeout, webhook.connect_timeout)?;
    let (ca, client) = (&webhook.tls.ca, &webhook.tls.client);
    if ca.is_none() && client.is_none() {
        return Ok(endpoint);
    }
    let client = client
        .as_ref()
        .map(|client| ClientCertificate { chain: &client.chain.pem, key: client.key.expose().as_bytes() });
    let tls = Tls::new(ca.as_ref().map(|ca| &*ca.pem), client)?;
    Ok(endpoint.with_tls(Arc::new(tls)))
}
