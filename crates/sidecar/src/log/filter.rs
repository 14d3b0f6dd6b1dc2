//! Reads a log filter. The fuzz target `log_filter` includes this file, so it uses nothing else of the crate.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Reads directives with commas between them, such as `info,aquarium_queue=debug`.
///
/// `EnvFilter` looks for the parts of a directive without the white space around it, and cuts them from the directive with
/// it: after `", "` a target loses its last letter, and a character of several bytes is a panic. So there must be none.
pub(crate) fn parse(filter: &str) -> Result<EnvFilter, ParseError> {
    let directives: Vec<&str> = filter.split(',').map(str::trim).collect();
    EnvFilter::builder().with_regex(false).parse(directives.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_directives_changes_nothing() {
        for (written, meant) in [
            ("info, aquarium_queue=debug", "info,aquarium_queue=debug"),
            (" aquarium_queue = debug", "aquarium_queue = debug"),
            ("\tinfo ,\u{2003}hyper=off\n", "info,hyper=off"),
            (" [send{id=1}]=trace", "[send{id=1}]=trace"),
        ] {
            let [written, meant] =
                [written, meant].map(|filter| parse(filter).map(|found| found.to_string()));
            assert_eq!(written.ok(), meant.ok());
        }
        let found = parse("info, aquarium_queue=debug").map(|filter| filter.to_string());
        assert!(found.is_ok_and(|found| found.contains("aquarium_queue=debug")));
    }

    #[test]
    fn a_filter_that_is_not_ascii_is_read_or_refused() {
        for filter in [" \u{a3cf}=", "info,\u{a0}\u{a3cf}[", " \u{a3cf},", "\u{a3cf}=info", " é=é"] {
            let _ = parse(filter);
        }
    }
}
