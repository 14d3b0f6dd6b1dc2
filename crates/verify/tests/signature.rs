//! Signed calls: the vectors of Standard Webhooks, and what else is accepted or rejected.
#![cfg(feature = "signature")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aquarium_verify::signature::{InvalidId, InvalidKey, Keys, Rejection, Signed, Verifier};
use aquarium_verify::{At, Misplaced};
use http::{HeaderMap, HeaderName, HeaderValue};

// Of the tests of the libraries for Go, Java, JavaScript, PHP, Python and Ruby.
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: u64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
// Of the tests of the library for Rust.
const OTHER_KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn keys<const N: usize>(keys: [&str; N]) -> Keys {
    Keys::new(keys).expect("the keys are good")
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("no control characters");
    let mut headers = HeaderMap::new();
    headers.insert("Webhook-Id", value(id));
    headers.insert("Webhook-Timestamp", value(timestamp));
    headers.insert("Webhook-Signature", value(signature));
    headers
}

/// The answer to the call of the vector, with another header of signatures.
fn verify(verifier: &Verifier, signature: &str) -> Result<Signed, Rejection> {
    verifier.verify_at(&headers(ID, &TIME.to_string(), signature), BODY, at(TIME))
}

#[test]
fn the_signatures_of_standard_webhooks_are_made_and_accepted() {
    let table: &[(&str, &str, u64, &[u8], &str)] = &[
        (KEY, ID, TIME, BODY, SIGNATURE),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ID, TIME, BODY, SIGNATURE),
        (
            OTHER_KEY,
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            br#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        // A key of the tests for Python: without its padding, and with bits left over in its last letter.
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr",
            ID,
            TIME,
            BODY,
            "v1,yK2tMbA6BHPrMEJ1lLv7UlJJbgFoqGenJkiajZ29evg=",
        ),
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwBr==",
            ID,
            TIME,
            BODY,
            "v1,yK2tMbA6BHPrMEJ1lLv7UlJJbgFoqGenJkiajZ29evg=",
        ),
        // The longest key, the least call, and bytes that are no text: computed with Python's hmac.
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
            "a",
            0,
            b"",
            "v1,uveq/R7Ke8zKZ1m8ObG+BocfQ3KjHEmEeOmkG099p/g=",
        ),
        (KEY, ID, TIME, b"\xff\xfe\x00\r\n", "v1,I+CXmKTX2nndO30y/Cq6eWr0DwYJQpHTTgIwk49JVEY="),
    ];
    for (key, id, time, body, signature) in table {
        let keys = keys([key]);
        assert_eq!(keys.sign(id, *time, body).as_deref(), Ok(*signature), "{key} {id}");
        let made = headers(id, &time.to_string(), signature);
        assert_eq!(keys.headers(id, at(*time), body).unwrap(), made);
        let signed = Verifier::new(keys).verify_at(&made, body, at(*time)).unwrap();
        assert_eq!((signed.id.as_str(), signed.timestamp, signed.index), (*id, *time, 0));
    }
}

