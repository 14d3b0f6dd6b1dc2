//! An operator can see what was sent, test an endpoint, and send again: the admin API.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use aquarium_testkit::client::{Client, Response};
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::Sidecar;
use serde_json::{Value, json};
use tokio::time::sleep;

use support::{EVENTS, JSON, SOON, accept, event, free_port, start, text};

const WAIT: &str = "/v1/organizations/acme/events?wait=10s";
const OPS: &str = "/v1/webhooks/acme/urban/ops";

/// The admin API of a sidecar.
struct Api(Client);

impl Api {
    fn of(sidecar: &Sidecar) -> Api {
        Api(Client::new(sidecar.admin()))
    }

    async fn get(&self, path: &str) -> Value {
        expect(200, self.0.get(path).await.unwrap())
    }

    async fn post(&self, status: u16, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        expect(status, self.0.post(path, JSON, body).await.unwrap())
    }

    /// The code of the problem that a GET leads to, and what it is about.
    async fn refused(&self, status: u16, path: &str) -> (String, Value) {
        let problem = expect(status, self.0.get(path).await.unwrap());
        (text(&problem, "/code"), problem["field"].clone())
    }

    async fn reload(&self) {
        self.post(200, "/v1/config/reload", &Value::Null).await;
    }

    /// Waits for a replay in bulk to end.
    async fn done(&self, replay: &Value) -> Value {
        let path = format!("/v1/replays/{}", text(replay, "/id"));
        let ended = async || Some(self.get(&path).await).filter(|replay| replay["state"] != "running");
        eventually(SOON, "the replay ends", ended).await
    }
}

fn expect(status: u16, response: Response) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    let json = "application/json";
    let content_type = if status < 400 { json } else { "application/problem+json" };
    assert_eq!(response.header("content-type"), Some(content_type));
    response.json()
}

fn body_of(request: &Received) -> String {
    String::from_utf8(request.body.to_vec()).unwrap()
}

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    items(page).iter().map(|item| text(item, "/id")).collect()
}

/// `acme/urban/ops`, which goes to `url`.
fn ops(config: &mut ConfigDirectory, url: &str, extra: &str) {
    config.webhook("acme", "urban", "ops", url, &["*"], extra);
}

/// A sidecar whose only webhook goes to a receiver with this script.
async fn with(
    script: impl Fn(&Received) -> Behaviour + Send + Sync + 'static,
) -> (ConfigDirectory, Receiver, Sidecar, Client, Api) {
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.section("delivery", "jitter = 0.0\nretry = [\"1h\"]");
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, client) = start(&config).await;
    let api = Api::of(&sidecar);
    (config, receiver, sidecar, client, api)
}

fn always(status: u16) -> impl Fn(&Received) -> Behaviour + Send + Sync + 'static {
    move |_| Behaviour::status(status).with_body("so it is")
}

#[tokio::test]
async fn what_was_sent_can_be_looked_up() {
    let (_config, _receiver, _sidecar, client, api) = with(always(200)).await;
    let body = event("ds_1");
    let accepted = accept(&client, WAIT, body.clone()).await;
    let (id, delivery) = (text(&accepted, "/id"), text(&accepted, "/deliveries/0/id"));

    let delivered =
        async || Some(api.get("/v1/deliveries?state=delivered").await).filter(|page| items(page).len() == 1);
    let page = eventually(SOON, "it is delivered", delivered).await;
    let listed = &items(&page)[0];
    assert_eq!((text(listed, "/id"), text(listed, "/event/id")), (delivery.clone(), id.clone()));
    assert_eq!(listed["webhook"], "acme/urban/ops");
    assert_eq!(listed["last_attempt"]["status"], 200);
    assert_eq!(
        (&listed["due_at"], &listed["held_because"], &listed["test"]),
        (&json!(null), &json!(null), &json!(false))
    );

    let shown = api.get(&format!("/v1/deliveries/{delivery}")).await;
    let attempt = &shown["history"][0];
    assert_eq!((&shown["attempts"], &attempt["number"]), (&json!(1), &json!(1)));
    assert_eq!((&attempt["body"], &attempt["error"]), (&json!("so it is"), &json!(null)));
    assert!(attempt["phases"]["first_byte_ms"].as_f64().unwrap() > 0.0, "{attempt}");

    let found = api.get(&format!("/v1/events/{id}")).await;
    assert_eq!((&found["event_type"], &found["project"]), (&json!("dataset-complete"), &json!("urban")));
    assert_eq!((&found["deliveries"][0]["id"], &found["more"]), (&json!(delivery), &json!(null)));
    let payload = api.0.get(&format!("/v1/events/{id}/payload")).await.unwrap();
    assert_eq!((payload.text(), payload.header("content-type")), (body, Some("application/json")));

    for (path, code) in [
        (format!("/v1/events/{delivery}"), "unknown-event"),
        ("/v1/events/evt_0199a1b2-0000-7000-8000-000000000000/payload".to_owned(), "unknown-event"),
        ("/v1/deliveries/dlv_0199a1b2-0000-7000-8000-000000000000".to_owned(), "unknown-delivery"),
        ("/v1/replays/x".to_owned(), "unknown-replay"),
        ("/v1/delivery".to_owned(), "unknown-path"),
    ] {
        assert_eq!(api.refused(404, &path).await.0, code, "{path}");
    }
}

