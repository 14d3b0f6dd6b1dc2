//! What figures have to be, and whether they are.

use serde_json::{Value, json};

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    /// At least the first; the second is better than what was asked for.
    AtLeast(f64, f64),
    /// At most.
    AtMost(f64, f64),
}

/// A figure, and what it has to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) wanted: Wanted,
}

impl Verdict {
    fn judgement(&self) -> &'static str {
        let (met, beyond) = match self.wanted {
            Wanted::AtLeast(target, beyond) => (self.value >= target, self.value >= beyond),
            Wanted::AtMost(target, beyond) => (self.value <= target, self.value <= beyond),
        };
        match (met, beyond) {
            (_, true) => "beyond",
            (true, false) => "met",
            (false, false) => "MISSED",
        }
    }

    fn bounds(&self) -> (&'static str, f64, f64) {
        match self.wanted {
            Wanted::AtLeast(target, beyond) => ("≥", target, beyond),
            Wanted::AtMost(target, beyond) => ("≤", target, beyond),
        }
    }

    pub(super) fn json(&self) -> Value {
        let (sign, target, beyond) = self.bounds();
        json!({
            "what": self.what, "value": self.value, "sign": sign, "target": target, "beyond": beyond,
            "judgement": self.judgement(),
        })
    }
}

/// The lines of a table of verdicts, its head first.
pub(crate) fn table(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let head = ["targets", "measured", "target", "beyond", "is"].map(str::to_owned).to_vec();
    let line = |verdict: &Verdict| {
        let (sign, target, beyond) = verdict.bounds();
        vec![
            verdict.what.to_owned(),
            super::figure_text(verdict.value),
            format!("{sign} {target}"),
            format!("{sign} {beyond}"),
            verdict.judgement().to_owned(),
        ]
    };
    std::iter::once(head).chain(verdicts.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_when_it_is_reached() {
        let judge = |value, wanted| Verdict { what: "", value, wanted }.judgement();
        let least = Wanted::AtLeast(0.5, 0.8);
        assert_eq!([0.49, 0.5, 0.8].map(|value| judge(value, least)), ["MISSED", "met", "beyond"]);
        let most = Wanted::AtMost(2.0, 1.4);
        assert_eq!([2.01, 2.0, 1.4].map(|value| judge(value, most)), ["MISSED", "met", "beyond"]);
        assert_eq!(judge(f64::NAN, least), "MISSED");
    }
}
