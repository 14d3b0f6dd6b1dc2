//! What is special about a webhook's TLS sessions.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;
use zeroize::Zeroizing;

use crate::diagnostic::quote;
use crate::document::{Table, Value};
use crate::findings::Problem;
use crate::reader::{MAX_FILE, Scope};
use crate::secret::{path, referred};

/// In what a webhook's TLS sessions differ from those of others; by default in nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authority that its endpoint is trusted by; none, if those of `egress.roots` are.
    pub ca: Option<Pem>,
    /// What its endpoint is shown when it asks who is calling.
    pub client: Option<ClientCertificate>,
}

/// Certificates in a PEM file, at least one. They were not parsed.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The file.
    pub path: PathBuf,
    /// What was in it when the configuration was read.
    pub pem: Arc<[u8]>,
}

/// A certificate, with those between it and its authority, and its key. They were not parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate first.
    pub chain: Pem,
    /// The private key.
    pub key: PrivateKey,
}

/// A private key in PEM form. Its [`Debug`](fmt::Debug) form tells nothing, and its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<String>);

impl PrivateKey {
    /// The key in clear text. Keep it out of logs, errors and answers.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The `tls` of a webhook with this URL.
pub(crate) fn tls(value: Value<'_, '_>, url: Option<&Url>, scope: Scope<'_>) -> Option<Tls> {
    if url.is_some_and(|url| url.scheme() != "https") {
        value.report(value.problem("\"tls\" has no meaning here: the URL does not start with https://"));
    }
    let mut table = value.into_table()?;
    let ca = table.take("ca").and_then(|value| certificates(value, scope));
    let client = client(&mut table, scope);
    table.finish();
    Some(Tls { ca, client })
}

fn client(table: &mut Table<'_, '_>, scope: Scope<'_>) -> Option<ClientCertificate> {
    let (certificate, key) = (table.take("certificate"), table.take("key"));
    match (&certificate, &key) {
        (Some(_), None) => table.missing("key", "{ file = \"…\" }, { env = \"…\" }"),
        (None, Some(_)) => table.missing("certificate", "{ file = \"…\" }"),
        _ => {}
    }
    let chain = certificate.and_then(|value| certificates(value, scope));
    let key = key.and_then(|value| private_key(value, scope));
    Some(ClientCertificate { chain: chain?, key: key? })
}

/// The certificates that a `{ file = … }` refers to.
fn certificates(value: Value<'_, '_>, scope: Scope<'_>) -> Option<Pem> {
    let mut table = value.into_table()?;
    let file = table.take("file");
    if file.is_none() {
        table.missing("file", "the path of a PEM file");
    }
    table.finish();
    read_certificates(&file?, scope)
}

/// The certificates in the file that a value names.
pub(crate) fn read_certificates(file: &Value<'_, '_>, scope: Scope<'_>) -> Option<Pem> {
    const HEADER: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let path = path(file, scope)?;
    let shown = quote(&path.to_string_lossy());
    let pem = match scope.reader.read(&path, MAX_FILE) {
        Ok(pem) => pem,
        Err(error) => {
            file.report(file.problem(format!("cannot read file {shown}: {error}")));
            return None;
        }
    };
    if !pem.windows(HEADER.len()).any(|window| window == HEADER) {
        let message = format!("file {shown} holds no certificate");
        file.report(file.problem(message).accepted("PEM: -----BEGIN CERTIFICATE-----"));
        return None;
    }
    Some(Pem { path, pem: pem.as_slice().into() })
}

/// The private key that a `{ file = … }` or `{ env = … }` refers to.
fn private_key(value: Value<'_, '_>, scope: Scope<'_>) -> Option<PrivateKey> {
    const ACCEPTED: &str = "PEM: -----BEGIN PRIVATE KEY-----, or that of an RSA or EC key";
    let findings = value.findings;
    let referred = referred(value, scope)?;
    let wrong = if referred.text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        "holds a private key that is encrypted, which nobody could decrypt at a restart"
    } else if !referred.text.contains("PRIVATE KEY-----") {
        "holds no private key"
    } else {
        return Some(PrivateKey(referred.text));
    };
    findings.add(Problem::error(referred.span, format!("{} {wrong}", referred.origin)).accepted(ACCEPTED));
    None
}