#[tokio::test]
async fn lists_are_filtered_counted_and_read_page_by_page() {
    let (_config, _receiver, _sidecar, client, api) = with(always(204)).await;
    let mut accepted = Vec::new();
    for number in 0..5 {
        accepted.push(text(&accept(&client, EVENTS, event(&format!("ds_{number}"))).await, "/id"));
    }
    // Times are in milliseconds: the last one is to be later than the others.
    sleep(Duration::from_millis(5)).await;
    let other = r#"{"event":"issue-update","project":"urban"}"#;
    let other = text(&accept(&client, EVENTS, other).await, "/id");

    let page = api.get("/v1/events?event_type=dataset-complete&order=oldest&limit=2").await;
    let cursor = text(&page, "/next");
    let rest = api.get(&format!("/v1/events?event_type=dataset-complete&order=oldest&cursor={cursor}")).await;
    assert_eq!([ids(&page), ids(&rest)].concat(), accepted);
    assert_eq!(rest["next"], json!(null));
    let newest = api.get("/v1/events").await;
    assert_eq!(ids(&newest), [vec![other.clone()], accepted.iter().rev().cloned().collect()].concat());
    assert_eq!(ids(&api.get("/v1/events?event_type=issue-update").await), std::slice::from_ref(&other));

    let counted = api.get("/v1/deliveries?webhook=acme/urban/ops&limit=1&count=true").await;
    assert_eq!(counted["count"], json!({ "at_least": 6, "exact": true }));
    let of_event = api.get(&format!("/v1/deliveries?event={other}&organization=acme&project=urban")).await;
    assert_eq!(items(&of_event).len(), 1);
    let at = text(&items(&of_event)[0], "/event/accepted_at");
    assert_eq!(items(&api.get(&format!("/v1/deliveries?since={at}")).await).len(), 1);
    assert_eq!(items(&api.get(&format!("/v1/deliveries?until={at}")).await).len(), 5);
    assert_eq!(items(&api.get("/v1/deliveries?state=skipped,exhausted").await).len(), 0);

    for (query, code, field) in [
        ("cursor=AAAA", "invalid-query", "cursor"),
        (&*format!("limit=2&cursor={cursor}"), "invalid-query", "cursor"),
        ("limit=0", "invalid-query", "limit"),
        ("state=lost", "invalid-query", "state"),
        ("since=yesterday", "invalid-query", "since"),
        ("event=dlv_1", "invalid-query", "event"),
        ("order=random", "invalid-query", "order"),
        ("organisation=acme", "unknown-parameter", "organisation"),
        ("limit=1&limit=1", "invalid-query", "limit"),
    ] {
        let refused = api.refused(400, &format!("/v1/deliveries?{query}")).await;
        assert_eq!(refused, (code.to_owned(), json!(field)), "{query}");
    }
    for (query, code, field) in [
        ("organization=acne", "unknown-organization", "organization"),
        ("project=urbane", "unknown-project", "project"),
        ("webhook=acme/urban/opps", "unknown-webhook", "webhook"),
        ("webhook=ops", "unknown-webhook", "webhook"),
        ("event_type=dataset-completed", "unknown-event-type", "event_type"),
    ] {
        let refused = api.refused(404, &format!("/v1/deliveries?{query}")).await;
        assert_eq!(refused, (code.to_owned(), json!(field)), "{query}");
    }
}

