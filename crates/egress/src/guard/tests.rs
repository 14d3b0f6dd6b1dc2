use super::*;
use crate::endpoint::{Endpoint, Host, InvalidEndpoint};

/// Addresses that nothing goes to, with the document that sets them aside: the first and the last of each block, and
/// the disguises.
const BLOCKED: &[(&str, &str)] = &[
    // The IANA IPv4 Special-Purpose Address Registry.
    ("0.0.0.0", "RFC 791"),
    ("0.0.0.1", "RFC 791"),
    ("0.255.255.255", "RFC 791"),
    ("10.0.0.0", "RFC 1918"),
    ("10.0.0.1", "RFC 1918"),
    ("10.255.255.255", "RFC 1918"),
    ("100.64.0.0", "RFC 6598"),
    ("100.100.100.200", "RFC 6598"), // metadata of Alibaba Cloud
    ("100.127.255.255", "RFC 6598"),
    ("127.0.0.0", "RFC 1122"),
    ("127.0.0.1", "RFC 1122"),
    ("127.1.2.3", "RFC 1122"),
    ("127.255.255.255", "RFC 1122"),
    ("169.254.0.0", "RFC 3927"),
    ("169.254.169.254", "RFC 3927"), // metadata of AWS, Google Cloud, Azure, OpenStack
    ("169.254.170.2", "RFC 3927"),   // credentials of AWS ECS
    ("169.254.170.23", "RFC 3927"),  // credentials of AWS EKS
    ("169.254.255.255", "RFC 3927"),
    ("172.16.0.0", "RFC 1918"),
    ("172.20.1.1", "RFC 1918"),
    ("172.31.255.255", "RFC 1918"),
    ("192.0.0.0", "RFC 6890"),
    ("192.0.0.8", "RFC 6890"),
    ("192.0.0.9", "RFC 6890"),
    ("192.0.0.10", "RFC 6890"),
    ("192.0.0.170", "RFC 6890"),
    ("192.0.0.192", "RFC 6890"), // metadata of Oracle Cloud
    ("192.0.0.255", "RFC 6890"),
    ("192.0.2.0", "RFC 5737"),
    ("192.0.2.255", "RFC 5737"),
    ("192.31.196.0", "RFC 7535"),
    ("192.31.196.255", "RFC 7535"),
    ("192.52.193.0", "RFC 7450"),
    ("192.52.193.255", "RFC 7450"),
    ("192.88.99.0", "RFC 7526"),
    ("192.88.99.2", "RFC 7526"),
    ("192.88.99.255", "RFC 7526"),
    ("192.168.0.0", "RFC 1918"),
    ("192.168.1.1", "RFC 1918"),
    ("192.168.255.255", "RFC 1918"),
    ("192.175.48.0", "RFC 7534"),
    ("192.175.48.255", "RFC 7534"),
    ("198.18.0.0", "RFC 2544"),
    ("198.19.255.255", "RFC 2544"),
    ("198.51.100.0", "RFC 5737"),
    ("198.51.100.255", "RFC 5737"),
    ("203.0.113.0", "RFC 5737"),
    ("203.0.113.255", "RFC 5737"),
    ("224.0.0.1", "RFC 5771"),
    ("239.255.255.255", "RFC 5771"),
    ("240.0.0.0", "RFC 1112"),
    ("255.255.255.254", "RFC 1112"),
    ("255.255.255.255", "RFC 1112"),
    ("168.63.129.16", "Azure: IP address 168.63.129.16"),
    // IPv4-mapped, which are IPv4 on the wire (RFC 4291, section 2.5.5.2).
    ("::ffff:0.0.0.0", "RFC 791"),
    ("::ffff:127.0.0.1", "RFC 1122"),
    ("::ffff:7f00:1", "RFC 1122"),
    ("0:0:0:0:0:ffff:a00:1", "RFC 1918"),
    ("::ffff:169.254.169.254", "RFC 3927"),
    ("::ffff:a9fe:a9fe", "RFC 3927"),
    ("::ffff:192.168.0.1", "RFC 1918"),
    ("::ffff:255.255.255.255", "RFC 1112"),
    // Translated by NAT64: what is behind counts.
    ("64:ff9b::7f00:1", "RFC 6052"),
    ("64:ff9b::127.0.0.1", "RFC 6052"),
    ("64:ff9b::a9fe:a9fe", "RFC 6052"),
    ("64:ff9b::10.0.0.1", "RFC 6052"),
    ("64:ff9b::192.168.1.1", "RFC 6052"),
    ("64:ff9b::", "RFC 6052"),
    ("64:ff9b::ffff:ffff", "RFC 6052"),
    ("64:ff9b:1::", "RFC 8215"),
    ("64:ff9b:1::a00:1", "RFC 8215"),
    ("64:ff9b:1::808:808", "RFC 8215"),
    ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "RFC 8215"),
    // The prefix of 96 bits and no other one: the next is nobody's.
    ("64:ff9b:0:1::808:808", "RFC 4291"),
    ("64:ff9b::1:808:808", "RFC 4291"),
    // IPv4-compatible and IPv4-translated (SIIT), both given up.
    ("::127.0.0.1", "RFC 4291"),
    ("::a00:1", "RFC 4291"),
    ("::808:808", "RFC 4291"),
    ("::ffff:0:7f00:1", "RFC 4291"),
    ("::ffff:0:808:808", "RFC 4291"),
    // The IANA IPv6 Special-Purpose Address Registry.
    ("::", "RFC 4291"),
    ("::1", "RFC 4291"),
    ("100::", "RFC 6666"),
    ("100::ffff:ffff:ffff:ffff", "RFC 6666"),
    ("100:0:0:1::", "RFC 9780"),
    ("100:0:0:1:ffff:ffff:ffff:ffff", "RFC 9780"),
    ("2001::", "RFC 2928"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "RFC 2928"), // Teredo, RFC 4380
    ("2001:1::1", "RFC 2928"),
    ("2001:1::2", "RFC 2928"),
    ("2001:2::1", "RFC 2928"),
    ("2001:3::1", "RFC 2928"),
    ("2001:4:112::1", "RFC 2928"),
    ("2001:10::1", "RFC 2928"),
    ("2001:20::1", "RFC 2928"),
    ("2001:30::1", "RFC 2928"),
    ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 2928"),
    ("2001:db8::", "RFC 3849"),
    ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3849"),
    ("2002::", "RFC 3056"),
    ("2002:7f00:1::", "RFC 3056"),
    ("2002:a9fe:a9fe::1", "RFC 3056"),
    ("2002:808:808::1", "RFC 3056"),
    ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 3056"),
    ("2620:4f:8000::", "RFC 7534"),
    ("2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "RFC 7534"),
    ("3fff::", "RFC 9637"),
    ("3fff:fff::1", "RFC 9637"),
    ("3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 9637"),
    ("5f00::", "RFC 9602"),
    ("5f00::1", "RFC 9602"),
    ("5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 9602"),
    ("fc00::", "RFC 4193"),
    ("fd00:ec2::254", "RFC 4193"), // metadata of AWS
    ("fd00:ec2::23", "RFC 4193"),  // credentials of AWS EKS
    ("fd20:ce::254", "RFC 4193"),  // metadata of Google Cloud
    ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4193"),
    ("fe80::", "RFC 4291"),
    ("fe80::a9fe:a9fe", "RFC 4291"), // metadata of OpenStack
    ("febf:ffff::1", "RFC 4291"),
    ("fec0::1", "RFC 3879"),
    ("feff:ffff::1", "RFC 3879"),
    ("ff00::", "RFC 4291"),
    ("ff02::1", "RFC 4291"),
    ("ff0e::1", "RFC 4291"),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "RFC 4291"),
    // Nobody's yet: outside of 2000::/3.
    ("200::1", "RFC 4291"),
    ("400::1", "RFC 4291"),
    ("1fff::1", "RFC 4291"),
    ("4000::1", "RFC 4291"),
    ("8000::1", "RFC 4291"),
    ("fe00::1", "RFC 4291"),
];

