//! The HTTP API over a guest that gives its input back.
#![allow(clippy::unwrap_used)]

use super::routes::{Routes, Served};
use crate::guest::{Answer, Boxed, Guest, GuestError};
use crate::tally::ServedBy;
use sandpiper_core::abi::{ABI_VERSION, ModuleAbi, PlacedTensor};
use sandpiper_core::names::VersionName;
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use std::sync::Arc;

struct Echo(bool);

impl Guest for Echo {
    fn infer(&self, _: u32, inputs: Vec<Vec<u8>>) -> Boxed<'_, Result<Answer, GuestError>> {
        let dies = self.0;
        Box::pin(async move {
            if dies {
                return Err(GuestError::Died("unreachable".into()));
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            Ok(Answer {
                outputs: inputs,
                latency_us: 10,
                cpu_us: 5,
            })
        })
    }
}

fn served(version: &str, dies: bool) -> Arc<Served> {
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
    Arc::new(Served::new(by, abi, Arc::new(Echo(dies))))
}

async fn start(routes: Arc<Routes>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, super::router(routes, 4096)).await });
    format!("http://{address}")
}

const BODY: &str = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[7]}]}"#;

fn post(base: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut response = agent
        .post(format!("{base}/v2/models/activity/infer"))
        .send(BODY)
        .unwrap();
    let status = response.status().as_u16();
    (status, response.body_mut().read_to_string().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_during_switches() {
    let (deaths, _keep) = tokio::sync::mpsc::channel(4);
    let routes = Arc::new(Routes::new(deaths));
    routes.switch(served("v1", false));
    let base = start(routes.clone()).await;
    let load = tokio::task::spawn_blocking(move || {
        let all = (0..60).map(|_| post(&base));
        all.filter(|(status, body)| *status != 200 || !body.contains("7.0"))
            .count()
    });
    for n in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        routes.switch(served(&format!("v{n}"), false));
    }
    assert_eq!(load.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_told_once_and_answered_with_an_error() {
    let (deaths, mut told) = tokio::sync::mpsc::channel(4);
    let routes = Arc::new(Routes::new(deaths));
    let base = start(routes.clone()).await;
    let address = base.clone();
    let missing = tokio::task::spawn_blocking(move || post(&address))
        .await
        .unwrap();
    assert_eq!(missing.0, 404);
    routes.switch(served("v1", true));
    for _ in 0..2 {
        let base = base.clone();
        let (status, body) = tokio::task::spawn_blocking(move || post(&base))
            .await
            .unwrap();
        assert_eq!(status, 500);
        assert!(body.contains("unreachable"), "{body}");
    }
    assert_eq!(told.recv().await.unwrap().1, "unreachable");
    assert!(told.try_recv().is_err());
}
