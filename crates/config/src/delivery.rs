//! How to deliver: the keys of `[delivery]`, which a webhook may set as well.

use std::time::Duration;

use aquarium_delivery::{Order, Rate, Schedule};
use toml::de::DeValue;

use crate::document::{Table, Value};
use crate::findings::Problem;
use crate::value::{self, Bounds};

const TIMEOUT: Bounds<Duration> = Bounds {
    least: Duration::from_millis(100),
    greatest: Duration::from_secs(5 * 60),
    accepted: "a duration from \"100ms\" to \"5m\"",
};
const CONNECT_TIMEOUT: Bounds<Duration> = Bounds {
    least: Duration::from_millis(10),
    greatest: Duration::from_secs(5 * 60),
    accepted: "a duration from \"10ms\" to the timeout",
};
const RETRY: Bounds<Duration> = Bounds {
    least: Duration::from_millis(1),
    greatest: Duration::from_secs(30 * 86_400),
    accepted: "durations from \"1ms\" to \"30d\"",
};
const GIVE_UP_AFTER: Bounds<Duration> = Bounds {
    least: Duration::from_millis(1),
    greatest: Duration::from_secs(365 * 86_400),
    accepted: "a duration from \"1ms\" to \"365d\"",
};
const CONCURRENCY: Bounds<i64> = Bounds { least: 1, greatest: 1024, accepted: "an integer from 1 to 1024" };
const BREAKER_FAILURES: Bounds<i64> =
    Bounds { least: 1, greatest: 1_000_000, accepted: "an integer from 1 to 1000000" };
/// The most retries of a delivery.
const MAX_STEPS: usize = 64;

/// How to deliver to a webhook that does not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) concurrency: usize,
    pub(crate) schedule: Schedule,
    pub(crate) breaker_failures: u32,
    pub(crate) rate_limit: Option<Rate>,
    pub(crate) order: Order,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            concurrency: 16,
            schedule: Schedule::default(),
            breaker_failures: 5,
            rate_limit: None,
            order: Order::None,
        }
    }
}

impl Delivery {
    /// Takes the delivery keys out of a table; `inherited` holds where one is not there.
    pub(crate) fn read(table: &mut Table<'_, '_>, inherited: &Delivery) -> Delivery {
        let timeout = table.read("timeout", inherited.timeout, |v| value::duration(v, &TIMEOUT));
        let connect_timeout = connect_timeout(table, timeout, inherited.connect_timeout);
        let concurrency = table.read("concurrency", inherited.concurrency, |v| {
            usize::try_from(value::integer(v, &CONCURRENCY)?).ok()
        });
        let schedule = schedule(table, &inherited.schedule);
        let breaker_failures = table.read("breaker_failures", inherited.breaker_failures, breaker_failures);
        let rate_limit = table.read("rate_limit", inherited.rate_limit, value::rate);
        let order = table.read("order", inherited.order, |v| {
            value::word(
                v,
                &[Order::None, Order::Fifo, Order::Entity].map(|order| (order.as_str(), Some(order))),
            )
        });
        Delivery { timeout, connect_timeout, concurrency, schedule, breaker_failures, rate_limit, order }
    }
}

/// What is inherited gives way to a shorter timeout; what is written here must not exceed it.
fn connect_timeout(table: &mut Table<'_, '_>, timeout: Duration, inherited: Duration) -> Duration {
    table.read("connect_timeout", inherited.min(timeout), |v| {
        let connect_timeout = value::duration(v, &CONNECT_TIMEOUT)?;
        if connect_timeout > timeout {
            let message = "\"connect_timeout\" is longer than the timeout of the whole attempt";
            let limit = format!("up to {:?}", humantime::format_duration(timeout).to_string());
            v.report(v.problem(message).accepted(limit));
            return None;
        }
        Some(connect_timeout)
    })
}

fn schedule(table: &mut Table<'_, '_>, inherited: &Schedule) -> Schedule {
    let (retry, give_up_after) = (table.take("retry"), table.take("give_up_after"));
    let stated = give_up_after.as_ref().or(retry.as_ref()).map(|value| value.span.clone());
    let retry = retry.and_then(steps).unwrap_or_else(|| inherited.retry.clone());
    let give_up_after = give_up_after
        .and_then(|value| value::duration(&value, &GIVE_UP_AFTER))
        .unwrap_or(inherited.give_up_after);
    let total: Duration = retry.iter().sum();
    if let Some(span) = stated.filter(|_| total > give_up_after) {
        let total = humantime::format_duration(total);
        let message = format!("deliveries are given up before their last retry, which is after {total}");
        table.findings.add(Problem::warning(span, message));
    }
    Schedule { retry, jitter: table.read("jitter", inherited.jitter, value::fraction), give_up_after }
}

fn steps(value: Value<'_, '_>) -> Option<Vec<Duration>> {
    let problem = value.problem("\"retry\" has too many steps").accepted(format!("up to {MAX_STEPS}"));
    let findings = value.findings;
    let items = value.items("an array of durations such as [\"5s\", \"5m\"]")?;
    if items.len() > MAX_STEPS {
        findings.add(problem);
        return None;
    }
    let steps: Vec<_> = items.iter().map(|item| value::duration(item, &RETRY)).collect();
    steps.into_iter().collect()
}

fn breaker_failures(value: &Value<'_, '_>) -> Option<u32> {
    let off = match &value.inner {
        DeValue::Boolean(on) => !on,
        DeValue::Integer(number) => number.as_str() == "0",
        _ => false,
    };
    if off {
        let problem =
            value.problem("the breaker cannot be switched off: it keeps one endpoint from using up retries");
        value.report(problem.accepted(BREAKER_FAILURES.accepted));
        return None;
    }
    u32::try_from(value::integer(value, &BREAKER_FAILURES)?).ok()
}
