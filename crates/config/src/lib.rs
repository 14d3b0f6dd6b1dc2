//! From a directory of TOML files to a validated [`Config`], and what changed between two of them.
//!
//! [`load`] reads `aquarium.toml` and `organizations/*.toml`. It is a pure function of a [`Source`] and reports all
//! that is wrong with all files at once, each [`Diagnostic`] with file, line and column. A configuration is used as a
//! whole or not at all. [`diff`] tells what changed, so that what did not change can be left alone.
//!
//! [`secret_file`] tells where the secret or the signing key of one organization belongs, which is needed before there
//! is one.
//!
//! Secrets and keys are never part of a configuration file. They are read from the files and variables that it names, and
//! never appear in a diagnostic, a diff or a `Debug` form; neither do the values of headers.
//!
//! ```
//! use std::path::Path;
//! use aquarium_config::{Memory, diff, load};
//!
//! let source = Memory::new()
//!     .file("config/aquarium.toml", "version = 1")
//!     .file("config/secrets/acme", "correct-horse-battery-staple\n")
//!     .file("config/organizations/acme.toml", r#"
//!         version = 1
//!         secret = { file = "../secrets/acme" }
//!
//!         [projects.urban-driving.webhooks.ops]
//!         url = "https://ops.example.com/hooks"
//!         events = ["dataset-complete", "dataset-failed"]
//!     "#);
//! let old = load(Path::new("config"), &source)?.config;
//! let ops = old.webhook(&"acme/urban-driving/ops".parse()?).unwrap();
//! assert_eq!(ops.url.host_str(), Some("ops.example.com"));
//!
//! let source = source.file("config/secrets/acme", "another-secret-that-is-as-long\n");
//! let new = load(Path::new("config"), &source)?.config;
//! assert_eq!(diff(&old, &new).to_string(), "acme: secret replaced");
//!
//! let source = source.file("config/aquarium.toml", "version = 1\n[delivery]\ntimeuot = \"5s\"\n");
//! let errors = load(Path::new("config"), &source).unwrap_err();
//! assert!(errors.to_string().starts_with(
//!     r#"config/aquarium.toml:3:1: unknown key "timeuot"; did you mean "timeout"? accepted: timeout, "#
//! ));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod aquarium;
mod delivery;
mod diagnostic;
mod diff;
mod document;
mod endpoint;
mod findings;
mod headers;
mod inputs;
mod load;
mod locate;
mod organization;
mod reader;
pub mod reload;
mod secret;
mod signing_key;
mod source;
mod strays;
mod succession;
mod syntax;
mod tls;
mod traces;
mod types;
mod value;
mod webhook;

pub use diagnostic::{Diagnostic, Location, Severity};
pub use diff::{Change, ChangedWebhook, Diff, SecretChange, diff};
pub use inputs::{Digest, Fingerprint, Inputs};
pub use load::{Errors, Loaded, load, load_at_rest};
pub use locate::{NoSecretFile, secret_file};
pub use secret::{InvalidSecret, Secret, SecretKind};
pub use signing_key::{InvalidSigningKey, SigningKey};
pub use source::{Entry, Fs, Memory, Source};
pub use tls::{ClientCertificate, Pem, PrivateKey, Tls};
pub use types::{
    Admin, Config, Egress, Engine, Header, Ingest, Listen, Organization, Project, Queue, Roots, Subscription,
    TraceExport, Traces, Webhook,
};
