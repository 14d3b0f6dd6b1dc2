//! Measures whether the time of a check tells something of the secret, and what a check costs.
//!
//! `cargo bench -p aquarium-verify --features signature --bench constant_time` takes a minute. The method is that of
//! dudect (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", DATE 2017): two classes of input, of which
//! one is drawn at random for each sample; Welch's t-test of the two classes' times, on all samples and on those below
//! each of 100 percentiles, since what disturbs a measurement makes it long; the largest |t| counts. Above 4.5 there is
//! probably a difference, above 10 definitely. With this many samples that is a fraction of a nanosecond.
//!
//! A plain `==` is measured too, to show that a leak would be seen. The exit code is 1 if one is seen where none may be,
//! or none where one is known to be.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aquarium_verify::{Secrets, Verifier};

/// |t| above this: probably a difference.
const PROBABLY: f64 = 4.5;
/// |t| above this: definitely a difference.
const DEFINITELY: f64 = 10.0;
/// The length that a secret usually has.
const LENGTH: usize = 40;

fn main() -> ExitCode {
    // Cargo says so. Without it this is a test, of which the times tell nothing.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let samples = if bench { 2_000_000 } else { 2_000 };
    println!("{samples} samples a pair; |t| > {PROBABLY}: probably different, > {DEFINITELY}: definitely");
    let as_promised = leaks(samples, bench);
    println!("\ncost, median");
    costs(Duration::from_millis(if bench { 500 } else { 1 }));
    if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a pair of classes must show.
#[derive(Clone, Copy)]
enum Promise {
    /// No difference.
    Constant,
    /// A difference: there is one, and the measurement is to find it.
    Leaks,
    /// Either: what differs is known to who calls, for this reason.
    Known(&'static str),
}

/// The answer to a genuine call is another than the one to a wrong call, and so is the way by which it is given.
const ANSWER: Promise = Promise::Known("the answer differs");
/// What is presented is hashed, and that takes the longer the longer it is.
const LONGER: Promise = Promise::Known("what is presented differs in length");
/// What is presented is decoded by a table, of which it takes other entries.
#[cfg(feature = "signature")]
const PRESENTED: Promise = Promise::Known("all of what is presented differs");

/// Measures every pair; whether each is as it must be.
fn leaks(samples: usize, verdicts: bool) -> bool {
    let mut pairs = Pairs { samples, verdicts, as_promised: true };
    of_secrets(&mut pairs);
    #[cfg(feature = "signature")]
    signed::leaks(&mut pairs);
    of_equality(&mut pairs);
    pairs.as_promised
}

fn of_secrets(pairs: &mut Pairs) {
    println!("\nVerifier::verify_values, a secret of {LENGTH} characters");
    let secret = text(LENGTH);
    let [first, last] = [different_at(&secret, 0), different_at(&secret, LENGTH - 1)];
    let one = verifier([&secret]);
    let mut check = |name, promise, classes: [&str; 2]| {
        let verify = |one: &&Verifier, value: &[u8]| one.verify_values([value]);
        pairs.measure(name, promise, classes.map(str::as_bytes), |_| &one, verify);
    };
    check("first byte differs / last byte differs", Promise::Constant, [&first, &last]);
    check("equal / first byte differs", ANSWER, [&secret, &first]);
    check("equal / last byte differs", ANSWER, [&secret, &last]);
    check("equal / one character shorter", ANSWER, [&secret, &secret[1..]]);
    check("equal / 100 characters longer", ANSWER, [&secret, &text(LENGTH + 100)]);
    check("different / one character shorter", LONGER, [&first, &first[1..]]);
    check("different / 100 characters longer", LONGER, [&first, &text(LENGTH + 100)]);

    let [genuine, wrong] = [&secret, &first].map(|value| one.verify_values([value.as_bytes()]));
    let answer = |class| if class == 0 { genuine.clone() } else { wrong.clone() };
    pairs.measure("the two answers alone, copied", ANSWER, [b"", b""], answer, |answer, _| answer.clone());

    // The answer is the same, and so is what is presented.
    let mut prepared = |name, sets: [&[&str]; 2], value: &str| {
        let verify = |verifier: &Verifier, value: &[u8]| verifier.verify_values([value]);
        let prepare = |class: usize| verifier(sets[class]);
        pairs.measure(name, Promise::Constant, [value.as_bytes(); 2], prepare, verify);
    };
    let [secret, first] = [secret.as_str(), first.as_str()];
    prepared("equal to the first / to the second of two", [&[secret, first], &[first, secret]], secret);
    prepared("equal to both / only to the first of two", [&[secret, secret], &[secret, first]], secret);
    let [short, long] = [Secrets::MIN, Secrets::MAX].map(text);
    prepared("different from one of 16 / of 1024 characters", [&[&short], &[&long]], first);
}

fn of_equality(pairs: &mut Pairs) {
    println!("\n`==`, for comparison");
    for length in [LENGTH, Secrets::MAX] {
        let secret = text(length);
        let classes = [different_at(&secret, 0), different_at(&secret, length - 1)];
        let name = format!("first byte / last byte of {length} differs");
        let classes = classes.each_ref().map(String::as_bytes);
        let equal = |(): &(), value: &[u8]| black_box(secret.as_bytes()) == value;
        pairs.measure(&name, Promise::Leaks, classes, |_| (), equal);
    }
}

struct Pairs {
    samples: usize,
    verdicts: bool,
    as_promised: bool,
}

impl Pairs {
    /// How many samples are prepared at once.
    const BATCH: usize = 1000;

    /// Measures `run`, given the input of a class and what `prepare` makes for it.
    ///
    /// What is prepared lies in the memory in random order, so that where it lies does not tell the classes apart.
    fn measure<P, R>(
        &mut self,
        name: &str,
        promise: Promise,
        classes: [&[u8]; 2],
        prepare: impl Fn(usize) -> P,
        run: impl Fn(&P, &[u8]) -> R,
    ) {
        let mut inputs = Inputs::new(classes);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut batch = || -> Vec<(usize, f64)> {
            let drawn = (0..Self::BATCH).map(|_| (random.next() >> 63) as usize);
            let prepared: Vec<_> = drawn.map(|class| (class, prepare(class))).collect();
            let sample = |(class, prepared): &(usize, P)| {
                let input = black_box(inputs.take(*class));
                (*class, nanoseconds(|| drop(black_box(run(prepared, input)))))
            };
            prepared.iter().map(sample).collect()
        };
        // The first ones warm up the machine, and say where to crop.
        let batches = self.samples / Self::BATCH;
        let warm_up = (0..batches.div_ceil(10)).flat_map(|_| batch());
        let mut tests = Tests::new(warm_up.map(|(_, time)| time).collect());
        for (class, time) in (0..batches).flat_map(|_| batch()) {
            tests.add(class, time);
        }
        self.report(name, promise, &tests);
    }

    fn report(&mut self, name: &str, promise: Promise, tests: &Tests) {
        let (t, difference) = tests.largest();
        let t = t.abs();
        let seen = if !self.verdicts {
            "no verdict"
        } else if t > DEFINITELY {
            "definitely different"
        } else if t > PROBABLY {
            "probably different"
        } else {
            "no difference seen"
        };
        let note = match promise {
            Promise::Constant if self.verdicts && t > DEFINITELY => "WRONG",
            Promise::Leaks if self.verdicts && t < DEFINITELY => "WRONG",
            Promise::Constant | Promise::Leaks => "",
            Promise::Known(why) => why,
        };
        self.as_promised &= note != "WRONG";
        let median = tests.median;
        println!("  {name:45} |t| {t:7.2}  {difference:+7.2} of {median:3.0} ns  {seen:20}  {note}");
    }
}

/// The inputs of the two classes, which are taken from one place in the memory.
///
/// They get there by arithmetic on both, and not by a branch or an address: a difference there would show in what is
/// measured right after it.
struct Inputs {
    inputs: Vec<[u8; 2]>,
    lengths: [usize; 2],
    buffer: Vec<u8>,
}

impl Inputs {
    fn new(classes: [&[u8]; 2]) -> Inputs {
        let lengths = classes.map(<[u8]>::len);
        let byte = |class: usize, at| classes[class].get(at).copied().unwrap_or_default();
        let inputs = (0..lengths[0].max(lengths[1])).map(|at| [byte(0, at), byte(1, at)]).collect();
        Inputs { inputs, lengths, buffer: vec![0; lengths[0].max(lengths[1])] }
    }

    fn take(&mut self, class: usize) -> &[u8] {
        let mask = black_box(0_usize.wrapping_sub(class));
        for (to, [first, second]) in self.buffer.iter_mut().zip(&self.inputs) {
            *to = first ^ ((first ^ second) & mask as u8);
        }
        let [first, second] = self.lengths;
        &self.buffer[..first ^ ((first ^ second) & mask)]
    }
}

/// Welch's t-tests on all samples, and on those below each of 100 percentiles.
struct Tests {
    median: f64,
    tests: Vec<(f64, [Moments; 2])>,
}

impl Tests {
    /// The fewest samples of each class for a test to count.
    const ENOUGH: f64 = 500.0;

    /// dudect's percentiles: most of them close to the upper end.
    fn new(mut sample: Vec<f64>) -> Tests {
        sample.sort_by(f64::total_cmp);
        let at = |share: f64| sample[((sample.len() - 1) as f64 * share) as usize];
        let crops = (1..=100).map(|i| at(1.0 - 0.5_f64.powf(10.0 * f64::from(i) / 100.0)));
        let tests = crops.chain([f64::INFINITY]).map(|limit| (limit, Default::default())).collect();
        Tests { median: at(0.5), tests }
    }

    fn add(&mut self, class: usize, time: f64) {
        for (limit, moments) in &mut self.tests {
            if time < *limit {
                moments[class].add(time);
            }
        }
    }

    /// The t with the largest absolute value, and the difference of the means it belongs to.
    fn largest(&self) -> (f64, f64) {
        let enough = self.tests.iter().filter(|(_, [a, b])| a.count.min(b.count) > Self::ENOUGH);
        let tests = enough.map(|(_, [a, b])| (welch(a, b), b.mean - a.mean));
        tests.max_by(|(a, _), (b, _)| a.abs().total_cmp(&b.abs())).unwrap_or_default()
    }
}

/// Number, mean and sum of squared differences from it, by Welford's method.
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }
}

