//! Names: `organization/project/webhook` is a webhook's identity.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name of an organization, a project or a webhook, in bytes.
pub const MAX_NAME: usize = 128;

/// `organization/project/webhook`: what a webhook is known by. Its URL may change, its queue stays.
///
/// Cheap to clone and to compare with itself: the three parts share one allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookName(Arc<str>);

impl WebhookName {
    /// The name made of its three parts.
    ///
    /// # Errors
    /// The first part that [`check_name`] refuses.
    pub fn new(organization: &str, project: &str, webhook: &str) -> Result<WebhookName, InvalidName> {
        for part in [organization, project, webhook] {
            check_name(part)?;
        }
        Ok(WebhookName(format!("{organization}/{project}/{webhook}").into()))
    }

    /// The whole name, with its slashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The organization that owns the webhook.
    pub fn organization(&self) -> &str {
        self.part(0)
    }

    /// The project whose events the webhook gets.
    pub fn project(&self) -> &str {
        self.part(1)
    }

    /// The webhook's own name within its project.
    pub fn webhook(&self) -> &str {
        self.part(2)
    }

    fn part(&self, index: usize) -> &str {
        self.0.splitn(3, '/').nth(index).unwrap_or_default()
    }
}

/// Checks a name of an organization, a project or a webhook: 1 to [`MAX_NAME`] bytes without a slash, a control
/// character, or white space at either end.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        Err(InvalidName::Empty)
    } else if name.len() > MAX_NAME {
        Err(InvalidName::TooLong { length: name.len() })
    } else if let Some(found) = name.chars().find(|c| *c == '/' || c.is_control()) {
        Err(InvalidName::Character { found })
    } else if name.trim() != name {
        Err(InvalidName::Space)
    } else {
        Ok(())
    }
}

impl fmt::Display for WebhookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WebhookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WebhookName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(organization), Some(project), Some(webhook), None) => {
                WebhookName::new(organization, project, webhook)
            }
            _ => Err(InvalidName::Parts),
        }
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// There is nothing in it.
    #[error("a name cannot be empty")]
    Empty,
    /// It is longer than [`MAX_NAME`].
    #[error("a name has at most {MAX_NAME} bytes, this one has {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It holds a slash or a control character.
    #[error("a name cannot hold {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
    /// It starts or ends with white space.
    #[error("a name cannot start or end with white space")]
    Space,
    /// It has not three parts.
    #[error("a webhook is named by organization/project/webhook")]
    Parts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_three_parts_that_read_back() {
        let name: WebhookName = "acme/urban driving/ops".parse().unwrap();
        assert_eq!((name.organization(), name.project(), name.webhook()), ("acme", "urban driving", "ops"));
        assert_eq!(name.to_string(), "acme/urban driving/ops");
    }

    #[test]
    fn what_could_not_be_told_apart_is_refused() {
        for (text, why) in [
            ("acme/ops", InvalidName::Parts),
            ("a/b/c/d", InvalidName::Parts),
            ("a//c", InvalidName::Empty),
            ("a/ b/c", InvalidName::Space),
            ("a/b\n/c", InvalidName::Character { found: '\n' }),
        ] {
            assert_eq!(text.parse::<WebhookName>(), Err(why), "{text:?}");
        }
        assert_eq!(check_name(&"x".repeat(129)), Err(InvalidName::TooLong { length: 129 }));
    }
}
