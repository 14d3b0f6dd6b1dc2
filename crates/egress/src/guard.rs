//! The address guard: which addresses a connection may go to.
//!
//! Endpoints are chosen by customers, so an endpoint's name may resolve to the operator's own network: a database, a
//! cloud's metadata service, another pod. Everything that the IANA registries list as special-purpose is refused unless
//! the operator allows the network it is in, and so are the forms of IPv6 that carry an IPv4 address.

mod special;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

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
/// ```
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow: Vec<IpNet>,
}

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
    /// The request is not encrypted, and the address is in no allowed network.
    #[error(
        "http:// to {address} would send the secret in clear text; use https://, or list its network in egress.allow"
    )]
    ClearText {
        /// The address.
        address: IpAddr,
    },
}

impl Guard {
    /// A guard that lets everything public pass, and what is in `allow`.
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow }
    }

    /// Checks an address; `encrypted` tells whether TLS will be spoken.
    ///
    /// # Errors
    /// [`Blocked`], with the reason.
    pub fn check(&self, address: IpAddr, encrypted: bool) -> Result<(), Blocked> {
        let address = address.to_canonical();
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let special = special::rule(address);
        match special {
            Some((purpose, source_of_rule)) => {
                Err(Blocked::SpecialPurpose { address, purpose, source_of_rule })
            }
            None if !encrypted => Err(Blocked::ClearText { address }),
            None => Ok(()),
        }
    }
}
