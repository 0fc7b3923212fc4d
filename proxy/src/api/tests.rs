#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::time::{Duration, UNIX_EPOCH};

use adit_config::Secret;
use adit_plugins::identity::token::{Authority, Claims, Resources};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

const NOW: u64 = 1_800_000_000;

struct Shelf {
    tunnels: Vec<Value>,
}

fn item(object: &Value) -> Item {
    Item {
        project: "default".to_owned(),
        object: object.as_object().unwrap().clone(),
    }
}

impl Inventory for Shelf {
    fn clients(&self) -> Vec<Item> {
        let one = json!({ "id": "c1", "status": "online", "user_id": "u1", "os": "linux" });
        let two = json!({ "id": "c2", "status": "online", "user_id": "u2" });
        vec![item(&one), item(&two)]
    }

    fn tunnels(&self) -> Vec<Item> {
        self.tunnels.iter().map(item).collect()
    }

    fn tunnel(&self, id: &str) -> Option<Item> {
        let found = self.tunnels.iter().find(|tunnel| tunnel["id"] == id);
        found.map(item)
    }
}

fn api(tunnels: Vec<Value>) -> (Arc<Api>, Arc<Authority>) {
    let authority = Arc::new(Authority::new(&Secret::new("k".repeat(32))).unwrap());
    let swap = Arc::new(ArcSwap::from_pointee(Services::new(Arc::clone(&authority))));
    let now = || UNIX_EPOCH + Duration::from_secs(NOW);
    (Api::new(swap, Arc::new(Shelf { tunnels }), now), authority)
}

fn two_tunnels() -> Vec<Value> {
    vec![
        json!({ "id": "t 1/x", "client_id": "c1", "status": "online", "name": "one", "publish": true,
                "protocol": "http", "labels": { "env": "dev" }, "creation_date": "2027-01-15T08:00:00Z" }),
        json!({ "id": "t2", "client_id": "c2", "status": "online", "publish": false }),
    ]
}

async fn ask(api: &Arc<Api>, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = api.router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    (parts.status, parts.headers, text)
}

async fn get_with(api: &Arc<Api>, token: Option<&str>, path: &str) -> (u16, String) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let (status, headers, text) = ask(api, request).await;
    // §12 case 14: nothing is ever redirected.
    assert!(!status.is_redirection());
    if status.is_client_error() {
        assert!(
            headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
    }
    (status.as_u16(), text)
}

fn mint(authority: &Authority, claims: Claims) -> String {
    authority.mint(&claims).unwrap()
}

fn ids(text: &str) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_str(text).unwrap();
    list.iter()
        .map(|object| object["id"].as_str().unwrap().to_owned())
        .collect()
}

/// `params` as clients write it: percent-encoded.
fn params(document: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(document.as_bytes()).collect();
    format!("/api/tunnels?params={encoded}")
}

// engine-api §12 cases 1, 2, 6
#[tokio::test]
async fn no_params_null_and_empty_params_list_everything() {
    let (api, authority) = api(two_tunnels());
    let token = mint(&authority, Claims::default());
    for query in [
        "",
        "?",
        "?params=null",
        "?params=",
        "?params={}",
        "?params=%7B%7D",
        "?other=1",
    ] {
        let (status, text) = get_with(&api, Some(&token), &format!("/api/tunnels{query}")).await;
        assert_eq!((status, ids(&text).len()), (200, 2), "{query}");
        let (status, text) = get_with(&api, Some(&token), &format!("/api/clients{query}")).await;
        assert_eq!((status, ids(&text).len()), (200, 2), "{query}");
    }
    let (api, authority) = super::tests::api(vec![]);
    let token = mint(&authority, Claims::default());
    assert_eq!(
        get_with(&api, Some(&token), "/api/tunnels").await,
        (200, "[]".to_owned())
    );
}

