//! Text that is unlike any other.

/// 40 characters, `0` to `9` and `a` to `f`.
pub(crate) fn text() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