#[test]
fn a_call_is_accepted_if_one_of_its_signatures_fits_one_of_the_keys() {
    let wrong = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
    let other = keys([OTHER_KEY]).sign(ID, TIME, BODY).unwrap();
    let spare = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ";
    let table = [
        (SIGNATURE.to_owned(), Ok(0)),
        (other.clone(), Ok(1)),
        // The first of the keys that fits counts, wherever its signature is.
        (format!("{other} {SIGNATURE}"), Ok(0)),
        (format!("{wrong} v2,{} {SIGNATURE} {wrong}", &wrong[3..]), Ok(0)),
        (format!("v1a,{} {wrong} {other}", "A".repeat(88)), Ok(1)),
        (format!("  nothing v1 v1, , {SIGNATURE}  "), Ok(0)),
        (spare.repeat(15) + SIGNATURE, Ok(0)),
        (spare.repeat(16) + SIGNATURE, Err(Rejection::TooMany)),
        (format!("{SIGNATURE} {}", "v9, ".repeat(16)), Err(Rejection::TooMany)),
        (format!("v9,{} {SIGNATURE}", "A".repeat(Verifier::MAX_HEADER)), Err(Rejection::TooMany)),
        ("v1,A".repeat(1 << 18), Err(Rejection::TooMany)),
        (wrong.to_owned(), Err(Rejection::Wrong)),
        (format!("{wrong} {wrong}"), Err(Rejection::Wrong)),
        ("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=".to_owned(), Err(Rejection::Wrong)),
        ("v1,h0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned(), Err(Rejection::Wrong)),
        // What is not 32 bytes as base64, or not of version 1, is no signature.
        (String::new(), Err(Rejection::Unsigned)),
        ("v1,".to_owned(), Err(Rejection::Unsigned)),
        ("invalid_signature".to_owned(), Err(Rejection::Unsigned)),
        ("v1,dawfeoifkpqwoekfpqoekf".to_owned(), Err(Rejection::Unsigned)),
        (SIGNATURE[..8].to_owned(), Err(Rejection::Unsigned)),
        (SIGNATURE[3..].to_owned(), Err(Rejection::Unsigned)),
        (SIGNATURE.replace("v1", "v2"), Err(Rejection::Unsigned)),
        (SIGNATURE.replace("v1", "V1"), Err(Rejection::Unsigned)),
        (SIGNATURE.replace("v1,", "v1, "), Err(Rejection::Unsigned)),
        (SIGNATURE.replace(',', "="), Err(Rejection::Unsigned)),
        (SIGNATURE.replace('=', ""), Err(Rejection::Unsigned)),
        (SIGNATURE.replace('=', "=="), Err(Rejection::Unsigned)),
        (SIGNATURE.replace("OE=", "OF="), Err(Rejection::Unsigned)),
        (SIGNATURE.replace('/', "_").replace('+', "-"), Err(Rejection::Unsigned)),
        (SIGNATURE.replace("g0h", "g=h"), Err(Rejection::Unsigned)),
        (format!("{SIGNATURE}\u{fc}"), Err(Rejection::Unsigned)),
        (format!("{SIGNATURE},{SIGNATURE}"), Err(Rejection::Unsigned)),
    ];
    let verifier = Verifier::new(keys([KEY, OTHER_KEY, KEY]));
    for (signatures, expected) in table {
        assert_eq!(verify(&verifier, &signatures).map(|signed| signed.index), expected, "{signatures:.200}");
    }
}

#[test]
fn a_time_is_one_canonical_number_and_close_to_that_of_the_receiver() {
    let tolerance = 300;
    let old = |seconds| Err(Rejection::TooOld { seconds });
    let new = |seconds| Err(Rejection::TooNew { seconds });
    let not = Err(Rejection::Timestamp);
    let table: &[(&str, Result<(), Rejection>)] = &[
        ("1614265330", Ok(())),
        ("1614265030", Ok(())),
        ("1614265630", Ok(())),
        ("1614265029", old(tolerance + 1)),
        ("1614265631", new(tolerance + 1)),
        ("0", old(TIME)),
        ("18446744073709551615", new(u64::MAX - TIME)),
        ("9223372036854775808", new((1 << 63) - TIME)),
        ("18446744073709551616", not),
        ("99999999999999999999999999", not),
        ("-1", not),
        ("-1614265330", not),
        ("+1614265330", not),
        ("01614265330", not),
        ("00", not),
        (" 1614265330", not),
        ("1614265330 ", not),
        ("1614265330.0", not),
        ("1.614265330e9", not),
        ("0x6037bdb2", not),
        ("1614265330000", new(1_614_265_330_000 - TIME)),
        ("hello", not),
        ("", not),
        ("\u{661}\u{662}", not),
    ];
    let keys = keys([KEY]);
    let verifier = Verifier::new(keys.clone());
    for (timestamp, expected) in table {
        // Signed as it stands there, where it is a number.
        let signature = keys.sign(ID, timestamp.parse().unwrap_or(TIME), BODY).unwrap();
        let outcome = verifier.verify_at(&headers(ID, timestamp, &signature), BODY, at(TIME));
        assert_eq!(outcome.map(|_| ()), *expected, "{timestamp:?}");
    }
}

#[test]
fn the_tolerance_can_be_set_and_no_time_overflows() {
    let verifier = Verifier::new(keys([KEY]));
    let outcome = |tolerance, now| {
        let verifier = verifier.clone().tolerance(tolerance);
        verifier.verify_at(&headers(ID, &TIME.to_string(), SIGNATURE), BODY, now).map(|_| ())
    };
    let second = Duration::from_secs(1);
    assert_eq!(outcome(Duration::ZERO, at(TIME) + Duration::from_millis(999)), Ok(()));
    assert_eq!(outcome(Duration::ZERO, at(TIME + 1)), Err(Rejection::TooOld { seconds: 1 }));
    assert_eq!(outcome(second, at(TIME + 1)), Ok(()));
    assert_eq!(outcome(second, at(TIME - 2)), Err(Rejection::TooNew { seconds: 2 }));
    assert_eq!(outcome(Duration::MAX, at(u64::MAX >> 1)), Ok(()));
    // A clock that is before 1970 is at 1970.
    assert_eq!(outcome(second, UNIX_EPOCH - second), Err(Rejection::TooNew { seconds: TIME }));
}

#[test]
fn each_header_is_there_exactly_once() {
    let verifier = Verifier::new(keys([KEY]));
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let whole = headers(ID, &TIME.to_string(), SIGNATURE);
        let mut without = whole.clone();
        without.remove(name);
        assert_eq!(verifier.verify_at(&without, BODY, at(TIME)), Err(Rejection::Missing(name)));
        let mut twice = whole.clone();
        twice.append(HeaderName::from_static(name), whole[name].clone());
        assert_eq!(verifier.verify_at(&twice, BODY, at(TIME)), Err(Rejection::Repeated(name)));
    }
}

