//! One attempt, made from one configuration as a whole.
//!
//! What it is made from is looked up when its body is there, and again whenever that has changed before the request was
//! handed to a connection. So a webhook that is switched off gets nothing more, and a new secret never goes to the
//! previous URL, nor the previous secret to the new one.

#[cfg(test)]
mod tests;

use std::future::pending;
use std::sync::Arc;

use aquarium_config::{Config, Egress, Organization, Webhook};
use aquarium_delivery::{SpanId, TraceContext, WebhookName};
use aquarium_egress::{Endpoint, Message, SigningKey};
use aquarium_queue::{Delivery, Error, Payload, Queue};
use http::header::{HeaderValue, InvalidHeaderValue};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::endpoint::endpoint;
use crate::lane::{Item, Made};
use crate::runner::Shared;
use crate::{Reserved, Sender, Traced};

/// A webhook, and the endpoint that was built from it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    webhook: Arc<Webhook>,
    /// None if no request can be made to it.
    endpoint: Option<Arc<Endpoint>>,
}

impl Target {
    pub(crate) fn new(webhook: Arc<Webhook>) -> Self {
        let endpoint = endpoint(&webhook)
            .inspect_err(|error| error!(webhook = %webhook.name, %error, "nothing can be sent to it"))
            .ok();
        Self { endpoint: endpoint.map(Arc::new), webhook }
    }

    pub(crate) fn name(&self) -> &WebhookName {
        &self.webhook.name
    }

    /// The same if it was built from this very webhook, or from one like it.
    fn of(&self, webhook: &Arc<Webhook>) -> Self {
        if is_same(&self.webhook, webhook) { self.clone() } else { Self::new(webhook.clone()) }
    }
}

fn is_same<T: PartialEq>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// What an attempt is made from, all of it from one configuration.
#[derive(Debug)]
struct Resolved {
    target: Target,
    /// Kept until the attempt ends: a reload waits, for a bounded time, until nobody has the previous one, and then knows
    /// that its secret is not in use any more.
    organization: Arc<Organization>,
    /// Not used, but compared: another one may not allow what this one does.
    egress: Arc<Egress>,
    /// Whether a receiver is told of the trace, and whether that is recorded. Not compared: a request is not withdrawn for it.
    propagate: bool,
    record: bool,
}

impl Resolved {
    /// None if nothing may be sent to the webhook. `known` saves building the endpoint again.
    fn new(config: &Config, name: &WebhookName, known: &Target) -> Option<Self> {
        let organization = config.organization(name.organization())?.clone();
        let webhook = config.webhook(name).filter(|webhook| webhook.active)?;
        Some(Self {
            target: known.of(webhook),
            organization,
            egress: config.egress.clone(),
            propagate: config.traces.propagate,
            record: config.traces.export.is_some(),
        })
    }

    /// Whether the same attempt would be made from this configuration.
    fn is_from(&self, config: &Config) -> bool {
        let webhook = &self.target.webhook;
        let Some(organization) = config.organization(webhook.name.organization()) else { return false };
        let is_like_it = || {
            let found = config.webhook(&webhook.name);
            organization.secret == self.organization.secret
                && organization.signing_key == self.organization.signing_key
                && found.is_some_and(|found| is_same(found, webhook))
        };
        (Arc::ptr_eq(organization, &self.organization) || is_like_it())
            && is_same(&config.egress, &self.egress)
    }

    /// Completes when the same attempt would not be made any more. Other changes are waited through.
    async fn outdated(&self, config: &mut watch::Receiver<Arc<Config>>) {
        while config.changed().await.is_ok() {
            if !self.is_from(&config.borrow_and_update()) {
                return;
            }
        }
        // Nobody can change it any more.
        pending().await
    }

    fn secret(&self) -> Result<Option<HeaderValue>, InvalidHeaderValue> {
        let secret = self.organization.secret.as_ref();
        secret.map(|secret| HeaderValue::from_str(secret.expose())).transpose()
    }