fn welch(a: &Moments, b: &Moments) -> f64 {
    let error = |m: &Moments| m.squares / (m.count - 1.0) / m.count;
    let error = (error(a) + error(b)).sqrt();
    if error > 0.0 { (b.mean - a.mean) / error } else { 0.0 }
}

fn costs(budget: Duration) {
    let (secret, other) = (text(LENGTH), text(LENGTH + 1));
    let [one, two] = [verifier([&secret]), verifier([&other, &secret])];
    let long = text(1 << 20);
    for (name, verifier, value) in [
        ("1 secret of 40 characters", &one, &secret),
        ("2 secrets, the second one is presented", &two, &secret),
        ("1 secret, 1 MB is presented", &one, &long),
    ] {
        cost(name, budget, || verifier.verify_values([black_box(value.as_bytes())]));
    }
    #[cfg(feature = "signature")]
    signed::costs(budget);
}

/// Prints the median over many batches, each long enough for the clock.
fn cost<R>(name: &str, budget: Duration, run: impl Fn() -> R) {
    let batch = |count: u32| nanoseconds(|| (0..count).for_each(|_| drop(black_box(run()))));
    let count = (20_000.0 / batch(8).max(8.0) * 8.0).max(1.0) as u32;
    let (mut spent, mut batches) = (0.0, Vec::new());
    while spent < budget.as_nanos() as f64 || batches.len() < 5 {
        let time = batch(count);
        spent += time;
        batches.push(time / f64::from(count));
    }
    batches.sort_by(f64::total_cmp);
    println!("  {name:45} {:9.0} ns", batches[batches.len() / 2]);
}

