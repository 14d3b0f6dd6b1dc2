//! Whether anything is sent to a webhook, and why not.

use aquarium_config::Webhook;
use aquarium_queue::Suspension;
use serde::Serialize;
use utoipa::ToSchema;

/// Whether anything is sent to a webhook
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = WebhookStatus)]
pub(super) enum Status {
    /// It gets what it wants
    Active,
    /// `active = false` in the configuration: new events are skipped, what was queued is held
    Inactive,
    /// Its endpoint answered 410 Gone: everything is held
    Suspended,
    /// It is configured no more; what was queued is held
    Removed,
}

impl Status {
    /// Every status, by its name.
    pub(super) const ALL: [(&str, Self); 4] = [
        ("active", Self::Active),
        ("inactive", Self::Inactive),
        ("suspended", Self::Suspended),
        ("removed", Self::Removed),
    ];

    /// The status of a webhook as it is configured, and as the queue knows it.
    pub(super) fn of(configured: Option<&Webhook>, suspension: Option<&Suspension>) -> Self {
        match configured {
            None => Self::Removed,
            Some(webhook) if !webhook.active => Self::Inactive,
            Some(webhook) if in_force(webhook, suspension) => Self::Suspended,
            Some(_) => Self::Active,
        }
    }

    /// Why nothing is sent, and what would change that.
    pub(super) fn held_because(self, suspension: Option<&Suspension>) -> Option<String> {
        Some(match self {
            Self::Active => return None,
            Self::Inactive => "the webhook is not active: its configuration says active = false".to_owned(),
            Self::Suspended => {
                let since = suspension.map(|found| format!(" at {}", found.since)).unwrap_or_default();
                format!("the endpoint answered 410 Gone{since}: resume the webhook, or change its URL")
            }
            Self::Removed => {
                "the webhook is not configured any more: its deliveries are kept until the retention \
                              ends, and go on if it is configured again"
                    .to_owned()
            }
        })
    }
}

/// Another URL is another chance.
fn in_force(webhook: &Webhook, suspension: Option<&Suspension>) -> bool {
    suspension.is_some_and(|suspension| suspension.url == webhook.url.as_str())
}