// engine-api §12 cases 3, 4, 5
#[tokio::test]
async fn filters_and_limits_select() {
    let (api, authority) = api(two_tunnels());
    let token = mint(&authority, Claims::default());
    for (document, expected) in [
        (r#"{"filters":{"labels":{"env":null}}}"#, vec!["t 1/x"]),
        (r#"{"filters":{"labels":{"env":"dev"}}}"#, vec!["t 1/x"]),
        (r#"{"filters":{"labels":{"env":"prod"}}}"#, vec![]),
        (r#"{"filters":{"publish":false}}"#, vec!["t2"]),
        (
            r#"{"filters":{"name":"one","protocol":"http"}}"#,
            vec!["t 1/x"],
        ),
        (
            r#"{"filters":{"name":null,"unheard":[1]}}"#,
            vec!["t 1/x", "t2"],
        ),
        (r#"{"filters":{}}"#, vec!["t 1/x", "t2"]),
        (r#"{"limit":1}"#, vec!["t 1/x"]),
        (r#"{"limit":1,"filters":{"client_id":"c2"}}"#, vec!["t2"]),
    ] {
        let (status, text) = get_with(&api, Some(&token), &params(document)).await;
        assert_eq!(status, 200, "{document}: {text}");
        assert_eq!(ids(&text), expected, "{document}");
    }
    let long = format!(r#"{{"filters":{{"name":"{}"}}}}"#, "x".repeat(20_000));
    for document in [
        r#"{"limit":0}"#,
        r#"{"limit":-1}"#,
        r#"{"limit":"1"}"#,
        "{bad",
        "[]",
        r#"{"filters":[]}"#,
        r#"{"filters":{"name":1}}"#,
        r#"{"filters":{"publish":"yes"}}"#,
        r#"{"filters":{"labels":{"env":1}}}"#,
        &long,
    ] {
        let (status, text) = get_with(&api, Some(&token), &params(document)).await;
        assert_eq!(status, 400, "{document}");
        assert!(text.starts_with("`params` cannot be read: "), "{text}");
    }
}

// engine-api §12 cases 7, 9
#[tokio::test]
async fn one_tunnel_is_found_by_its_encoded_id() {
    let (api, authority) = api(two_tunnels());
    let token = mint(&authority, Claims::default());
    let (status, text) = get_with(&api, Some(&token), "/api/tunnels/t%201%2Fx").await;
    assert_eq!(status, 200);
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        two_tunnels()[0]
    );
    let (_, text) = get_with(&api, Some(&token), "/api/tunnels/t2").await;
    assert!(!text.contains("null"), "{text}");
    assert_eq!(get_with(&api, Some(&token), "/api/tunnels/t3").await.0, 404);
}

// engine-api §12 cases 10, 11, 13; edge-behaviour §14.2 T16, T17
#[tokio::test]
async fn a_token_is_needed_and_must_allow_it() {
    let (api, authority) = api(two_tunnels());
    let all = mint(&authority, Claims::default());
    let create_only = mint(
        &authority,
        Claims {
            permissions: Some(vec!["tunnels.tunnels.create-delete".to_owned()]),
            ..Claims::default()
        },
    );
    let expired = mint(
        &authority,
        Claims {
            exp: Some(NOW as f64 - 1.0),
            ..Claims::default()
        },
    );
    let foreign = Authority::new(&Secret::new("other".repeat(8))).unwrap();
    let foreign = mint(&foreign, Claims::default());
    for path in [
        "/api/tunnels",
        "/api/tunnels/t2",
        "/api/clients",
        "/api/auth",
    ] {
        for token in [
            None,
            Some(""),
            Some("nonsense"),
            Some(&*expired),
            Some(&*foreign),
        ] {
            assert_eq!(get_with(&api, token, path).await.0, 401, "{path} {token:?}");
        }
        let expected = if path == "/api/auth" { 204 } else { 403 };
        assert_eq!(
            get_with(&api, Some(&create_only), path).await.0,
            expected,
            "{path}"
        );
        let in_query = format!("{path}?rstream.token={all}");
        assert_eq!(get_with(&api, None, &in_query).await.0, 401, "{path}");
    }
    assert_eq!(get_with(&api, Some(&all), "/api/auth").await.0, 204);
    let twice = Request::get("/api/auth")
        .header("authorization", format!("Bearer {all}"))
        .header("authorization", format!("Bearer {all}"));
    let (status, headers, _) = ask(&api, twice.body(Body::empty()).unwrap()).await;
    assert_eq!(status, 401);
    assert_eq!(headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn a_boundary_hides_what_is_outside() {
    let (api, authority) = api(two_tunnels());
    let list = json!({ "filters": { "labels": { "env": "dev" } }, "select": { "name": true } });
    let token = mint(
        &authority,
        Claims {
            user_id: Some("u9".to_owned()),
            resources: Some(Resources {
                tunnels: json!({ "projects": ["default"], "scopes": { "tunnels": { "list": list } } }),
            }),
            ..Claims::default()
        },
    );
    let (_, text) = get_with(&api, Some(&token), "/api/tunnels").await;
    let expected = json!([{ "id": "t 1/x", "client_id": "c1", "status": "online", "name": "one" }]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert_eq!(get_with(&api, Some(&token), "/api/tunnels/t2").await.0, 404);
    let (_, text) = get_with(&api, Some(&token), "/api/clients").await;
    assert_eq!(ids(&text), ["c1"]);
    // A filter on a field that is not shown finds nothing.
    let (_, text) = get_with(
        &api,
        Some(&token),
        &params(r#"{"filters":{"protocol":"http"}}"#),
    )
    .await;
    assert_eq!(text, "[]");
}

// edge-behaviour §14.2 T16: permission and action are both needed (engine-api §8.5).
#[tokio::test]
async fn a_boundary_without_list_is_refused_and_one_that_shows_nothing_is_empty() {
    let (api, authority) = api(two_tunnels());
    let scoped = |scopes: Value| json!({ "scopes": { "tunnels": scopes } });
    let own = json!({ "projects": ["default"] });
    for (boundary, status) in [
        (scoped(json!({ "create": true, "connect": true })), 403),
        (scoped(json!({ "list": false })), 403),
        // Each part grants what the other does not.
        (
            json!({ "AND": [scoped(json!({ "list": true })), scoped(json!({ "create": true }))] }),
            403,
        ),
        (json!({ "AND": [own, { "projects": ["elsewhere"] }] }), 403),
        (
            json!({ "OR": [scoped(json!({ "create": true })), scoped(json!({ "list": true }))] }),
            200,
        ),
        (own.clone(), 200),
        (
            json!({ "projects": ["elsewhere"], "scopes": { "tunnels": { "list": true } } }),
            200,
        ),
        (
            scoped(json!({ "list": { "filters": { "name": "nobody" } } })),
            200,
        ),
    ] {
        let nothing =
            boundary.to_string().contains("elsewhere") || boundary.to_string().contains("nobody");
        let token = mint(
            &authority,
            Claims {
                user_id: Some("u9".to_owned()),
                resources: Some(Resources {
                    tunnels: boundary.clone(),
                }),
                ..Claims::default()
            },
        );
        for path in ["/api/tunnels", "/api/clients", "/api/tunnels/t2"] {
            let (got, text) = get_with(&api, Some(&token), path).await;
            let expected = match (status, path) {
                (200, "/api/tunnels/t2") if nothing => 404,
                (status, _) => status,
            };
            assert_eq!(got, expected, "{path} {boundary}: {text}");
            if got == 200 && path != "/api/tunnels/t2" {
                assert_eq!(text == "[]", nothing, "{path} {boundary}: {text}");
            }
        }
    }
}

// engine-api §12 case 15
#[tokio::test]
async fn health_needs_no_token_and_says_when_it_drains() {
    let (api, _) = api(vec![]);
    let ready = "/api/health/ready";
    assert_eq!(
        get_with(&api, None, "/api/health/live").await,
        (200, r#"{"status":"live"}"#.to_owned())
    );
    assert_eq!(
        get_with(&api, None, ready).await,
        (503, r#"{"status":"unavailable"}"#.to_owned())
    );
    api.set_ready(true);
    assert_eq!(
        get_with(&api, Some("whatever"), ready).await,
        (200, r#"{"status":"ready"}"#.to_owned())
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (api, authority) = api(vec![]);
    let token = mint(&authority, Claims::default());
    for path in [
        "/",
        "/api",
        "/api/",
        "/api/tunnels/",
        "/api/tunnels/a/b",
        "/api/webtty/sessions",
        "/.well-known/rstream/engine",
    ] {
        assert_eq!(get_with(&api, Some(&token), path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn methods_other_than_get_are_refused_and_preflights_answered() {
    let (api, _) = api(vec![]);
    for (method, status) in [
        (Method::POST, 405),
        (Method::DELETE, 405),
        (Method::OPTIONS, 204),
    ] {
        let request = Request::builder().method(method).uri("/api/tunnels");
        let (found, headers, _) = ask(&api, request.body(Body::empty()).unwrap()).await;
        assert_eq!(found, status);
        assert_eq!(headers["access-control-allow-origin"], "*");
        if status == 204 {
            assert_eq!(headers["access-control-allow-headers"], "Authorization");
        }
    }
}

#[tokio::test]
async fn the_document_names_every_path_there_is() {
    let (api, _) = api(vec![]);
    let request = Request::get("/api/openapi.json")
        .body(Body::empty())
        .unwrap();
    let (status, headers, text) = ask(&api, request).await;
    assert_eq!(status, 200);
    assert_eq!(
        headers["content-type"],
        "application/vnd.oai.openapi+json;version=3.1"
    );
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["info"]["title"], "rstream Engine API");
    for path in document["paths"].as_object().unwrap().keys() {
        let (status, _) = get_with(&api, None, &path.replace("{id}", "x")).await;
        assert_ne!(status, 404, "{path}");
    }
}
