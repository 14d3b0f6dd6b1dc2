//! Every request has an id, which the app, the answer and the log share.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use aquarium_testkit::client::{Client, Response};
use aquarium_testkit::config::ConfigDirectory;

use support::{EVENTS, JSON, SOON, event, start};

fn id(response: &Response) -> &str {
    let mut ids = response.headers.get_all("x-request-id").iter();
    let (id, None) = (ids.next().expect("every answer has an id"), ids.next()) else { panic!("two ids") };
    id.to_str().unwrap()
}

async fn named(client: &Client, method: &str, path: &str, id: &str, body: String) -> Response {
    client.request(method, path, &[JSON[0], ("X-Request-Id", id)], body).await.unwrap()
}

#[tokio::test]
async fn an_answer_has_the_id_of_its_request_or_a_new_one() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let (sidecar, client) = start(&config).await;
    let admin = Client::new(sidecar.admin());
    let rows = [
        (&client, "POST", EVENTS, event("ds_1"), 202),
        (&client, "POST", EVENTS, "{}".to_owned(), 400),
        (&client, "GET", "/nothing", String::new(), 404),
        (&admin, "GET", "/readyz", String::new(), 200),
        (&admin, "GET", "/nothing", String::new(), 404),
        (&admin, "POST", "/v1/log", "{".to_owned(), 400),
    ];
    let mut made = Vec::new();
    for (client, method, path, body, status) in rows {
        let kept = named(client, method, path, "app-7/4bf92f35:1", body.clone()).await;
        assert_eq!((id(&kept), kept.status.as_u16()), ("app-7/4bf92f35:1", status), "{}", kept.text());
        for fit_for_nothing in ["", "a b", "\"", &"x".repeat(129)] {
            let response = named(client, method, path, fit_for_nothing, body.clone()).await;
            assert_eq!(response.status, status);
            if status >= 400 {
                assert_eq!(response.json()["request_id"], id(&response), "{}", response.text());
            }
            made.push(id(&response).to_owned());
        }
        made.push(id(&client.request(method, path, JSON, body).await.unwrap()).to_owned());
    }
    let hexadecimal = |id: &String| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(made.iter().all(hexadecimal), "{made:?}");
    let all = made.len();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), all, "no id is given twice");
}

#[tokio::test]
async fn the_log_tells_of_a_refusal_under_its_id() {
    let mut config = ConfigDirectory::new();
    config.organization("acme", "");
    let (sidecar, client) = start(&config).await;
    let admin = Client::new(sidecar.admin());
    named(&client, "POST", EVENTS, "before", "{}".to_owned()).await;
    let set = admin.post("/v1/log", JSON, r#"{"filter": "info,aquarium_sidecar=debug"}"#).await.unwrap();
    assert_eq!(set.status, 200, "{}", set.text());
    named(&client, "POST", EVENTS, "after", "{}".to_owned()).await;
    named(&admin, "GET", "/v1/events/x%0Ay?token=abc", "after-admin", String::new()).await;
    let line = sidecar.wait_for_log("request_id=\"after\"", SOON).await;
    for part in ["DEBUG", "refused", "method=POST", EVENTS, "status=400", "missing-field"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let line = sidecar.wait_for_log("request_id=\"after-admin\"", SOON).await;
    assert!(line.contains("x%0Ay") && !line.contains("abc"), "a query is not logged: {line}");
    assert!(!sidecar.logs().iter().any(|line| line.contains("before")), "at info a refusal is no line");
}
