//! How many connections a listener serves at once, and what becomes of those that come when these are all in use.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::turned_away::TurnedAway;

/// Connections that one listener serves at once, unless there are files for fewer only.
pub(crate) const CONNECTIONS: usize = 1_024;
/// Connections beyond these that are told so at the same time; further ones are closed without a word.
pub(crate) const REFUSED_AT_ONCE: usize = 64;
/// One in so many connections may linger after its last answer.
const LINGERING_SHARE: usize = 4;

/// The room of a listener. Clones are the same room.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    lingering: Arc<Semaphore>,
    turned_away: TurnedAway,
}

/// A connection's place, which it has until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Whether it is served; else it is only told that there is no room.
    pub(super) served: bool,
    lingering: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Leave to keep the connection for a moment after its last answer. `None` if as many as may already do.
    pub(super) fn linger(&self) -> Option<OwnedSemaphorePermit> {
        self.lingering.clone().try_acquire_owned().ok()
    }
}

impl Room {
    /// Room for so many connections.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            refusals: Arc::new(Semaphore::new(REFUSED_AT_ONCE.min(limit))),
            lingering: Arc::new(Semaphore::new((limit / LINGERING_SHARE).max(1))),
            turned_away: TurnedAway::default(),
        }))
    }

    /// How many connections are served at once.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// Whether there is no room, or was none a moment ago.
    pub(crate) fn is_full(&self) -> bool {
        self.0.free.available_permits() == 0 || self.0.turned_away.lately()
    }

    /// A place for one more connection. `None`, if there is not even room to refuse it.
    pub(super) fn enter(&self) -> Option<Place> {
        let place = |served, permit| Place { served, lingering: self.0.lingering.clone(), _permit: permit };
        if let Ok(permit) = self.0.free.clone().try_acquire_owned() {
            return Some(place(true, permit));
        }
        self.0.turned_away.note();
        let permit = self.0.refusals.clone().try_acquire_owned().ok()?;
        Some(place(false, permit))
    }

    /// Whether it is time to tell that connections are turned away.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.0.turned_away.is_to_be_logged()
    }
}

#[cfg(test)]
mod tests {
    use super::super::turned_away::{REMEMBERED, TOLD_AGAIN};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_is_told_so_if_there_is_room_for_that() {
        let room = Room::new(2);
        assert!(!room.is_full());
        let served = |place: &Option<Place>| place.as_ref().map(|place| place.served);
        let (first, second) = (room.enter(), room.enter());
        assert_eq!((served(&first), served(&second)), (Some(true), Some(true)));
        assert!(room.is_full(), "nobody was turned away yet, but the next one would be");
        let refused = [room.enter(), room.enter(), room.enter()];
        assert_eq!(refused.each_ref().map(served), [Some(false), Some(false), None]);
        assert!(room.is_to_be_told() && !room.is_to_be_told());
        drop((first, refused));
        assert!(room.is_full(), "a probe that comes now still learns of it");
        tokio::time::advance(REMEMBERED).await;
        assert!(!room.is_full());
        assert_eq!(served(&room.enter()), Some(true));
        tokio::time::advance(TOLD_AGAIN).await;
        assert!(room.is_to_be_told());
        drop(second);
    }
}