#[test]
fn what_was_signed_cannot_be_divided_in_another_way() {
    let keys = keys([KEY]);
    let verifier = Verifier::new(keys.clone());
    let signature = keys.sign("evt_1", TIME, b"1614265331.rest").unwrap();
    // The same bytes under the signature: the time becomes a part of the id, and the body begins later.
    let moved = headers(&format!("evt_1.{TIME}"), "1614265331", &signature);
    assert_eq!(verifier.verify_at(&moved, b"rest", at(TIME)), Err(Rejection::Id));

    let long = "i".repeat(Verifier::MAX_ID + 1);
    for id in ["", " ", "evt_1 ", "evt.1", "\u{e9}vt", &long] {
        assert_eq!(keys.sign(id, TIME, BODY), Err(InvalidId), "{id}");
        let outcome = verifier.verify_at(&headers(id, &TIME.to_string(), SIGNATURE), BODY, at(TIME));
        assert_eq!(outcome, Err(Rejection::Id), "{id}");
    }
    assert!(keys.sign(&long[1..], TIME, BODY).is_ok());
}

#[test]
fn another_id_time_or_body_is_not_what_was_signed() {
    let verifier = Verifier::new(keys([KEY]));
    let time = TIME.to_string();
    let outcome = |id, time: &str, body| verifier.verify_at(&headers(id, time, SIGNATURE), body, at(TIME));
    assert!(outcome(ID, &time, BODY).is_ok());
    for (id, time, body) in [
        ("msg_p5jXN8AQM9LWM0D4loKWxJeK", time.as_str(), BODY),
        (ID, "1614265331", BODY),
        (ID, time.as_str(), br#"{"test": 2432232315}"#.as_slice()),
        (ID, time.as_str(), b""),
    ] {
        assert_eq!(outcome(id, time, body), Err(Rejection::Wrong));
    }
}

#[test]
fn what_the_headers_tell_is_told_before_the_body_is_there_and_the_body_may_come_in_pieces() {
    let verifier = Verifier::new(keys([KEY]));
    let headers = headers(ID, &TIME.to_string(), SIGNATURE);
    assert_eq!(verifier.begin(&headers, at(TIME + 301)).unwrap_err(), Rejection::TooOld { seconds: 301 });
    for size in [1, 2, 7, BODY.len()] {
        let mut check = verifier.begin(&headers, at(TIME)).unwrap();
        BODY.chunks(size).for_each(|piece| check.update(piece));
        assert_eq!(check.finish().unwrap().attempt(), format!("{ID}.{TIME}"));
    }
}

#[test]
fn a_key_is_replaced_while_calls_come_in() {
    let labelled = Keys::labelled([("new", OTHER_KEY), ("old", KEY)]).unwrap();
    let verifier = Verifier::new(keys([KEY]));
    let handle = verifier.clone();
    let begun = verifier.begin(&headers(ID, &TIME.to_string(), SIGNATURE), at(TIME)).unwrap();

    // The sender signs with both while the receivers change over.
    let both = labelled.sign(ID, TIME, BODY).unwrap();
    assert_eq!(both.split(' ').nth(1), Some(SIGNATURE));
    assert_eq!(verify(&verifier, &both).unwrap().label, None);

    handle.replace(labelled);
    assert_eq!(verify(&verifier, &both).unwrap().label.as_deref(), Some("new"));
    assert_eq!(verify(&verifier, SIGNATURE).unwrap().label.as_deref(), Some("old"));

    handle.replace(keys([OTHER_KEY]));
    assert_eq!(verify(&verifier, SIGNATURE), Err(Rejection::Wrong));
    let mut begun = begun;
    begun.update(BODY);
    assert!(begun.finish().is_ok(), "it ends with the keys it began with");
}

#[test]
fn a_key_is_24_to_64_bytes_as_base64() {
    let of = |bytes: usize| format!("whsec_{}", data_encoding::BASE64.encode(&vec![7; bytes]));
    let table: &[(&str, Option<InvalidKey>)] = &[
        (KEY, None),
        (&KEY[6..], None),
        (&of(24), None),
        (&of(25), None),
        (&of(25).replace('=', ""), None),
        (&of(64), None),
        ("", Some(InvalidKey::Length { at: At::Index(0), length: 0 })),
        ("whsec_", Some(InvalidKey::Length { at: At::Index(0), length: 0 })),
        (&of(23), Some(InvalidKey::Length { at: At::Index(0), length: 23 })),
        (&of(65), Some(InvalidKey::Length { at: At::Index(0), length: 65 })),
        (&of(1 << 20), Some(InvalidKey::Length { at: At::Index(0), length: 1 << 20 })),
        (&KEY.replace("whsec_", "whsk_"), Some(InvalidKey::Asymmetric { at: At::Index(0) })),
        (&KEY.replace("whsec_", "whpk_"), Some(InvalidKey::Asymmetric { at: At::Index(0) })),
        (&KEY.replace("whsec_", "whsec-"), Some(InvalidKey::Base64 { at: At::Index(0) })),
        (&format!("{KEY}="), Some(InvalidKey::Base64 { at: At::Index(0) })),
        (&format!("{}=", of(25)), Some(InvalidKey::Base64 { at: At::Index(0) })),
        (&format!("{KEY}\n"), Some(InvalidKey::Base64 { at: At::Index(0) })),
        (&format!("{}A", of(24)), Some(InvalidKey::Base64 { at: At::Index(0) })),
        (&of(24).replace("Bw", "B_"), Some(InvalidKey::Base64 { at: At::Index(0) })),
        (&of(24).replace("Bw", "\u{e9}"), Some(InvalidKey::Base64 { at: At::Index(0) })),
    ];
    for (key, expected) in table {
        assert_eq!(Keys::new([key]).err(), *expected, "{key:.100}");
    }
    assert_eq!(Keys::new([""; 0]).unwrap_err(), InvalidKey::NoKey);
    assert_eq!(Keys::new([KEY, "short"]).unwrap_err(), InvalidKey::Base64 { at: At::Index(1) });
    assert_eq!(
        Keys::parse(&format!("# keys\nnew {KEY}\n\n{OTHER_KEY}\n")).map(|keys| format!("{keys:?}")).unwrap(),
        "Keys(2)"
    );
    assert_eq!(
        Keys::parse("\na b c").unwrap_err(),
        InvalidKey::Misplaced { at: At::Line(2), why: Misplaced::Words }
    );
    for text in [format!("{KEY} {OTHER_KEY}"), format!("{KEY}\n//{OTHER_KEY}"), format!("{KEY},{OTHER_KEY}")]
    {
        assert!(matches!(Keys::parse(&text).unwrap_err(), InvalidKey::Misplaced { .. }), "{text}");
    }
}

#[test]
fn a_key_that_was_commented_out_is_no_longer_accepted() {
    let headers = headers(ID, &TIME.to_string(), SIGNATURE);
    for mark in ["#", "# ", "##"] {
        let keys = Keys::parse(&format!("new {OTHER_KEY}\n{mark}old {KEY}\n{mark}{KEY}")).unwrap();
        let begun = Verifier::new(keys).begin(&headers, at(TIME));
        let mut check = begun.unwrap();
        check.update(BODY);
        assert_eq!(check.finish().unwrap_err(), Rejection::Wrong, "{mark}");
    }
}

#[test]
fn nothing_of_a_key_is_shown() {
    let verifier = Verifier::new(Keys::labelled([("label", KEY)]).unwrap());
    assert_eq!(
        format!("{verifier:?}"),
        "Verifier { keys: RwLock { data: Keys(1), poisoned: false, .. }, tolerance: 300s }"
    );
    let check = verifier.begin(&headers(ID, &TIME.to_string(), SIGNATURE), at(TIME)).unwrap();
    assert_eq!(format!("{check:?}"), format!("Check {{ id: {ID:?}, timestamp: {TIME}, .. }}"));
    let error = Keys::new(["whsec_secret"]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}
