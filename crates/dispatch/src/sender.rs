//! What a lane needs of the way out.

use std::future::Future;

use aquarium_egress::{Egress, Endpoint, Message, Sent};

/// Makes one attempt. [`Egress`] does it for real; tests in virtual time bring their own.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Sends the message, and says what it came to. Ends by the endpoint's timeout.
    ///
    /// `None` if `revoked` completed before the request was handed to a connection: nothing of it has left. On every
    /// poll `revoked` is polled first, so that nothing is handed over once it has completed. After the hand-over the
    /// attempt ends as if it had not been there.
    fn send(
        &self,
        endpoint: &Endpoint,
        message: Message,
        revoked: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Option<Sent>> + Send;
}

impl Sender for Egress {
    fn send(
        &self,
        endpoint: &Endpoint,
        message: Message,
        revoked: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = Option<Sent>> + Send {
        Egress::send(self, endpoint, message, revoked)
    }
}
