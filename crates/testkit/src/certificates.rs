//! Certificates of an authority that nobody else knows, and the wrong ones that a client has to refuse.
//!
//! The configurations use *ring* by name: no default provider is set for the process.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::random;

/// An authority that issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    /// A new authority, unlike any other.
    #[expect(clippy::new_without_default, reason = "a default would be one that is the same each time")]
    pub fn new() -> Authority {
        let key = key();
        // Clients find an issuer by its name: one of the same name and another key would be a bad signature to them.
        let mut params = params(&format!("testkit {}", random::text()), &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).expect("the parameters are sound");
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Authority { issuer: Issuer::new(params, key), certificate, pem }
    }

    /// Its certificate, for a file of roots.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, for a store of roots.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A server that proves to have these names, which are those of hosts or IP addresses. It speaks HTTP/1.1.
    ///
    /// # Panics
    /// If one of the names is none.
    pub fn server(&self, names: &[&str]) -> ServerConfig {
        self.issue(&leaf(names))
    }

    /// A server whose certificate has expired long ago.
    ///
    /// # Panics
    /// If one of the names is none.
    pub fn expired(&self, names: &[&str]) -> ServerConfig {
        let mut params = leaf(names);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.issue(&params)
    }

    /// A server whose certificate is good for another host than any that it can be reached at.
    pub fn wrong_host(&self) -> ServerConfig {
        self.server(&["elsewhere.invalid"])
    }

    /// A server with these names that speaks nothing newer than TLS 1.2.
    ///
    /// # Panics
    /// If one of the names is none.
    pub fn only_tls12(&self, names: &[&str]) -> ServerConfig {
        let (certificate, key) = self.certified(&leaf(names));
        serve(&[&rustls::version::TLS12], None, certificate.der().clone(), &key)
    }

    /// A server with these names that talks to nobody without a certificate of `clients`.
    ///
    /// # Panics
    /// If one of the names is none.
    pub fn requiring(&self, names: &[&str], clients: &Authority) -> ServerConfig {
        let (certificate, key) = self.certified(&leaf(names));
        let mut roots = RootCertStore::empty();
        roots.add(clients.certificate.clone()).expect("an authority is a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
        let verifier = verifier.build().expect("there is a root");
        serve(rustls::DEFAULT_VERSIONS, Some(verifier), certificate.der().clone(), &key)
    }

    /// A certificate for a client of this name, to be shown to a server that asks.
    pub fn client_certificate(&self, name: &str) -> Shown {
        let mut params = params(name, &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.certified(&params);
        Shown { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority, and nobody else.
    pub fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority is a root");
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has all of them")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    fn issue(&self, params: &CertificateParams) -> ServerConfig {
        let (certificate, key) = self.certified(params);
        config(certificate.der().clone(), &key)
    }

    fn certified(&self, params: &CertificateParams) -> (Certificate, KeyPair) {
        let key = key();
        (params.signed_by(&key, &self.issuer).expect("the parameters are sound"), key)
    }
}

/// A client's certificate and its key, for files.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The certificate, in PEM form.
    pub certificate: String,
    /// Its private key, in PEM form.
    pub key: String,
}

/// A server whose certificate no authority has issued.
///
/// # Panics
/// If one of the names is none.
pub fn self_signed(names: &[&str]) -> ServerConfig {
    let key = key();
    let certificate = leaf(names).self_signed(&key).expect("the parameters are sound");
    config(certificate.der().clone(), &key)
}

/// The server, with these protocols to choose from (ALPN), such as `["h2", "http/1.1"]`; none, if there are none.
#[must_use]
pub fn with_protocols(mut server: ServerConfig, protocols: &[&str]) -> ServerConfig {
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    server
}

fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = params(names.first().copied().unwrap_or("nobody"), names);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("every name is that of a host or an IP address");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn config(certificate: CertificateDer<'static>, key: &KeyPair) -> ServerConfig {
    serve(rustls::DEFAULT_VERSIONS, None, certificate, key)
}

fn serve(
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<Arc<dyn ClientCertVerifier>>,
    certificate: CertificateDer<'static>,
    key: &KeyPair,
) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("ring has all of them")
        .with_client_cert_verifier(clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth))
        .with_single_cert(vec![certificate], key)
        .expect("the key belongs to the certificate");
    with_protocols(config, &["http/1.1"])
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has randomness")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
