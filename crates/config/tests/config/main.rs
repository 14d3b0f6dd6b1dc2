//! What a directory of configuration files comes to.
#![allow(clippy::unwrap_used)]

mod arbitrary;
mod changes;
mod diagnostics;
mod half_saved;
mod loading;
mod locating;
mod one_moment;
mod reloading;
mod secrecy;
mod unread;

use std::path::Path;

use aquarium_config::{Config, Errors, Loaded, Memory, load};

/// A signing key.
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A directory whose `aquarium.toml` and `acme.toml` are these, after their `version = 1`.
fn directory(aquarium: &str, acme: &str) -> Memory {
    Memory::new()
        .file("aquarium.toml", format!("version = 1\n{aquarium}"))
        .file("organizations/acme.toml", format!("version = 1\n{acme}"))
        .file("secrets/acme", "correct-horse-battery-staple\n")
        .file("signing-keys/acme", format!("{KEY}\n"))
        .variable("OPS_TOKEN", "Bearer from-the-environment")
}

fn loaded(source: &Memory) -> Loaded {
    load(Path::new(""), source).unwrap_or_else(|errors| panic!("{errors}"))
}

fn config(source: &Memory) -> Config {
    loaded(source).config
}

fn errors(source: &Memory) -> Errors {
    load(Path::new(""), source).unwrap_err()
}