/// Addresses that anybody may be at: the neighbours of the blocks above, and some that are known.
const PUBLIC: &[&str] = &[
    "1.0.0.0",
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.1.255",
    "192.0.3.0",
    "192.31.195.255",
    "192.31.197.0",
    "192.52.192.255",
    "192.52.194.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "192.175.47.255",
    "192.175.49.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "64:ff9b::1.1.1.1",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2003::1",
    "2606:4700:4700::1111",
    "2620:4f:7fff::1",
    "2620:4f:8001::1",
    "2a00:1450:4001:800::200e",
    "3ffe::1",
    "3fff:1000::1",
];

/// URLs whose host is an address, or looks like one to somebody. None if no request is made from it at all.
const URLS: &[(&str, Option<&str>)] = &[
    ("https://127.0.0.1/", Some("127.0.0.1")),
    ("https://127.0.0.1:8443/x?y", Some("127.0.0.1")),
    ("https://169.254.169.254/latest/meta-data/", Some("169.254.169.254")),
    ("https://[::1]/", Some("::1")),
    ("https://[::ffff:127.0.0.1]/", Some("::ffff:127.0.0.1")),
    ("https://[::ffff:7f00:1]/", Some("::ffff:7f00:1")),
    ("https://[64:ff9b::7f00:1]/", Some("64:ff9b::7f00:1")),
    ("https://[fd00:ec2::254]/", Some("fd00:ec2::254")),
    ("https://[2002:7f00:1::]/", Some("2002:7f00:1::")),
    // Decimal, octal, hexadecimal and short (inet_aton(3), which WHATWG URL follows).
    ("http://2130706433/", None),
    ("http://017700000001/", None),
    ("http://0x7f000001/", None),
    ("http://0X7F000001/", None),
    ("http://0x7f.1/", None),
    ("http://0x7f.0x0.0x0.0x1/", None),
    ("http://0177.0.0.1/", None),
    ("http://0177.0.0.01/", None),
    ("http://127.1/", None),
    ("http://127.0.1/", None),
    ("http://127.0.0.0x1/", None),
    ("http://127.0.0.1./", None),
    ("http://127.0.0.01/", None),
    ("http://127.0.0.256/", None),
    ("http://1.2.3.4.5/", None),
    ("http://0/", None),
    ("http://0x/", None),
    ("http://2852039166/", None),
    ("http://169.254.43518/", None),
    ("http://foo.0x7f000001/", None),
    // Percent-encoded, full-width and enclosed digits, other dots.
    ("http://127%2e0.0.1/", None),
    ("http://%31%32%37.0.0.1/", None),
    ("http://１２７.0.0.1/", None),
    ("http://①②⑦.0.0.1/", None),
    ("http://127。0。0。1/", None),
    // Zones (RFC 6874), and other things in brackets.
    ("http://[fe80::1%25eth0]/", None),
    ("http://[fe80::1%eth0]/", None),
    ("http://[127.0.0.1]/", None),
    ("http://[v1.127.0.0.1]/", None),
    ("http://[::1/", None),
    // Users, and hosts that hide behind them (RFC 3986, section 7.6).
    ("https://user@example.com/", None),
    ("https://user:word@example.com/", None),
    ("https://@example.com/", None),
    ("https://example.com@127.0.0.1/", None),
    ("https://127.0.0.1:80@example.com/", None),
    ("https://example.com%40127.0.0.1/", None),
    ("https://example.com\\@127.0.0.1/", None),
    ("https:127.0.0.1", None),
    ("//127.0.0.1/", None),
    ("file:///etc/passwd", None),
    ("gopher://127.0.0.1/", None),
];