#[tokio::test]
async fn a_webhook_shows_what_waits_and_why() {
    let (mut config, receiver, _sidecar, client, api) = with(always(410)).await;
    assert_eq!(api.get(OPS).await["status"], "active");
    accept(&client, WAIT, event("ds_1")).await;
    let suspended = async || Some(api.get(OPS).await).filter(|webhook| webhook["status"] == "suspended");
    let webhook = eventually(SOON, "it is suspended", suspended).await;
    assert_eq!(webhook["suspended"]["url"], receiver.url("/"));
    assert!(text(&webhook, "/held_because").contains("410 Gone"), "{webhook}");
    assert_eq!(webhook["pending"], json!({ "at_least": 1, "exact": true }));
    assert!(webhook["oldest_pending"].is_string(), "{webhook}");
    let held = api.get("/v1/deliveries?state=pending").await;
    assert!(text(&items(&held)[0], "/held_because").contains("410 Gone"), "{held}");
    let refused = api.post(409, &format!("{OPS}/test"), &Value::Null).await;
    assert_eq!(refused["code"], "webhook-suspended");

    config.webhook("acme", "urban", "other", &receiver.url("/"), &["test"], "active = false");
    config.remove_webhook("acme", "urban", "ops");
    api.reload().await;
    let all = api.get("/v1/webhooks?organization=acme").await;
    let told: Vec<_> =
        items(&all).iter().map(|webhook| (text(webhook, "/webhook"), text(webhook, "/status"))).collect();
    let expected = [("acme/urban/ops", "removed"), ("acme/urban/other", "inactive")];
    assert_eq!(told, expected.map(|(name, status)| (name.to_owned(), status.to_owned())));
    let first = api.get("/v1/webhooks?limit=1").await;
    let second = api.get(&format!("/v1/webhooks?cursor={}", text(&first, "/next"))).await;
    assert_eq!((&items(&second)[0]["webhook"], &second["next"]), (&json!("acme/urban/other"), &json!(null)));
    let removed = api.get("/v1/webhooks?status=removed").await;
    assert_eq!((items(&removed).len(), &items(&removed)[0]["url"]), (1, &json!(null)));

    for (path, code) in [("ops", "webhook-removed"), ("other", "webhook-inactive")] {
        let refused = api.post(409, &format!("/v1/webhooks/acme/urban/{path}/test"), &Value::Null).await;
        assert_eq!(refused["code"], code);
    }
    let unknown = api.0.get("/v1/webhooks/acme/urban/othr").await.unwrap();
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("did you mean \\\"acme/urban/other\\\"?"), "{}", unknown.text());
    assert_eq!(api.refused(404, "/v1/webhooks?organization=acne").await.0, "unknown-organization");
}

#[tokio::test]
async fn a_suspended_webhook_is_resumed() {
    let script = Behaviour::in_turn([Behaviour::status(410), Behaviour::status(204)]);
    let (_config, receiver, _sidecar, client, api) = with(script).await;
    let resume = format!("{OPS}/resume");
    assert_eq!(api.post(409, &resume, &Value::Null).await["code"], "not-suspended");
    accept(&client, WAIT, event("ds_1")).await;
    let suspended = async || api.get(OPS).await["status"] == "suspended";
    eventually(SOON, "it is suspended", suspended).await;

    let resumed = api.post(200, &resume, &json!({})).await;
    assert_eq!((&resumed["status"], &resumed["suspended"]), (&json!("active"), &json!(null)));
    receiver.wait_for(2, SOON).await;
    assert_eq!(
        api.post(404, "/v1/webhooks/acme/urban/opps/resume", &Value::Null).await["code"],
        "unknown-webhook"
    );
    assert_eq!(api.post(400, &resume, &json!({ "force": true })).await["code"], "unknown-field");
}