#[cfg(feature = "signature")]
mod signed {
    use std::time::SystemTime;

    use aquarium_verify::signature::{Keys, Rejection, SIGNATURE_HEADER, Signed, Verifier};

    use super::*;

    const BODY: &[u8] = br#"{"event":"test","project":"urban-driving"}"#;
    const ID: &str = "evt_0190c0de";
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    pub(super) fn leaks(pairs: &mut Pairs) {
        println!("\nsignature::Verifier, a body of {} bytes", BODY.len());
        let signature = |key| keys([key]).sign(ID, 0, BODY).expect("the id is good");
        let [right, other] = [signature(KEY), signature(OTHER)];
        // Behind "v1,": the first and the last character of which all bits count.
        let [first, last] = [different_at(&right, 3), different_at(&right, 3 + 41)];
        let one = Verifier::new(keys([KEY]));
        let mut check = |name, promise, classes: [&str; 2]| {
            let verify = |one: &&Verifier, signature: &[u8]| verify(one, signature);
            pairs.measure(name, promise, classes.map(str::as_bytes), |_| &one, verify);
        };
        check("first byte wrong / last byte wrong", Promise::Constant, [&first, &last]);
        check("right / first byte wrong", ANSWER, [&right, &first]);
        check("right / last byte wrong", ANSWER, [&right, &last]);
        check("wrong / wrong in every byte", PRESENTED, [&first, &other]);

        // The answer is the same, and so is what is presented.
        let mut prepared = |name, sets: [[&str; 2]; 2]| {
            let prepare = |class: usize| Verifier::new(keys(sets[class]));
            pairs.measure(name, Promise::Constant, [right.as_bytes(); 2], prepare, verify);
        };
        prepared("right for the first / for the second of two", [[KEY, OTHER], [OTHER, KEY]]);
        prepared("right for both / only for the first of two", [[KEY, KEY], [KEY, OTHER]]);
    }