    /// What the receiver is told of the trace. If the attempt's span is recorded, then that is the receiver's parent.
    fn trace(&self, trace: Option<TraceContext>, span: Option<SpanId>) -> Option<TraceContext> {
        let trace = trace.filter(|_| self.propagate)?;
        Some(span.map_or(trace, |span| trace.at(span)))
    }

    fn signing_key(&self) -> Option<SigningKey> {
        self.organization.signing_key.as_ref().map(|key| SigningKey::new(key.expose()))
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was made.
    Made(Made),
    /// It could not be made, through no fault of the endpoint; it is tried again.
    Untried,
    /// What is stored of the delivery is damaged: it is never sent.
    Damaged,
}

/// Makes one attempt. `alone` tells whether its lane has no other one in flight.
pub(crate) async fn attempt<Q: Queue, S: Sender>(
    shared: &Shared<Q, S>,
    known: &Target,
    item: Item,
    alone: bool,
) -> Ended {
    let Item { delivery, reserved } = item;
    let (payload, _reserved) = match payload(shared, &delivery, reserved, alone).await {
        Ok(read) => read,
        Err(ended) => return ended,
    };
    send(shared, known, &delivery, &payload).await.map_or(Ended::Untried, Ended::Made)
}

async fn send<Q: Queue, S: Sender>(
    shared: &Shared<Q, S>,
    known: &Target,
    delivery: &Delivery,
    payload: &Payload,
) -> Option<Made> {
    let number = delivery.attempts.saturating_add(1);
    let mut config = shared.config.clone();
    loop {
        let resolved = Resolved::new(&config.borrow_and_update(), &delivery.webhook, known)?;
        let at = shared.clock.now();
        let recorded = payload.trace.filter(|trace| resolved.record && trace.is_sampled());
        let span = recorded.map(|_| SpanId::of_attempt(&delivery.id, number));
        let message = Message {
            body: payload.body.clone(),
            event: delivery.event,
            delivery: delivery.id,
            attempt: number,
            at,
            secret: resolved.secret().ok()?,
            signing_key: resolved.signing_key(),
            trace: resolved.trace(payload.trace, span),
            hops: payload.hops,
        };
        let endpoint = resolved.target.endpoint.as_ref()?;
        if let Some(sent) = shared.sender.send(endpoint, message, resolved.outdated(&mut config)).await {
            let traced = recorded.map(|trace| {
                let due_at = delivery.due_at.max(delivery.since());
                Box::new(Traced { trace, event: delivery.event, delivery: delivery.id, number, due_at })
            });
            return Some(Made { at, webhook: resolved.target.webhook, sent, traced });
        }
    }
}

/// The body with its trace, and its part of the budget. It is read again if there was no room for it before.
async fn payload<Q: Queue, S: Sender>(
    shared: &Shared<Q, S>,
    delivery: &Delivery,
    reserved: Option<Reserved>,
    alone: bool,
) -> Result<(Payload, Option<Reserved>), Ended> {
    if delivery.damaged {
        return Err(Ended::Damaged);
    }
    if let Some(body) = &delivery.body {
        return Ok((Payload { body: body.clone(), trace: delivery.trace, hops: delivery.hops }, reserved));
    }
    let reserved = match shared.bodies.try_reserve(delivery.size) {
        Some(reserved) => reserved,
        None if alone => shared.first_bodies.reserve(delivery.size).await,
        None => shared.bodies.reserve(delivery.size).await,
    };
    match shared.queue.payload(delivery.event_key).await {
        Ok(Some(payload)) => Ok((payload, Some(reserved))),
        // Without its event a delivery is damaged too.
        Ok(None) | Err(Error::DamagedEvent) => Err(Ended::Damaged),
        // The queue logs damage, once.
        Err(Error::Damaged(_)) => Err(Ended::Untried),
        Err(error) => {
            warn!(delivery = %delivery.id, %error, "the event cannot be read, it is tried again");
            Err(Ended::Untried)
        }
    }
}
