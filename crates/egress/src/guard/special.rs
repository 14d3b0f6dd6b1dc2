//! Addresses that are not for the public, as a table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// A network, what it is set aside for, and the document that says so.
type Rule<N> = (N, &'static str, &'static str);

/// What an address is set aside for, and by which document; none, if it is public.
pub(super) fn rule(address: IpAddr) -> Option<(&'static str, &'static str)> {
    match address {
        IpAddr::V4(v4) => first(V4, |network| network.contains(&v4)),
        // It is the IPv4 address behind it that counts. What passes here has to be public: nothing else may be written
        // in this form (RFC 6052, section 3.1).
        IpAddr::V6(v6) if NAT64.0.contains(&v6) => {
            let [.., a, b, c, d] = v6.octets();
            rule(IpAddr::from([a, b, c, d])).map(|_| (NAT64.1, NAT64.2))
        }
        IpAddr::V6(v6) => {
            first(V6, |network| network.contains(&v6)).or_else(|| is_isatap(v6).then_some(ISATAP))
        }
    }
}

/// Whether the last 64 bits say that packets are to be tunnelled to an IPv4 address (RFC 5214, section 6.1).
fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [.., 0 | 0x200, 0x5efe, _, _])
}

const ISATAP: (&str, &str) = ("an IPv4 address to tunnel to (ISATAP)", "RFC 5214");

fn first<N>(rules: &[Rule<N>], contains: impl Fn(&N) -> bool) -> Option<(&'static str, &'static str)> {
    let (_, purpose, source) = rules.iter().find(|(network, ..)| contains(network))?;
    Some((purpose, source))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, 0), prefix)
}

/// IPv4 behind a translator, in the prefix that is the same everywhere. Where there is no IPv4 (DNS64), names lead here.
const NAT64: Rule<Ipv6Net> =
    (v6([0x64, 0xff9b, 0, 0], 96), "a special-purpose IPv4 address, translated (NAT64)", "RFC 6052");

/// The IANA IPv4 Special-Purpose Address Registry, multicast, and what a cloud serves metadata at outside of it.
const V4: &[Rule<Ipv4Net>] = &[
    (v4(0, 0, 0, 0, 8), "\"this network\"", "RFC 791"),
    (v4(10, 0, 0, 0, 8), "private", "RFC 1918"),
    (v4(100, 64, 0, 0, 10), "shared address space", "RFC 6598"),
    (v4(127, 0, 0, 0, 8), "loopback", "RFC 1122"),
    (
        v4(168, 63, 129, 16, 32),
        "the host of a virtual machine, for metadata",
        "Azure: IP address 168.63.129.16",
    ),
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
/// outside the global unicast block 2000::/3 is refused by the last rules, IPv4-compatible (::/96) and IPv4-translated
/// (::ffff:0:0:0/96) addresses among it. IPv4-mapped ones have been taken for what they are before.
const V6: &[Rule<Ipv6Net>] = &[
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
    (v6([0xfec0, 0, 0, 0], 10), "site-local", "RFC 3879"),
    (v6([0xff00, 0, 0, 0], 8), "multicast", "RFC 4291"),
    (v6([0, 0, 0, 0], 3), "not global unicast", "RFC 4291"),
    (v6([0x4000, 0, 0, 0], 2), "not global unicast", "RFC 4291"),
    (v6([0x8000, 0, 0, 0], 1), "not global unicast", "RFC 4291"),
];