fn parsed(address: &str) -> IpAddr {
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

#[test]
fn special_purpose_addresses_are_refused_in_every_disguise() {
    let guard = Guard::default();
    for (address, source) in BLOCKED {
        match guard.check(parsed(address), true) {
            Err(Blocked::SpecialPurpose { source_of_rule, .. }) => {
                assert_eq!(source_of_rule, *source, "{address}");
            }
            other => panic!("{address}: {other:?}"),
        }
    }
    for address in PUBLIC {
        assert_eq!(guard.check(parsed(address), true), Ok(()), "{address}");
        let clear = guard.check(parsed(address), false);
        assert!(matches!(clear, Err(Blocked::ClearText { .. })), "{address}: {clear:?}");
    }
    assert!(BLOCKED.len() + PUBLIC.len() + URLS.len() >= 150);
}

#[test]
fn a_url_leads_where_it_says_or_nowhere() {
    for (url, address) in URLS {
        let second = std::time::Duration::from_secs(1);
        let host = Endpoint::new(url, [], second, second).map(|endpoint| endpoint.origin.host.clone());
        match address {
            Some(address) => {
                assert_eq!(host, Ok(Host::Address(parsed(address))), "{url}");
                assert!(Guard::default().check(parsed(address), true).is_err(), "{url}");
            }
            None => assert!(host.is_err(), "{url}: {host:?}"),
        }
    }
    let second = std::time::Duration::from_secs(1);
    let user = Endpoint::new("https://example.com@127.0.0.1/", [], second, second);
    assert_eq!(user.unwrap_err(), InvalidEndpoint::User);
}

#[test]
fn an_allowed_network_is_allowed_in_its_mapped_form_and_in_clear_text_too() {
    let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    for address in ["127.0.0.1", "::ffff:127.9.9.9"] {
        assert_eq!(guard.check(parsed(address), false), Ok(()), "{address}");
    }
    for address in ["::1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "128.0.0.1", "10.0.0.1"] {
        assert!(guard.check(parsed(address), false).is_err(), "{address}: only what is listed");
    }
    let translated = Guard::new(vec!["64:ff9b::a00:0/104".parse().unwrap()]);
    assert_eq!(translated.check(parsed("64:ff9b::10.1.2.3"), false), Ok(()));
    assert!(translated.check(parsed("10.1.2.3"), true).is_err());
}

/// `allow = ["8.8.8.8/32"]` let the secret go to a public address in clear text.
#[test]
fn clear_text_goes_to_no_public_address_whatever_is_allowed() {
    for allow in ["8.8.8.8/32", "8.0.0.0/8", "0.0.0.0/0"] {
        let guard = Guard::new(vec![allow.parse().unwrap()]);
        for address in ["8.8.8.8", "::ffff:8.8.8.8"] {
            assert_eq!(guard.check(parsed(address), true), Ok(()), "{allow}");
            let clear = guard.check(parsed(address), false);
            assert!(matches!(clear, Err(Blocked::ClearText { .. })), "{allow}: {clear:?}");
        }
    }
    let v6 = Guard::new(vec!["::/0".parse().unwrap()]);
    assert!(v6.check(parsed("2606:4700::1"), false).is_err());
    assert!(v6.check(parsed("fd00::1"), false).is_ok());
}

#[test]
fn what_is_denied_is_refused_whatever_is_allowed() {
    let networks = |networks: &[&str]| networks.iter().map(|n| n.parse().unwrap()).collect::<Vec<IpNet>>();
    let guard =
        Guard::new(networks(&["10.0.0.0/8"])).denying(networks(&["10.1.0.0/16", "9.9.9.9/32", "2606::/16"]));
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "9.9.9.9", "2606:4700::1"] {
        assert!(matches!(guard.check(parsed(address), true), Err(Blocked::Denied { .. })), "{address}");
    }
    assert_eq!(guard.check(parsed("10.2.0.1"), false), Ok(()));

    let to = |guard: &Guard, port| {
        guard.check_destination(SocketAddr::new(parsed("10.2.0.1"), port), true, &[], |_| false)
    };
    assert!(BAD_PORTS.is_sorted());
    for port in BAD_PORTS {
        assert_eq!(to(&guard, *port), Err(Blocked::DeniedPort { port: *port }));
    }
    for port in [80, 443, 3000, 8000, 8080, 8443, 9000] {
        assert_eq!(to(&guard, port), Ok(()), "{port}");
    }
    let guard = guard.denying_ports(vec![6379]);
    assert_eq!((to(&guard, 6379).is_err(), to(&guard, 25)), (true, Ok(())));
}

