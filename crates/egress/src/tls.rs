//! Which certificate authorities an endpoint's certificate may come from.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Where the trusted authorities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The platform's own store (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
    Native,
    /// Mozilla's list, built into the program.
    Webpki,
    /// Certificates in PEM form, and no others.
    Pem(Vec<u8>),
}

/// Why the trusted authorities could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The platform's store holds no usable certificate.
    #[error("the platform's certificate store is empty or unreadable{}; set egress.roots = \"webpki\" to use the built-in list", .detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
    NoNativeRoots {
        /// The first problem met.
        detail: Option<String>,
    },
    /// The PEM text holds no certificate.
    #[error("there is no certificate in the file of egress.roots")]
    NoCertificate,
    /// The PEM text is damaged.
    #[error("the file of egress.roots is not valid PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The TLS library refuses what was found.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// How HTTP/2 is called when the protocol is agreed on (RFC 9113, section 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// A client configuration that trusts `roots`.
pub(crate) fn client_config(roots: &Roots) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(config)
}

fn store(roots: &Roots) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Native => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let detail = found.errors.first().map(ToString::to_string);
                return Err(TlsError::NoNativeRoots { detail });
            }
        }
        Roots::Webpki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                store.add(certificate?)?;
            }
            if store.is_empty() {
                return Err(TlsError::NoCertificate);
            }
        }
    }
    Ok(store)
}
