//! Secrets and keys, as the sender and the receiver read them: what the sender takes, the receiver takes too, and no form of
//! any of them tells what it is.

#![no_main]

use aquarium_config::{Secret, SigningKey};
use aquarium_verify::signature::Keys;
use aquarium_verify::{Secrets, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(secrets) = Secrets::parse(text) {
        let verifier = Verifier::new(secrets);
        let _ = verifier.verify_values([text.as_bytes()]);
        let _ = format!("{verifier:?}");
    }
    let _ = Keys::parse(text);
    if let Ok(secret) = Secret::new(text) {
        let secrets = Secrets::new([secret.expose()]).expect("the receiver takes what the sender does");
        let verified = Verifier::new(secrets).verify_values([secret.expose().as_bytes()]);
        assert!(verified.is_ok());
        assert!(!format!("{secret:?}").contains(text));
    }
    if let Ok(key) = SigningKey::new(text) {
        assert!((SigningKey::MIN..=SigningKey::MAX).contains(&key.expose().len()));
        assert!(Keys::new([text]).is_ok(), "the receiver takes what the sender does");
        assert!(!format!("{key:?}").contains(&text[SigningKey::PREFIX.len()..]));
    }
});
