//! The HTTP API over a guest that gives its input back, more or less.
#![allow(clippy::unwrap_used)]

use super::routes::{Expected, Routes, Served};
use crate::guest::{Answer, Boxed, Guest, GuestError};
use crate::tally::ServedBy;
use sandpiper_core::abi::{ABI_VERSION, ModuleAbi, PlacedTensor};
use sandpiper_core::energy::Energy;
use sandpiper_core::names::VersionName;
use sandpiper_core::telemetry::TelemetryWindow;
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Echo {
    /// What was asked.
    Same,
    /// Double of what was asked.
    Double,
    /// NaN.
    Nan,
    /// It dies.
    Dies,
}

impl Guest for Echo {
    fn end(&self) -> Boxed<'static, Option<String>> {
        Box::pin(std::future::pending())
    }

    fn lockdown(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn infer(&self, _: u32, inputs: Vec<Vec<u8>>) -> Boxed<'_, Result<Answer, GuestError>> {
        let echo = *self;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let with = |f: fn(f32) -> f32| {
                let each = |bytes: &Vec<u8>| {
                    let (all, _) = bytes.as_chunks::<4>();
                    let all = all.iter().map(|v| f(f32::from_le_bytes(*v)));
                    all.flat_map(f32::to_le_bytes).collect()
                };
                inputs.iter().map(each).collect()
            };
            let outputs = match echo {
                Echo::Same => with(|x| x),
                Echo::Double => with(|x| 2.0 * x),
                Echo::Nan => with(|_| f32::NAN),
                Echo::Dies => return Err(GuestError::Died("unreachable".into())),
            };
            Ok(Answer {
                outputs,
                latency_us: 10,
                cpu_us: 5,
            })
        })
    }
}

fn served(version: &str, echo: Echo) -> Arc<Served> {
    let dims = vec![Dim::Batch, Dim::Fixed(1)];
    let spec = TensorSpec {
        name: "x".into(),
        dtype: DType::F32,
        dims,
    };
    let at = |offset| {
        vec![PlacedTensor {
            spec: spec.clone(),
            offset,
        }]
    };
    let abi = ModuleAbi {
        abi: ABI_VERSION,
        inputs: at(0),
        outputs: at(64),
        max_batch: 4,
        memory_bytes: 65536,
        weights: None,
        bounded: true,
    };
    let by = ServedBy {
        version: VersionName::new(version).unwrap(),
        ..ServedBy::sample()
    };
    Arc::new(Served::new(by, abi, Arc::new(echo), None))
}

async fn start(routes: Arc<Routes>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, super::router(routes, 4096)).await });
    format!("http://{address}")
}

const BODY: &str = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[7]}]}"#;

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.build().into()
}

fn take(mut response: ureq::http::Response<ureq::Body>) -> Reply {
    let headers = response.headers().iter();
    Reply {
        status: response.status().as_u16(),
        headers: headers
            .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
            .collect(),
        body: response.body_mut().read_to_vec().unwrap(),
    }
}

async fn send(base: &str, path: &str, body: impl Into<Vec<u8>>, header: Option<usize>) -> Reply {
    let (url, body) = (format!("{base}{path}"), body.into());
    let job = move || {
        let mut request = client().post(url);
        if let Some(n) = header {
            request = request.header(super::HEADER_LENGTH, n.to_string());
        }
        take(request.send(body).unwrap())
    };
    tokio::task::spawn_blocking(job).await.unwrap()
}

async fn get(base: &str, path: &str) -> Reply {
    let url = format!("{base}{path}");
    let job = move || take(client().get(url).call().unwrap());
    tokio::task::spawn_blocking(job).await.unwrap()
}

/// What was counted so far, as if it had taken a thousand microjoules.
fn window(served: &Served) -> TelemetryWindow {
    let energy = Energy {
        energy_uj: 1_000,
        ..Energy::default()
    };
    let tally = served.take_tally();
    tally.close(&served.by, crate::clock::now(), energy)
}

const INFER: &str = "/v2/models/activity/infer";

