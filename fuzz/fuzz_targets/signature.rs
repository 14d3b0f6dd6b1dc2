//! The headers of a signed call, a line each, and its body after them: what is accepted is what the sender of these keys
//! would sign.

#![no_main]

use std::time::{Duration, SystemTime};

use aquarium_verify::signature::{Keys, Verifier};
use libfuzzer_sys::fuzz_target;

const KEYS: [&str; 2] = ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
/// The corpus has calls that were signed at this time, in seconds.
const NOW: u64 = 1_674_087_231;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (id, timestamp, signatures, body) = (line(), line(), line(), line());
    let keys = Keys::new(KEYS).expect("keys");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let values = |name: &'static str| {
        Some(match name {
            "webhook-id" => id,
            "webhook-timestamp" => timestamp,
            _ => signatures,
        })
    };
    let Ok(mut check) = Verifier::new(keys.clone()).begin_values(values, now) else { return };
    let (one, other) = body.split_at(body.len() / 2);
    check.update(one);
    check.update(other);
    if let Ok(signed) = check.finish() {
        let genuine = keys.sign(&signed.id, signed.timestamp, body).expect("an id that was accepted");
        let presented = String::from_utf8_lossy(signatures);
        assert!(genuine.split(' ').any(|signature| presented.contains(signature)));
        assert!(signed.timestamp.abs_diff(NOW) <= Verifier::TOLERANCE.as_secs());
    }
});
