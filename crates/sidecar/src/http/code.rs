//! The codes of problems: what programs tell refusals apart by. Each stays the same from version to version, and is explained in
//! docs/errors.md.

macro_rules! codes {
    ($($name:ident = $text:literal,)*) => {
        /// What is wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($name,)*
            /// Why the bytes of an event were refused: `aquarium_event::Reason::code`.
            Event(&'static str),
        }

        impl Code {
            /// All but those of events.
            #[cfg(test)]
            const ALL: &[&str] = &[$($text,)*];

            /// As it is written.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Event(code) => code,
                }
            }
        }
    };
}

codes! {
    Unauthorized = "unauthorized",
    MalformedHead = "malformed-head",
    HeadTooLarge = "head-too-large",
    InvalidHost = "invalid-host",
    UnknownTransferCoding = "unknown-transfer-coding",
    ForeignHost = "foreign-host",
    ForeignOrigin = "foreign-origin",
    UnknownPath = "unknown-path",
    WrongMethod = "wrong-method",
    UnknownOrganization = "unknown-organization",
    OrganizationUncertain = "organization-uncertain",
    UnknownProject = "unknown-project",
    UnknownWebhook = "unknown-webhook",
    UnknownEvent = "unknown-event",
    UnknownDelivery = "unknown-delivery",
    UnknownReplay = "unknown-replay",
    EventDamaged = "event-damaged",
    UnknownEventType = "unknown-event-type",
    TooSlow = "too-slow",
    TooLarge = "too-large",
    TooManyEvents = "too-many-events",
    TooManyDeliveries = "too-many-deliveries",
    WrongContentType = "wrong-content-type",
    BrokenBody = "broken-body",
    EmptyBody = "empty-body",
    MalformedJson = "malformed-json",
    InvalidBody = "invalid-body",
    InvalidQuery = "invalid-query",
    UnknownParameter = "unknown-parameter",
    UnknownField = "unknown-field",
    InvalidIdempotencyKey = "invalid-idempotency-key",
    IdempotencyConflict = "idempotency-conflict",
    InvalidHops = "invalid-hops",
    LoopDetected = "loop-detected",
    InvalidConfig = "invalid-config",
    TooManyConnections = "too-many-connections",
    Busy = "busy",
    QueueFull = "queue-full",
    QueueUnavailable = "queue-unavailable",
    QueueDamaged = "queue-damaged",
    ReloadUnavailable = "reload-unavailable",
    TooManyTests = "too-many-tests",
    WebhookInactive = "webhook-inactive",
    WebhookSuspended = "webhook-suspended",
    WebhookRemoved = "webhook-removed",
    NotSuspended = "not-suspended",
    NotLogging = "not-logging",
    ReplayOfEverything = "replay-of-everything",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_explained_and_every_explained_code_exists() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let rows = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let is_status = |rest: &str| rest.starts_with(|first: char| ('4'..='5').contains(&first));
        let explained: Vec<_> = rows.filter(|(_, rest)| is_status(rest)).map(|(code, _)| code).collect();
        // The codes of events are the arms of a match.
        let events = include_str!("../../../event/src/refusal.rs");
        let (_, events) = events.split_once("pub fn code(&self) -> &'static str {").unwrap();
        let (events, _) = events.split_once("\n    }\n").unwrap();
        let events = events.split('"').skip(1).step_by(2);
        let known: BTreeSet<_> = Code::ALL.iter().copied().chain(events).collect();
        assert_eq!(explained.iter().copied().collect::<BTreeSet<_>>(), known);
        assert_eq!(explained.len(), known.len(), "each is explained once");
    }
}
