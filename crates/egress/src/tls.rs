//! TLS: whom an endpoint is trusted by, and how it can tell who is calling.

mod certificate;
mod verifier;

pub(crate) use certificate::summary as certificate_summary;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring as provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The platform's store holds no usable certificate.
    #[error("the platform's certificate store is empty or unreadable{}; set egress.roots = \"webpki\" to use the built-in list", .detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
    NoNativeRoots {
        /// The first problem met.
        detail: Option<String>,
    },
    /// The PEM text holds no certificate.
    #[error("there is no certificate in the file")]
    NoCertificate,
    /// The PEM text is damaged.
    #[error("the certificates are not valid PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The text holds no private key that is not encrypted, or is damaged.
    #[error("there is no usable private key: {0}")]
    Key(rustls_pki_types::pem::Error),
    /// The private key is that of another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The TLS library refuses what was found.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// In what the TLS sessions of one endpoint differ from those of others. Connections are shared only by endpoints in
/// which it is the same.
pub struct Tls {
    /// Of all that it was made from.
    digest: digest::Digest,
    roots: Option<Arc<RootCertStore>>,
    client: Option<Arc<dyn ResolvesClientCert>>,
    /// What was made of it last, and for which roots of the way out. It holds the sessions that can be resumed.
    made: Mutex<Option<(Arc<RootCertStore>, Arc<ClientConfig>)>>,
}

/// The certificate that a receiver is shown, and its key, both in PEM form.
#[derive(Clone, Copy)]
pub struct ClientCertificate<'a> {
    /// The certificate, and those between it and the receiver's authority.
    pub chain: &'a [u8],
    /// The private key: PKCS #8, PKCS #1 or SEC1, not encrypted.
    pub key: &'a [u8],
}

impl Tls {
    /// Sessions with endpoints whose certificates come from `ca` (PEM; the roots of the way out, if there is none), and
    /// which are shown `client`, if they ask.
    ///
    /// # Errors
    /// [`TlsError`], when something of it cannot be used.
    pub fn new(ca: Option<&[u8]>, client: Option<ClientCertificate<'_>>) -> Result<Self, TlsError> {
        let mut digest = digest::Context::new(&digest::SHA256);
        for part in [ca, client.map(|client| client.chain), client.map(|client| client.key)] {
            digest.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            digest.update(part.unwrap_or_default());
        }
        Ok(Self {
            digest: digest.finish(),
            roots: ca.map(from_pem).transpose()?.map(Arc::new),
            client: client.map(certified).transpose()?,
            made: Mutex::default(),
        })
    }

    /// The client configuration. `roots` are those of the way out.
    fn client_config(&self, roots: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = self.roots.as_ref().unwrap_or(roots);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, config)) = &*made
            && Arc::ptr_eq(from, roots)
        {
            return Ok(config.clone());
        }
        let config = Arc::new(build(roots, self.client.clone())?);
        *made = Some((roots.clone(), config.clone()));
        Ok(config)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.digest.as_ref() == other.digest.as_ref()
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.as_ref().hash(state);
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (roots, client) = (self.roots.is_some(), self.client.is_some());
        f.debug_struct("Tls").field("roots", &roots).field("client", &client).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientCertificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

/// The sessions of a client that trusts these authorities and shows no certificate, without a protocol to agree on.
///
/// # Errors
/// What is wrong with the authorities.
pub fn client_config(roots: &Roots) -> Result<ClientConfig, TlsError> {
    let mut config = build(&Arc::new(store(roots)?), None)?;
    config.alpn_protocols.clear();
    Ok(config)
}

/// The TLS sessions of a way out.
#[derive(Debug)]
pub(crate) struct Sessions {
    roots: Arc<RootCertStore>,
    /// For endpoints that want nothing special.
    plain: Arc<ClientConfig>,
}

impl Sessions {
    pub(crate) fn new(roots: &Roots) -> Result<Self, TlsError> {
        let roots = Arc::new(store(roots)?);
        Ok(Self { plain: Arc::new(build(&roots, None)?), roots })
    }

    /// The client configuration for an endpoint.
    pub(crate) fn client_config(&self, tls: Option<&Tls>) -> Result<Arc<ClientConfig>, TlsError> {
        match tls {
            None => Ok(self.plain.clone()),
            Some(tls) => tls.client_config(&self.roots),
        }
    }
}

/// How HTTP/2 is called when the protocol is agreed on (RFC 9113, section 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

fn build(
    roots: &Arc<RootCertStore>,
    client: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider::default_provider());
    let verifier = verifier::Verifier::new(roots.clone(), provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // It refuses what the usual verifier refuses, which it asks, and says more about it.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client {
        Some(client) => builder.with_client_cert_resolver(client),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(config)
}

fn certified(client: ClientCertificate<'_>) -> Result<Arc<dyn ResolvesClientCert>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(client.chain).collect::<Result<_, _>>()?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(client.key).map_err(TlsError::Key)?;
    match CertifiedKey::from_der(chain, key, &provider::default_provider()) {
        Ok(certified) => Ok(Arc::new(SingleCertAndKey::from(certified))),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch),
        Err(error) => Err(error.into()),
    }
}

fn store(roots: &Roots) -> Result<RootCertStore, TlsError> {
    match roots {
        Roots::Native => {
            let mut store = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let detail = found.errors.first().map(ToString::to_string);
                return Err(TlsError::NoNativeRoots { detail });
            }
            Ok(store)
        }
        Roots::Webpki => Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()),
        Roots::Pem(pem) => from_pem(pem),
    }
}

fn from_pem(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate?)?;
    }
    if store.is_empty() { Err(TlsError::NoCertificate) } else { Ok(store) }
}
