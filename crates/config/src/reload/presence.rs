//! Whether the directory of the organizations is what it was: pure.
//!
//! A volume that is unmounted leaves an empty directory behind, or whatever it was mounted over. To believe that would remove every
//! webhook, and the ingest would tell apps that their organization does not exist.

use crate::inputs::Presence;

/// Why a directory is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no organization has a file in it any more, and there were {before}")]
    Empty { before: usize },
    #[error("it is on another device than the configuration in force was read from, and differs")]
    OtherDevice,
}

impl Refusal {
    /// What to do about it.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Empty { .. } => {
                "is the volume mounted? if all are to be removed: aquarium-sidecar config reload --allow-empty"
            }
            Self::OtherDevice => {
                "is the right volume mounted? if it is: aquarium-sidecar config reload --allow-empty"
            }
        }
    }
}

/// Why what was `found` cannot be believed without an operator's word, if what is in force was made of `before`.
///
/// A sidecar that was started without organizations may be without them, and takes those of a volume that is mounted later.
pub(super) fn refusal(before: &Presence, found: &Presence) -> Option<Refusal> {
    if before.organizations == 0 {
        return None;
    }
    if found.organizations == 0 {
        return Some(Refusal::Empty { before: before.organizations });
    }
    let other = matches!((before.device, found.device), (Some(before), Some(found)) if before != found);
    other.then_some(Refusal::OtherDevice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_believed_unless_it_was_emptied_or_is_another_one() {
        let presence = |organizations, device| Presence { listed: true, organizations, device };
        let (one, two) = (Some(1), Some(2));
        for (before, found, expected) in [
            (presence(3, one), presence(3, one), None),
            (presence(3, one), presence(1, one), None),
            (presence(3, one), presence(0, one), Some(Refusal::Empty { before: 3 })),
            (presence(3, one), presence(0, two), Some(Refusal::Empty { before: 3 })),
            (presence(3, one), presence(3, two), Some(Refusal::OtherDevice)),
            (presence(3, None), presence(3, two), None),
            (presence(3, one), presence(3, None), None),
            (presence(0, one), presence(0, two), None),
            (presence(0, one), presence(3, two), None),
        ] {
            assert_eq!(refusal(&before, &found), expected, "{before:?} {found:?}");
        }
    }
}