fn post(base: &str) -> (u16, String) {
    let reply = take(client().post(format!("{base}{INFER}")).send(BODY).unwrap());
    (reply.status, reply.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_during_switches() {
    let routes = Arc::new(Routes::default());
    routes.switch(served("v1", Echo::Same));
    let base = start(routes.clone()).await;
    let load = tokio::task::spawn_blocking(move || {
        let all = (0..60).map(|_| post(&base));
        all.filter(|(status, body)| *status != 200 || !body.contains("7.0"))
            .count()
    });
    for n in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        routes.switch(served(&format!("v{n}"), Echo::Same));
    }
    assert_eq!(load.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_away_is_told_apart_from_one_that_is_unknown() {
    let routes = Arc::new(Routes::default());
    let base = start(routes.clone()).await;
    assert_eq!(send(&base, INFER, BODY, None).await.status, 404);
    let expected = Expected {
        versions: vec![VersionName::new("v1").unwrap()],
        why: "is being restarted".into(),
        retry_after: Duration::from_secs(3),
    };
    routes.expect([("activity".to_owned(), expected)].into());
    let away = send(&base, INFER, BODY, None).await;
    assert_eq!((away.status, &*away.headers["retry-after"]), (503, "3"));
    assert_eq!(away.json()["error"], "`activity` is being restarted");
    for path in ["", "/ready", "/versions/v1", "/versions/v1/ready"] {
        let reply = get(&base, &format!("/v2/models/activity{path}")).await;
        assert_eq!(reply.status, 503, "{path}");
    }
    let other = get(&base, "/v2/models/activity/versions/v2").await;
    assert_eq!(other.status, 404, "{}", other.text());
    assert_eq!(get(&base, "/v2/models/other").await.status, 404);
    assert_eq!(get(&base, "/v2/health/ready").await.status, 503);
    routes.switch(served("v1", Echo::Same));
    assert_eq!(send(&base, INFER, BODY, None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_an_error_and_counts_once_as_a_trap() {
    let routes = Arc::new(Routes::default());
    let base = start(routes.clone()).await;
    let dying = served("v1", Echo::Dies);
    routes.switch(dying.clone());
    let reply = send(&base, INFER, BODY, None).await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("unreachable"));
    dying.died();
    let window = window(&dying);
    assert_eq!((window.errors, window.traps), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_answers_what_a_new_one_dies_of() {
    let routes = Arc::new(Routes::default());
    let base = start(routes.clone()).await;
    let (old, new) = (served("v1", Echo::Same), served("v2", Echo::Dies));
    routes.switch(old.clone());
    assert!(
        routes.switch(new.clone()).is_none(),
        "the old one was let go"
    );
    let reply = send(&base, INFER, BODY, None).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["model_version"], "v1");
    // Who asks for the new one is told what became of it.
    let named = "/v2/models/activity/versions/v2/infer";
    assert_eq!(send(&base, named, BODY, None).await.status, 500);
    let counts = |s: &Served| {
        let window = window(s);
        (window.inferences, window.errors)
    };
    assert_eq!((counts(&old), counts(&new)), ((1, 0), (0, 2)));
    // Until the new one is there again, the old one serves.
    assert!(routes.drop_out(&new));
    assert!(Arc::ptr_eq(&routes.get("activity").unwrap(), &old));
    routes.switch(served("v2", Echo::Same));
    assert!(routes.drop_out(&old), "it was kept again");
    assert!(!routes.drop_out(&old));
    assert_eq!(routes.all().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_answers_where_a_new_one_gives_nan() {
    let routes = Arc::new(Routes::default());
    let base = start(routes.clone()).await;
    let (old, new) = (served("v1", Echo::Same), served("v2", Echo::Nan));
    routes.switch(old.clone());
    routes.switch(new.clone());
    let reply = send(&base, INFER, BODY, None).await;
    assert_eq!(reply.json()["model_version"], "v1", "{}", reply.text());
    let (new, old) = (window(&new), window(&old));
    assert_eq!((new.inferences, new.nonfinite, new.errors), (1, 1, 0));
    assert_eq!((old.inferences, old.nonfinite), (1, 0));
    // Where the version before knows no better, the new one has the word.
    routes.switch(served("v3", Echo::Nan));
    let reply = send(&base, INFER, BODY, None).await;
    assert_eq!(reply.json()["model_version"], "v3", "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_is_asked_in_the_shadow_and_the_answers_are_compared() {
    for (echo, agreed) in [(Echo::Same, 1), (Echo::Double, 0)] {
        let routes = Arc::new(Routes::default());
        let base = start(routes.clone()).await;
        let (old, new) = (served("v1", Echo::Same), served("v2", echo));
        routes.switch(old.clone());
        send(&base, INFER, BODY, None).await;
        assert_eq!(
            window(&old).outputs.compared,
            0,
            "there is nobody to compare with"
        );
        routes.switch(new.clone());
        let reply = send(&base, INFER, BODY, None).await;
        assert_eq!(reply.json()["model_version"], "v2", "{}", reply.text());
        let counted = async {
            loop {
                let window = window(&new);
                if window.outputs.compared > 0 {
                    break window;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(20), counted).await;
        let counted = counted.expect("the first request is compared");
        assert_eq!(
            (counted.outputs.compared, counted.outputs.agreed),
            (1, agreed)
        );
        let shadow = old.take_tally();
        assert_eq!(shadow.cpu_us(), 5, "the meter is told");
        assert!(shadow.is_empty(), "and nobody else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_answers_is_looked_at() {
    let routes = Arc::new(Routes::default());
    let base = start(routes.clone()).await;
    let model = served("v1", Echo::Same);
    routes.switch(model.clone());
    for data in ["[7]", "[7]", "[8]", "[9]"] {
        send(&base, INFER, BODY.replace("[7]", data), None).await;
    }
    let window = window(&model);
    assert_eq!((window.outputs.followed, window.outputs.repeated), (2, 0));
    assert_eq!(window.energy_uj, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_model_describe_themselves() {
    let routes = Arc::new(Routes::default());
    routes.switch(served("v1", Echo::Same));
    let base = start(routes).await;
    let server = get(&base, "/v2").await.json();
    assert_eq!(server["name"], "sandpiper-agent");
    assert_eq!(server["extensions"][0], "binary_tensor_data");
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(&base, path).await.status, 200);
    }
    for path in ["/v2/models/activity", "/v2/models/activity/versions/v1"] {
        let model = get(&base, path).await.json();
        assert_eq!(model["versions"][0], "v1");
        for side in ["inputs", "outputs"] {
            let tensor = &model[side][0];
            assert_eq!(tensor["name"], "x");
            assert_eq!(tensor["datatype"], "FP32");
            assert_eq!(tensor["shape"], serde_json::json!([-1, 1]));
        }
        assert_eq!(get(&base, &format!("{path}/ready")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_get_one_message_each() {
    let routes = Arc::new(Routes::default());
    routes.switch(served("v1", Echo::Same));
    let base = start(routes).await;
    let with = |from: &str, to: &str| BODY.replace(from, to);
    for (body, part) in [
        (with("[1,1]", "[1,2]"), "shape"),
        (with("FP32", "INT8"), "datatype"),
        (with("\"x\"", "\"y\""), "no input `y`"),
        (with("[7]", "[7,8]"), "elements"),
        (with("[1,1]", "[5,1]"), "batch 5"),
    ] {
        let reply = send(&base, INFER, body, None).await;
        let why = reply.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, 400, "{why}");
        assert!(why.contains(part), "{why}");
    }
    let large = send(&base, INFER, vec![b' '; 5000], None).await;
    assert_eq!(large.status, 413);
    assert!(large.json()["error"].is_string());
    let nowhere = get(&base, "/v2/model").await;
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.json()["error"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_go_both_ways_in_binary() {
    let routes = Arc::new(Routes::default());
    routes.switch(served("v1", Echo::Same));
    let base = start(routes).await;
    let head = br#"{"id":"7","inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
    let tensor: Vec<u8> = [1.5f32, -2.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let body = [&head[..], &tensor].concat();
    let path = "/v2/models/activity/versions/v1/infer";
    let reply = send(&base, path, body.clone(), Some(head.len())).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.headers["content-type"], "application/octet-stream");
    let length: usize = reply.headers[super::HEADER_LENGTH].parse().unwrap();
    let (json, binary) = reply.body.split_at(length);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["id"], "7");
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert_eq!(json["outputs"][0]["shape"], serde_json::json!([2, 1]));
    assert_eq!(binary, tensor);
    for header in [head.len() - 1, body.len() + 1] {
        let reply = send(&base, path, body.clone(), Some(header)).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
}
