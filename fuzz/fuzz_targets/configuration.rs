//! The configuration: two files, with a zero byte between them. However they are written, all that is wrong with them is
//! told, each with a place in its file.

#![no_main]

use std::path::Path;

use aquarium_config::{Memory, load};
use libfuzzer_sys::fuzz_target;

/// In a file and in a variable that the configuration may refer to.
const SECRETS: [&str; 2] = ["7c3fd06a9b1e48c2", "e40b95d7213f6a8c"];

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

fuzz_target!(|data: &[u8]| {
    let split = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (aquarium, organization) = (&data[..split], data.get(split + 1..).unwrap_or_default());
    let source = Memory::new()
        .file("c/aquarium.toml", aquarium)
        .file("c/organizations/acme.toml", organization)
        .file("c/secret", SECRETS[0])
        .variable("SECRET", SECRETS[1]);
    let diagnostics = match load(Path::new("c"), &source) {
        Ok(loaded) => {
            assert_eq!(loaded.config.organizations.len(), 1);
            loaded.warnings
        }
        Err(errors) => {
            assert!(errors.errors().next().is_some(), "a refusal has a reason");
            errors.diagnostics
        }
    };
    for diagnostic in diagnostics {
        let file = if diagnostic.file.ends_with("aquarium.toml") { aquarium } else { organization };
        if let Some(location) = &diagnostic.location {
            assert!(location.line >= 1 && location.column >= 1);
            assert!(location.span.start <= location.span.end && location.span.end <= file.len());
        }
        let shown = format!("{diagnostic}{}", diagnostic.render(false));
        let is_shown = |secret: &&str| shown.contains(*secret) && !contains(data, secret.as_bytes());
        assert!(!SECRETS.iter().any(is_shown), "a secret is shown");
    }
});