#[tokio::test]
async fn a_test_tells_what_the_endpoint_made_of_it() {
    let script = |request: &Received| match request.path.as_str() {
        "/no" => Behaviour::status(403).with_body("who are you?"),
        "/slow" => Behaviour::Hang,
        _ => Behaviour::status(204),
    };
    let (mut config, receiver, _sidecar, _client, api) = with(script).await;
    let test = format!("{OPS}/test");
    let delivered = api.post(200, &test, &Value::Null).await;
    assert_eq!((&delivered["result"], &delivered["status"]), (&json!("delivered"), &json!(204)));
    let received = &receiver.wait_for(1, SOON).await[0];
    assert_eq!(body_of(received), r#"{"event":"test","project":"urban"}"#);
    assert_eq!(received.header("webhook-id"), delivered["event"].as_str());
    let shown = api.get(&format!("/v1/deliveries/{}", text(&delivered, "/delivery"))).await;
    assert_eq!(shown["test"], true);

    api.post(200, &test, &json!({ "event_type": "issue-exported" })).await;
    let received = &receiver.wait_for(2, SOON).await[1];
    assert!(body_of(received).contains("label_data") && body_of(received).contains("\"project\":\"urban\""));

    ops(&mut config, &receiver.url("/no"), "");
    api.reload().await;
    let answered = api.post(200, &test, &Value::Null).await;
    assert_eq!((&answered["result"], &answered["status"]), (&json!("answered-with-error"), &json!(403)));
    assert_eq!(answered["body"], "who are you?");
    assert!(text(&answered, "/advice").contains("secret"), "{answered}");

    ops(&mut config, &receiver.url("/slow"), "timeout = \"1s\"");
    api.reload().await;
    let failed = api.post(200, &test, &Value::Null).await;
    assert_eq!(failed["result"], "failed");
    assert_eq!(
        (&failed["error"]["kind"], &failed["error"]["phase"]),
        (&json!("response-timeout"), &json!("first_byte"))
    );

    ops(&mut config, &format!("http://127.0.0.1:{}/", free_port()), "");
    api.reload().await;
    let failed = api.post(200, &test, &Value::Null).await;
    assert_eq!((&failed["error"]["kind"], &failed["status"]), (&json!("connect"), &json!(null)));
    // A test is not tried again, and takes part in the history.
    let exhausted = async || items(&api.get("/v1/deliveries?state=exhausted").await).len() == 3;
    eventually(SOON, "the tests have ended", exhausted).await;

    let unknown = api.post(404, &test, &json!({ "event_type": "issue-export" })).await;
    assert!(text(&unknown, "/detail").contains("did you mean \"issue-exported\"?"), "{unknown}");
    assert_eq!(api.post(400, &test, &json!({ "event": "test" })).await["code"], "unknown-field");
    let plain = api.0.post(&test, &[("Content-Type", "text/plain")], "{}").await.unwrap();
    assert_eq!(plain.status, 415);
    let large = api.0.post(&test, JSON, " ".repeat(70_000)).await.unwrap();
    assert_eq!(large.status, 413);
    assert_eq!(api.0.post(&test, JSON, "{").await.unwrap().status, 400);
}

#[tokio::test]
async fn match_tells_who_would_get_an_event() {
    let mut config = ConfigDirectory::new();
    ops(&mut config, "http://127.0.0.1:10009/", "");
    config.webhook("acme", "urban", "off", "http://127.0.0.1:10009/", &["test"], "active = false");
    config.webhook("acme", "rural", "ops", "http://127.0.0.1:10009/", &["test"], "");
    let (sidecar, _client) = start(&config).await;
    let api = Api::of(&sidecar);
    let matched = api.get("/v1/match?organization=acme&project=urban&event_type=issue-update").await;
    let told: Vec<_> = items(&matched)
        .iter()
        .map(|webhook| (text(webhook, "/webhook"), webhook["matches"] == true, webhook["sends"] == true))
        .collect();
    let expected = [("acme/urban/off", false), ("acme/urban/ops", true), ("acme/rural/ops", false)];
    assert_eq!(told, expected.map(|(name, gets)| (name.to_owned(), gets, gets)));
    assert!(text(&matched, "/items/0/reason").contains("does not want issue-updated"), "{matched}");
    for (status, query, code) in [
        (400, "organization=acme&project=urban", "invalid-query"),
        (404, "organization=acne&project=urban&event_type=test", "unknown-organization"),
        (404, "organization=acme&project=urban&event_type=tset", "unknown-event-type"),
    ] {
        assert_eq!(api.refused(status, &format!("/v1/match?{query}")).await.0, code, "{query}");
    }
}

#[tokio::test]
async fn one_delivery_is_sent_again() {
    let (_config, receiver, _sidecar, client, api) = with(always(204)).await;
    let accepted = accept(&client, WAIT, event("ds_1")).await;
    let delivery = text(&accepted, "/deliveries/0/id");
    let path = format!("/v1/deliveries/{delivery}");
    let delivered = async || api.get(&path).await["state"] == "delivered";
    eventually(SOON, "it is delivered", delivered).await;
    let replayed = api.post(202, &format!("{path}/replay"), &Value::Null).await;
    assert_eq!((text(&replayed, "/id"), replayed["replayed_at"].is_string()), (delivery, true));
    let received = receiver.wait_for(2, SOON).await;
    let ids = [0, 1].map(|number: usize| received[number].header("webhook-id"));
    assert_eq!(ids, [accepted["id"].as_str(); 2]);
    let unknown = "/v1/deliveries/dlv_0199a1b2-0000-7000-8000-000000000000/replay";
    assert_eq!(api.post(404, unknown, &Value::Null).await["code"], "unknown-delivery");
}

#[tokio::test]
async fn what_was_skipped_and_what_was_missed_is_sent_again_in_bulk() {
    let (mut config, receiver, _sidecar, client, api) = with(always(204)).await;
    ops(&mut config, &receiver.url("/"), "active = false");
    api.reload().await;
    for number in 0..3 {
        accept(&client, EVENTS, event(&format!("ds_{number}"))).await;
    }
    ops(&mut config, &receiver.url("/"), "");
    api.reload().await;
    let asked = json!({ "filter": { "webhook": "acme/urban/ops", "state": ["skipped"] } });
    let response = api.0.post("/v1/replays", JSON, asked.to_string()).await.unwrap();
    let location = response.header("location").unwrap().to_owned();
    let replay = expect(202, response);
    assert_eq!((&replay["what"], location), (&asked, format!("/v1/replays/{}", text(&replay, "/id"))));
    receiver.wait_for(3, SOON).await;
    let done = api.done(&replay).await;
    assert_eq!(
        (&done["state"], &done["replayed"], &done["progress"]),
        (&json!("done"), &json!(3), &json!(1.0))
    );

    config.webhook("acme", "urban", "late", &receiver.url("/late"), &["*"], "");
    api.reload().await;
    let missed = json!({ "missed": { "webhook": "acme/urban/late" } });
    let replay = api.post(202, "/v1/replays", &missed).await;
    let received = receiver.wait_for(6, SOON).await;
    assert_eq!(received.iter().filter(|request| request.path == "/late").count(), 3);
    assert_eq!(api.done(&replay).await["replayed"], 3);
    assert_eq!(items(&api.get("/v1/replays").await).len(), 2);

    let cancelled =
        api.post(200, &format!("/v1/replays/{}/cancel", text(&replay, "/id")), &Value::Null).await;
    assert_eq!(cancelled["state"], "done", "what has ended stays as it is");
    for (status, body, code) in [
        (422, json!({ "filter": {} }), "replay-of-everything"),
        (400, json!({}), "invalid-body"),
        (400, json!({ "filter": { "status": "skipped" } }), "unknown-field"),
        (404, json!({ "filter": { "webhook": "acme/urban/opps" } }), "unknown-webhook"),
        (404, json!({ "missed": { "webhook": "acme/urban/opps" } }), "unknown-webhook"),
    ] {
        assert_eq!(api.post(status, "/v1/replays", &body).await["code"], code, "{body}");
    }
    let nothing = "/v1/replays/rpl_0199a1b2-0000-7000-8000-000000000000/cancel";
    assert_eq!(api.post(404, nothing, &Value::Null).await["code"], "unknown-replay");
}

#[tokio::test]
async fn who_may_ask_is_checked_before_anything_else() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "");
    let (sidecar, _client) = start(&config).await;
    let api = Api::of(&sidecar);
    let foreign = [("Host", "evil.example.com")];
    for path in ["/livez", "/v1/deliveries", "/v1/openapi.json", "/nowhere"] {
        assert_eq!(api.0.request("GET", path, &foreign, "").await.unwrap().status, 421, "{path}");
    }
    let foreign = [("Origin", "https://evil.example.com")];
    for path in [format!("{OPS}/test"), format!("{OPS}/resume"), "/v1/replays".to_owned()] {
        assert_eq!(api.0.post(&path, &foreign, "").await.unwrap().status, 403, "{path}");
    }
    assert_eq!(receiver.count(), 0);

    config.write("admin.token", "a-token-for-the-admin-api");
    config.section("admin", "listen = \"127.0.0.1:0\"\ntoken = { file = \"admin.token\" }");
    api.reload().await;
    for path in ["/v1/webhooks", "/v1/openapi.json", "/nowhere"] {
        assert_eq!(api.refused(401, path).await.0, "unauthorized", "{path}");
    }
    let token = [("Authorization", "Bearer a-token-for-the-admin-api")];
    assert_eq!(api.0.request("GET", "/v1/webhooks", &token, "").await.unwrap().status, 200);
    assert_eq!(api.get("/livez").await["status"], "ok");
    assert!(sidecar.logs().iter().all(|line| !line.contains(config.secret("acme"))));
}

