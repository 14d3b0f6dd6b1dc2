//! The verification of an endpoint's certificate, with reasons that an operator can act on.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{shown, summary};

/// The most names of a certificate that are told.
const MOST_NAMES: usize = 5;

/// Why a certificate is not accepted, with what it says about itself.
#[derive(Debug, thiserror::Error)]
#[error("{why} ({about})")]
struct Untrusted {
    why: String,
    about: String,
}

/// Decides as the verifier of rustls does.
#[derive(Debug)]
pub(super) struct Verifier(Arc<WebPkiServerVerifier>);

impl Verifier {
    pub(super) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let built = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        built.map(Self).map_err(|error| Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(error) => explained(&error, end_entity),
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn explained(error: &CertificateError, certificate: &CertificateDer<'_>) -> Error {
    use CertificateError as Why;
    let why = match error {
        Why::Expired | Why::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        Why::NotValidYet | Why::NotValidYetContext { .. } => "the certificate is not valid yet".to_owned(),
        Why::UnknownIssuer => "the certificate's issuer is not trusted".to_owned(),
        Why::NotValidForNameContext { expected, presented } => {
            let more = if presented.len() > MOST_NAMES { ", …" } else { "" };
            let names: Vec<_> = presented.iter().take(MOST_NAMES).map(|name| shown(name)).collect();
            let names = if names.is_empty() { "no host at all".to_owned() } else { names.join(", ") };
            format!("the certificate is not for {}, but for {names}{more}", expected.to_str())
        }
        error => format!("the certificate is not accepted: {error}"),
    };
    let about =
        summary(certificate).map_or_else(|| "it cannot be read".to_owned(), |summary| summary.to_string());
    let untrusted = Untrusted { why, about };
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted))))
}
