//! The address guard: which addresses a connection may go to.
//!
//! Endpoints are chosen by customers, so an endpoint's name may resolve to the operator's own network: a database, a
//! cloud's metadata service, another pod. Everything that the IANA registries list as special-purpose is refused unless
//! the operator allows the network it is in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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
        let special = match address {
            IpAddr::V4(address) => {
                SPECIAL_V4.iter().find(|(network, ..)| network.contains(&address)).map(rule)
            }
            IpAddr::V6(address) => {
                SPECIAL_V6.iter().find(|(network, ..)| network.contains(&address)).map(rule)
            }
        };
        match special {
            Some((purpose, source_of_rule)) => {
                Err(Blocked::SpecialPurpose { address, purpose, source_of_rule })
            }
            None if !encrypted => Err(Blocked::ClearText { address }),
            None => Ok(()),
        }
    }
}

type Rule<N> = (N, &'static str, &'static str);

fn rule<N>((_, purpose, source): &Rule<N>) -> (&'static str, &'static str) {
    (purpose, source)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, 0), prefix)
}

/// The IANA IPv4 Special-Purpose Address Registry, and multicast.
const SPECIAL_V4: &[Rule<Ipv4Net>] = &[
    (v4(0, 0, 0, 0, 8), "\"this network\"", "RFC 791"),
    (v4(10, 0, 0, 0, 8), "private", "RFC 1918"),
    (v4(100, 64, 0, 0, 10), "shared address space", "RFC 6598"),
    (v4(127, 0, 0, 0, 8), "loopback", "RFC 1122"),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds serve metadata", "RFC 3927"),
    (v4(172, 16, 0, 0, 12), "private", "RFC 1918"),
    (v4(192, 0, 0, 0, 24), "set aside for protocol assignments", "RFC 6890"),
    (v4(192, 0, 2, 0, 24), "documentation", "RFC 5737"),
    (v4(192, 31, 196, 0, 24), "AS112", "RFC 7535"),
    (v4(192, 52, 193, 0, 24), "AMT", "RFC 7450"),
    (v4(192, 88, 99, 0, 24), "6to4 relay anycast", "RFC 7526"),
    (v4(192, 168, 0, 0, 16), "private", "RFC 1918"),
    (v4(192, 175, 48, 0, 24), "AS112", "RFC 7534"),
    (v4(198, 18, 0, 0, 15), "benchmarking", "RFC 2544"),
    (v4(198, 51, 100, 0, 24), "documentation", "RFC 5737"),
    (v4(203, 0, 113, 0, 24), "documentation", "RFC 5737"),
    (v4(224, 0, 0, 0, 4), "multicast", "RFC 5771"),
    (v4(240, 0, 0, 0, 4), "reserved", "RFC 1112"),
];

/// The IANA IPv6 Special-Purpose Address Registry, multicast, and the forms that carry an IPv4 address. Everything
/// outside the global unicast block 2000::/3 is refused by the last rules.
const SPECIAL_V6: &[Rule<Ipv6Net>] = &[
    (v6([0x64, 0xff9b, 0, 0], 96), "translated IPv4 (NAT64)", "RFC 6052"),
    (v6([0x64, 0xff9b, 1, 0], 48), "translated IPv4 (local NAT64)", "RFC 8215"),
    (v6([0x100, 0, 0, 0], 64), "discard-only", "RFC 6666"),
    (v6([0x100, 0, 0, 1], 64), "a dummy prefix", "RFC 9780"),
    (v6([0x2001, 0, 0, 0], 23), "set aside for protocol assignments, Teredo among them", "RFC 2928"),
    (v6([0x2001, 0xdb8, 0, 0], 32), "documentation", "RFC 3849"),
    (v6([0x2002, 0, 0, 0], 16), "6to4", "RFC 3056"),
    (v6([0x2620, 0x4f, 0x8000, 0], 48), "AS112", "RFC 7534"),
    (v6([0x3fff, 0, 0, 0], 20), "documentation", "RFC 9637"),
    (v6([0x5f00, 0, 0, 0], 16), "segment routing", "RFC 9602"),
    (v6([0xfc00, 0, 0, 0], 7), "unique local", "RFC 4193"),
    (v6([0xfe80, 0, 0, 0], 10), "link-local", "RFC 4291"),
    (v6([0xff00, 0, 0, 0], 8), "multicast", "RFC 4291"),
    (v6([0, 0, 0, 0], 3), "not global unicast", "RFC 4291"),
    (v6([0x4000, 0, 0, 0], 2), "not global unicast", "RFC 4291"),
    (v6([0x8000, 0, 0, 0], 1), "not global unicast", "RFC 4291"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_refused_in_every_disguise() {
        let guard = Guard::default();
        for (address, source) in [
            ("127.0.0.1", "RFC 1122"),
            ("::ffff:127.0.0.1", "RFC 1122"),
            ("10.0.0.1", "RFC 1918"),
            ("169.254.169.254", "RFC 3927"),
            ("100.64.0.1", "RFC 6598"),
            ("255.255.255.255", "RFC 1112"),
            ("0.0.0.0", "RFC 791"),
            ("::1", "RFC 4291"),
            ("::", "RFC 4291"),
            ("::127.0.0.1", "RFC 4291"),
            ("64:ff9b::7f00:1", "RFC 6052"),
            ("64:ff9b:1::a00:1", "RFC 8215"),
            ("2002:7f00:1::", "RFC 3056"),
            ("2001:0:1::", "RFC 2928"),
            ("fd00:ec2::254", "RFC 4193"),
            ("fe80::1", "RFC 4291"),
            ("5f00::1", "RFC 9602"),
            ("3fff:fff::1", "RFC 9637"),
        ] {
            match guard.check(address.parse().unwrap(), true) {
                Err(Blocked::SpecialPurpose { source_of_rule, .. }) => {
                    assert_eq!(source_of_rule, source, "{address}")
                }
                other => panic!("{address}: {other:?}"),
            }
        }
        for address in ["1.1.1.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450::1", "3ffe::1"] {
            assert_eq!(guard.check(address.parse().unwrap(), true), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_allowed_network_is_allowed_in_its_mapped_form_and_in_clear_text_too() {
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
        for address in ["127.0.0.1", "::ffff:127.9.9.9"] {
            assert_eq!(guard.check(address.parse().unwrap(), false), Ok(()), "{address}");
        }
        assert!(guard.check("::1".parse().unwrap(), true).is_err(), "only what is listed");
        let clear = guard.check("1.1.1.1".parse().unwrap(), false);
        assert!(matches!(clear, Err(Blocked::ClearText { .. })), "{clear:?}");
    }
}