/// A field pattern of 120 bytes was compiled to a regular expression for 18 s, and meanwhile nothing else was done.
#[tokio::test]
async fn a_log_filter_is_checked_and_costs_nothing() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let (sidecar, _) = start(&config).await;
    let admin = Client::new(sidecar.admin());
    let set = async |filter: &str| {
        let body = serde_json::json!({ "filter": filter }).to_string();
        tokio::time::timeout(SOON, admin.post("/v1/log", JSON, body)).await.unwrap().unwrap()
    };
    for pattern in [
        r"info,[x{y=(((((a{1000}){1000}){1000}){1000}){1000})}]=debug",
        r"info,[x{y=\w{999}\w{999}\w{999}}]=debug",
    ] {
        let started = tokio::time::Instant::now();
        set(pattern).await;
        let answer = admin.get("/livez").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(started.elapsed() < Duration::from_secs(5), "{pattern}");
    }
    for filter in ["warning", "", "9", "info debug", &"info,".repeat(300)] {
        let problem = expect(400, set(filter).await);
        assert_eq!(problem["field"], "/filter", "{problem}");
    }
    assert_eq!(
        expect(200, set("warn,aquarium_dispatch=debug").await)["filter"],
        "aquarium_dispatch=debug,warn"
    );
}

#[tokio::test]
async fn the_document_describes_the_api() {
    let mut config = ConfigDirectory::new();
    ops(&mut config, "http://127.0.0.1:10009/", "");
    let (sidecar, _client) = start(&config).await;
    let api = Api::of(&sidecar);
    let document = api.get("/v1/openapi.json").await;
    assert!(text(&document, "/openapi").starts_with("3.1"), "{}", document["openapi"]);
    let webhook = &document["paths"]["/v1/webhooks/{organization}/{project}/{webhook}/test"]["post"];
    for status in
        ["200", "400", "401", "403", "404", "405", "408", "409", "413", "415", "421", "422", "429", "503"]
    {
        assert!(webhook["responses"][status].is_object(), "{status}: {webhook}");
    }
    let problem = "application/problem+json";
    assert!(webhook["responses"]["404"]["content"][problem].is_object(), "{webhook}");
    let head = api.0.request("HEAD", "/v1/openapi.json", &[], "").await.unwrap();
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let wrong = api.0.request("DELETE", "/v1/deliveries", &[], "").await.unwrap();
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn a_replay_in_bulk_is_cancelled_and_survives_a_restart() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    ops(&mut config, &receiver.url("/"), "active = false");
    let (mut sidecar, client) = start(&config).await;
    let lines = format!("{}\n", event("ds_1")).repeat(1_000);
    // So many that there is time to look at it while it goes on.
    for _ in 0..30 {
        let batch = client.post(support::BATCH, support::NDJSON, lines.clone()).await.unwrap();
        assert_eq!(batch.status, 202, "{}", batch.text());
    }
    ops(&mut config, &receiver.url("/"), "rate_limit = \"20/s\"");
    let api = Api::of(&sidecar);
    api.reload().await;
    let replay = api.post(202, "/v1/replays", &json!({ "filter": { "state": ["skipped"] } })).await;
    let path = format!("/v1/replays/{}", text(&replay, "/id"));
    let under_way = async || api.get(&path).await["replayed"].as_u64() > Some(0);
    eventually(SOON, "some of it is sent again", under_way).await;
    sidecar.restart().await;
    let api = Api::of(&sidecar);
    assert_eq!(api.get(&path).await["state"], "running");
    let cancelled = api.post(200, &format!("{path}/cancel"), &Value::Null).await;
    assert_eq!(cancelled["state"], "cancelled");
    let progress = cancelled["progress"].as_f64().unwrap();
    assert!(progress > 0.0 && progress < 1.0, "{cancelled}");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(api.get(&path).await["replayed"], cancelled["replayed"]);
}
