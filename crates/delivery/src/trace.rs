//! To which distributed trace an event belongs: W3C Trace Context, level 1 (`traceparent`).

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

use crate::DeliveryId;

/// The length of a `traceparent` of version 00, in bytes.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
/// The trace's identifier was drawn at random (level 2 of the specification).
const RANDOM: u8 = 0x02;

/// A place in a trace: what a `traceparent` header says.
///
/// ```
/// use aquarium_delivery::TraceContext;
///
/// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = parent.parse()?;
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), parent);
/// # Ok::<(), aquarium_delivery::InvalidTraceContext>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: NonZeroU128,
    span: SpanId,
    flags: u8,
}

/// Names one span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// A text that is no `traceparent`. By the specification it is then as if there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a traceparent (W3C Trace Context, section 3.2)")]
pub struct InvalidTraceContext;

impl TraceContext {
    /// The bytes that a queue stores.
    pub const STORED: usize = 25;

    /// The start of a new trace that is to be recorded, named by random bits.
    pub fn start(trace: [u8; 16], span: [u8; 8]) -> Self {
        let trace = NonZeroU128::new(u128::from_be_bytes(trace)).unwrap_or(NonZeroU128::MIN);
        Self { trace, span: SpanId::new(u64::from_be_bytes(span)), flags: SAMPLED | RANDOM }
    }

    /// The same trace, at another span.
    pub fn at(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    /// Whether the trace is to be recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The sixteen bytes that name the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace.get().to_be_bytes()
    }

    /// The span that this is the place of.
    pub fn span(&self) -> SpanId {
        self.span
    }

    /// The flags: bit 0 is "sampled", bit 1 "random".
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// What a queue stores: the trace, the span and the flags.
    pub fn to_bytes(&self) -> [u8; Self::STORED] {
        let mut bytes = [0; Self::STORED];
        bytes[..16].copy_from_slice(&self.trace_id());
        bytes[16..24].copy_from_slice(&self.span.to_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) was made from; `None` if this is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk::<16>()?;
        let (span, flags) = rest.split_first_chunk::<8>()?;
        let [flags] = flags else { return None };
        let trace = NonZeroU128::new(u128::from_be_bytes(*trace))?;
        let span = SpanId(NonZeroU64::new(u64::from_be_bytes(*span))?);
        Some(Self { trace, span, flags: *flags })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span.0, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    fn from_str(text: &str) -> Result<Self, InvalidTraceContext> {
        let bytes = text.as_bytes();
        let (known, beyond) = bytes.split_at_checked(LENGTH).ok_or(InvalidTraceContext)?;
        let hyphens = [2, 35, 52];
        let well_formed = known.iter().enumerate().all(|(at, byte)| match hyphens.contains(&at) {
            true => *byte == b'-',
            false => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
        // A later version may say more, behind a further hyphen; ff will never be one.
        let version_fits = match &known[..2] {
            b"00" => beyond.is_empty(),
            b"ff" => false,
            _ => beyond.first().is_none_or(|byte| *byte == b'-'),
        };
        if !well_formed || !version_fits {
            return Err(InvalidTraceContext);
        }
        let invalid = |_| InvalidTraceContext;
        let trace = u128::from_str_radix(&text[3..35], 16).map_err(invalid)?;
        let span = u64::from_str_radix(&text[36..52], 16).map_err(invalid)?;
        let flags = u8::from_str_radix(&text[53..55], 16).map_err(invalid)?;
        Ok(Self {
            trace: NonZeroU128::new(trace).ok_or(InvalidTraceContext)?,
            span: SpanId(NonZeroU64::new(span).ok_or(InvalidTraceContext)?),
            // Flags that are not known are not passed on.
            flags: flags & (SAMPLED | RANDOM),
        })
    }
}

impl SpanId {
    /// The span of these bits, which should be random.
    pub fn new(bits: u64) -> Self {
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// The span of an attempt. It follows from the attempt's name, so that nothing has to be stored to find it again.
    pub fn of_attempt(delivery: &DeliveryId, number: u32) -> Self {
        Self::derived(delivery, u64::from(number) << 1)
    }

    /// The span of the wait before an attempt, likewise.
    pub fn of_wait(delivery: &DeliveryId, number: u32) -> Self {
        Self::derived(delivery, u64::from(number) << 1 | 1)
    }

    /// Mixes the random bits of a delivery's identifier with a number.
    fn derived(delivery: &DeliveryId, number: u64) -> Self {
        let [first, second] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&delivery.as_bytes()[at..at + 8]);
            u64::from_be_bytes(half)
        });
        Self::new(mix(second ^ mix(first ^ mix(number))))
    }

    /// The eight bytes that name it.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

/// The finalizer of SplitMix64: each bit of the input changes about half of those of the output.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Timestamp;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        for (text, read_as) in [
            (format!("00-{TRACE}-{SPAN}-00"), Some("00")),
            (format!("00-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("00-{TRACE}-{SPAN}-03"), Some("03")),
            // Unknown flags are dropped, a later version is read as far as it is known.
            (format!("00-{TRACE}-{SPAN}-ff"), Some("03")),
            (format!("01-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01."), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{SPAN}-0"), None),
            (format!("00-{TRACE}-{SPAN}-+1"), None),
            (format!("00-{TRACE}-{SPAN}_01"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!(" 00-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-0é"), None),
            (format!("00-{}é-{SPAN}-01", &TRACE[2..]), None),
            (String::new(), None),
        ] {
            let read = text.parse::<TraceContext>().ok();
            let expected = read_as.map(|flags| format!("00-{TRACE}-{SPAN}-{flags}"));
            assert_eq!(read.map(|context| context.to_string()), expected, "{text}");
            if let Some(context) = read {
                assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
            }
        }
        for bytes in [&[0; 25][..], &[1; 24], &[1; 26], &[]] {
            assert_eq!(TraceContext::from_bytes(bytes), None);
        }
    }

    #[test]
    fn a_new_trace_is_one_whatever_the_bits() {
        let context = TraceContext::start([0; 16], [0; 8]);
        assert_eq!(context.to_string().parse(), Ok(context));
        assert!(context.is_sampled());
    }

    #[test]
    fn each_wait_and_each_attempt_has_its_span() {
        let at = Timestamp::from_millis(1);
        let one = DeliveryId::new(at, [1; 10]);
        let other = DeliveryId::new(at, [2; 10]);
        let mut spans = HashSet::new();
        for delivery in [one, other] {
            for number in 1..=1_000 {
                assert!(spans.insert(SpanId::of_attempt(&delivery, number)));
                assert!(spans.insert(SpanId::of_wait(&delivery, number)));
            }
        }
        assert_eq!(SpanId::of_attempt(&one, 7), SpanId::of_attempt(&one, 7));
    }
}