    fn verify(verifier: &Verifier, signature: &[u8]) -> Result<Signed, Rejection> {
        let values = |name: &str| match name {
            "webhook-id" => [ID.as_bytes()],
            "webhook-timestamp" => [b"0".as_slice()],
            _ => [signature],
        };
        let mut check = verifier.begin_values(values, NOW)?;
        check.update(BODY);
        check.finish()
    }

    pub(super) fn costs(budget: Duration) {
        let verifier = Verifier::new(keys([KEY]));
        let call = |body: &[u8]| keys([KEY]).headers(ID, NOW, body).expect("the id is good");
        for (name, size) in
            [("1 signature, a body of 1 KB", 1 << 10), ("1 signature, a body of 1 MB", 1 << 20)]
        {
            let body = vec![b'a'; size];
            let headers = call(&body);
            cost(name, budget, || verifier.verify_at(black_box(&headers), black_box(&body), NOW));
        }
        let (wrong, mut headers) = ("v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", call(BODY));
        for (name, count) in [("16 wrong signatures", 16), ("5000 wrong signatures, 240 KB", 5000)] {
            let many = [wrong].repeat(count).join(" ");
            headers.insert(SIGNATURE_HEADER, many.parse().expect("it is visible ASCII"));
            cost(name, budget, || verifier.verify_at(black_box(&headers), BODY, NOW));
        }
    }

    fn keys<const N: usize>(keys: [&str; N]) -> Keys {
        Keys::new(keys).expect("the keys are good")
    }
}

fn verifier<I: IntoIterator<Item: AsRef<str>>>(secrets: I) -> Verifier {
    Verifier::new(Secrets::new(secrets).expect("the secrets are good"))
}

/// A text that looks random, of this length.
fn text(length: usize) -> String {
    let mut random = Random(length as u64 + 1);
    (0..length).map(|_| char::from(b'a' + (random.next() >> 32) as u8 % 26)).collect()
}

fn different_at(text: &str, index: usize) -> String {
    let other = if text.as_bytes()[index] == b'x' { "y" } else { "x" };
    [&text[..index], other, &text[index + 1..]].concat()
}

#[expect(clippy::disallowed_methods, reason = "what is measured is the time it takes")]
fn nanoseconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64
}

/// Marsaglia's xorshift64: enough to draw classes with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