/// A webhook that led to the ingest made 50,235 events of one in 3 s.
#[test]
fn the_sidecars_own_listeners_are_refused_in_every_spelling_whatever_is_allowed() {
    let guard = Guard::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
    let mine = |address: IpAddr| address == parsed("192.168.7.7");
    let refused = |listener: &str, destination: &str| {
        let own = [listener.parse().unwrap()];
        let checked = guard.check_destination(destination.parse().unwrap(), true, &own, mine);
        matches!(checked, Err(Blocked::OwnListener { .. }))
    };
    for (listener, destination, expected) in [
        ("127.0.0.1:7878", "127.0.0.1:7878", true),
        ("127.0.0.1:7878", "[::ffff:127.0.0.1]:7878", true),
        ("127.0.0.1:7878", "0.0.0.0:7878", true),
        ("127.0.0.1:7878", "[::]:7878", true),
        ("[::1]:7878", "[::1]:7878", true),
        ("0.0.0.0:7878", "127.0.0.1:7878", true),
        ("0.0.0.0:7878", "127.3.4.5:7878", true),
        ("0.0.0.0:7878", "192.168.7.7:7878", true),
        ("[::]:7878", "192.168.7.7:7878", true),
        ("[::]:7878", "[::1]:7878", true),
        ("192.168.7.7:7878", "192.168.7.7:7878", true),
        ("127.0.0.1:7878", "127.0.0.1:7879", false),
        ("127.0.0.1:7878", "192.168.7.7:7878", false),
        ("0.0.0.0:7878", "192.168.7.8:7878", false),
    ] {
        assert_eq!(refused(listener, destination), expected, "{listener} {destination}");
    }
}

