//! The address guard: which addresses a connection may go to.
//!
//! Endpoints are chosen by customers, so an endpoint's name may resolve to the operator's own network: a database, a
//! cloud's metadata service, another pod. Everything that the IANA registries list as special-purpose is refused unless
//! the operator allows the network it is in, and so are the forms of IPv6 that carry an IPv4 address.

mod special;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// Decides whether a connection may go to an address.
///
/// ```
/// use aquarium_egress::Guard;
///
/// let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap()]);
/// assert!(guard.check("93.184.215.14".parse().unwrap(), true).is_ok());
/// assert!(guard.check("10.1.2.3".parse().unwrap(), true).is_ok());
/// assert!(guard.check("10.2.0.1".parse().unwrap(), true).is_err());
/// assert!(guard.check("93.184.215.14".parse().unwrap(), false).is_err(), "no secret in clear text");
/// assert!(Guard::new(vec!["0.0.0.0/0".parse().unwrap()]).check("93.184.215.14".parse().unwrap(), false).is_err());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    deny_ports: Vec<u16>,
}

/// The ports of well-known protocols that are not HTTP, which browsers do not connect to either (Fetch Standard, "bad port").
/// What speaks there may take a request for commands of its own.
pub const BAD_PORTS: &[u16] = &[
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
    109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
    526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
    3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// It is special-purpose, and in no allowed network.
    #[error("{address} is {purpose} ({source_of_rule}); list its network in egress.allow to permit it")]
    SpecialPurpose {
        /// The address.
        address: IpAddr,
        /// What it is set aside for.
        purpose: &'static str,
        /// The document that says so.
        source_of_rule: &'static str,
    },
    /// The request is not encrypted, and the address is public: clear text stays within the operator's networks.
    #[error("http:// to {address}, a public address, would send the secret in clear text; use https://")]
    ClearText {
        /// The address.
        address: IpAddr,
    },
    /// It is in a denied network.
    #[error("{address} is in a network of egress.deny")]
    Denied {
        /// The address.
        address: IpAddr,
    },
    /// It is a port of another protocol.
    #[error("port {port} is in egress.deny_ports")]
    DeniedPort {
        /// The port.
        port: u16,
    },
    /// The sidecar itself listens there.
    #[error("{destination} is a listener of this sidecar: a webhook must not lead back to it")]
    OwnListener {
        /// The address and port.
        destination: SocketAddr,
    },
    /// It is a public address of this machine, and in no allowed network.
    #[error("{address} is an address of this machine; list it in egress.allow to permit it")]
    OwnAddress {
        /// The address.
        address: IpAddr,
    },
}

impl Guard {
    /// A guard that lets everything public pass, and what is in `allow`.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow, deny: Vec::new(), deny_ports: BAD_PORTS.to_vec() }
    }

    /// The same, which lets nothing pass that is in `deny`, whatever is allowed.
    #[must_use]
    pub fn denying(self, deny: Vec<IpNet>) -> Self {
        Self { deny, ..self }
    }

    /// The same, which refuses these ports instead of [`BAD_PORTS`].
    #[must_use]
    pub fn denying_ports(self, deny_ports: Vec<u16>) -> Self {
        Self { deny_ports, ..self }
    }

    /// Checks where a connection goes to: `own` are the sidecar's own listeners, which are refused whatever is allowed, and
    /// `is_of_this_machine` tells whether an address is one of the machine's.
    ///
    /// # Errors
    /// [`Blocked`], with the reason.
    pub(crate) fn check_destination(
        &self,
        destination: SocketAddr,
        encrypted: bool,
        own: &[SocketAddr],
        is_of_this_machine: impl Fn(IpAddr) -> bool,
    ) -> Result<(), Blocked> {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let leads_to = |listener: &SocketAddr| {
            let listens = listener.ip().to_canonical();
            // Where nothing else is said, the system takes an unspecified address for the loopback one.
            listener.port() == port
                && (listens == address
                    || (address.is_unspecified() && listens.is_loopback())
                    || (listens.is_unspecified() && (address.is_loopback() || is_of_this_machine(address))))
        };
        if own.iter().any(leads_to) {
            return Err(Blocked::OwnListener { destination: SocketAddr::new(address, port) });
        }
        if self.deny_ports.contains(&port) {
            return Err(Blocked::DeniedPort { port });
        }
        self.check(address, encrypted)?;
        if special::rule(address).is_none() && !self.allows(address) && is_of_this_machine(address) {
            return Err(Blocked::OwnAddress { address });
        }
        Ok(())
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }

    /// Checks an address; `encrypted` tells whether TLS will be spoken.
    ///
    /// # Errors
    /// [`Blocked`], with the reason.
    pub fn check(&self, address: IpAddr, encrypted: bool) -> Result<(), Blocked> {
        let address = address.to_canonical();
        if self.deny.iter().any(|network| network.contains(&address)) {
            return Err(Blocked::Denied { address });
        }
        match special::rule(address) {
            Some(_) if self.allows(address) => Ok(()),
            Some((purpose, source_of_rule)) => {
                Err(Blocked::SpecialPurpose { address, purpose, source_of_rule })
            }
            None if !encrypted => Err(Blocked::ClearText { address }),
            None => Ok(()),
        }
    }
}

/// Whether an address is one of this machine's: only then can a socket be bound to it. Nothing is sent.
pub(crate) fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
