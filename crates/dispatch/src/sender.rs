//! What a lane needs of the way out.

use std::future::Future;

use aquarium_egress::{Egress, Endpoint, Message, Sent};

/// Makes one attempt. [`Egress`] does it for real; tests in virtual time bring their own.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Sends the message, and says what it came to. Ends by the endpoint's timeout.
    fn send(&self, endpoint: &Endpoint, message: Message) -> impl Future<Output = Sent> + Send;
}

impl Sender for Egress {
    fn send(&self, endpoint: &Endpoint, message: Message) -> impl Future<Output = Sent> + Send {
        Egress::send(self, endpoint, message)
    }
}