#[test]
fn public_addresses_of_this_machine_and_tunnels_want_to_be_allowed() {
    let mine = |address: IpAddr| address == parsed("93.184.215.14");
    let to = |guard: &Guard, address| {
        guard.check_destination(SocketAddr::new(parsed(address), 443), true, &[], mine)
    };
    let guard = Guard::default();
    let own = Blocked::OwnAddress { address: parsed("93.184.215.14") };
    assert_eq!(to(&guard, "93.184.215.14"), Err(own.clone()));
    assert_eq!(to(&guard, "::ffff:93.184.215.14"), Err(own));
    assert_eq!(to(&guard, "93.184.215.15"), Ok(()));
    assert_eq!(to(&Guard::new(vec!["93.184.215.14/32".parse().unwrap()]), "93.184.215.14"), Ok(()));
    // ISATAP, with and without the bit of a globally unique identifier.
    for address in ["2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:8.8.8.8"] {
        let refused = guard.check(parsed(address), true);
        assert!(
            matches!(refused, Err(Blocked::SpecialPurpose { source_of_rule: "RFC 5214", .. })),
            "{address}"
        );
    }
    assert!(is_of_this_machine(parsed("127.0.0.1")) && !is_of_this_machine(parsed("203.0.113.7")));
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let refusal = Guard::default().check(parsed("::ffff:169.254.169.254"), true).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "169.254.169.254 is link-local, where clouds serve metadata (RFC 3927); list its network in egress.allow to \
         permit it"
    );
}
