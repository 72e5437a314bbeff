//! The Open Inference Protocol over HTTP for local programs.

pub mod activity;
pub mod routes;
pub mod shadow;
pub mod tensors;

use crate::guest::GuestError;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use routes::{Absent, Answered, Routes, Served};
use sandpiper_core::tensor::{Dim, TensorSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const HEADER_LENGTH: &str = "inference-header-content-length";

/// The HTTP API over these routes; request bodies are bounded.
pub fn router(routes: Arc<Routes>, max_body_bytes: usize) -> Router {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(metadata))
        .route(
            "/v2/models/{model}/versions/{version}/ready",
            get(model_ready),
        )
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
        .route("/sandpiper/status", get(status))
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .with_state(routes)
}

fn reply(status: StatusCode, value: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, value.to_string()).into_response()
}

fn refuse(status: StatusCode, why: impl std::fmt::Display) -> Response {
    reply(status, &json!({ "error": why.to_string() }))
}

type App = State<Arc<Routes>>;

async fn server() -> Response {
    let value = json!({
        "name": "sandpiper-agent",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    });
    reply(StatusCode::OK, &value)
}

async fn ready(State(routes): App) -> StatusCode {
    if routes.ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn status(State(routes): App) -> Response {
    reply(StatusCode::OK, &routes.status())
}

/// Seconds after which a request that met a full queue or a restart is worth repeating.
const RETRY_AFTER: Duration = Duration::from_secs(1);

fn try_later(why: impl std::fmt::Display, after: Duration) -> Response {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    let seconds = HeaderValue::from(after.as_secs().max(1));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

fn absent(absent: &Absent) -> Response {
    match absent {
        Absent::Unknown(_) | Absent::Version { .. } => refuse(StatusCode::NOT_FOUND, absent),
        Absent::NotNow { retry_after, .. } => try_later(absent, *retry_after),
    }
}

fn describe(served: &Served) -> Response {
    let tensor = |spec: &TensorSpec| {
        let dim = |d: &Dim| match d {
            Dim::Batch => -1,
            Dim::Fixed(n) => i64::from(*n),
        };
        let shape: Vec<i64> = spec.dims.iter().map(dim).collect();
        json!({ "name": spec.name, "datatype": spec.dtype.oip_name(), "shape": shape })
    };
    let list = |all: &[&TensorSpec]| all.iter().map(|s| tensor(s)).collect::<Vec<_>>();
    let value = json!({
        "name": served.by.model,
        "versions": [served.by.version],
        "platform": "sandpiper_wasm",
        "inputs": list(&served.inputs()),
        "outputs": list(&served.outputs()),
        "parameters": { "variant": served.by.variant },
    });
    reply(StatusCode::OK, &value)
}

/// The path of a model: its name, and its version if the path has one.
#[derive(Debug, Deserialize)]
struct Named {
    model: String,
    #[serde(default)]
    version: Option<String>,
}

impl Named {
    fn find(&self, routes: &Routes) -> Result<Arc<Served>, Box<Response>> {
        let found = routes.find(&self.model, self.version.as_deref());
        found.map_err(|why| Box::new(absent(&why)))
    }
}

async fn metadata(State(routes): App, Path(named): Path<Named>) -> Response {
    named.find(&routes).map_or_else(|r| *r, |s| describe(&s))
}

async fn model_ready(State(routes): App, Path(named): Path<Named>) -> Response {
    named
        .find(&routes)
        .map_or_else(|r| *r, |_| StatusCode::OK.into_response())
}

async fn infer(
    State(routes): App,
    Path(named): Path<Named>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let served = match named.find(&routes) {
        Ok(served) => served,
        Err(response) => return *response,
    };
    match body {
        Ok(body) => answer(&routes, served, named.version.is_some(), &headers, &body).await,
        // 413 for a body beyond the limit, 400 for one that broke off.
        Err(rejection) => {
            served.rejected();
            refuse(rejection.status(), rejection.body_text())
        }
    }
}

async fn nowhere(uri: Uri) -> Response {
    let why = format!("there is nothing at `{}`", uri.path());
    refuse(StatusCode::NOT_FOUND, why)
}

async fn answer(
    routes: &Arc<Routes>,
    served: Arc<Served>,
    version_named: bool,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let header_len = match headers
        .get(HEADER_LENGTH)
        .map(|v| v.to_str().map(str::parse))
    {
        None => None,
        Some(Ok(Ok(n))) => Some(n),
        Some(_) => {
            served.rejected();
            return refuse(
                StatusCode::BAD_REQUEST,
                format!("{HEADER_LENGTH} is not a number"),
            );
        }
    };
    let (inputs, outputs) = (served.inputs(), served.outputs());
    let parsed = tensors::parse(body, header_len, &inputs, &outputs, served.abi.max_batch);
    let mut request = match parsed {
        Ok(request) => request,
        Err(error) => {
            served.rejected();
            return refuse(StatusCode::BAD_REQUEST, error);
        }
    };
    let given = std::mem::take(&mut request.inputs);
    let result = if version_named {
        let result = routes.run(&served, request.batch, given).await;
        result.map(|outputs| Answered {
            by: served.clone(),
            outputs,
            shadow: None,
        })
    } else {
        routes.infer(served.clone(), request.batch, given).await
    };
    match result {
        Ok(answered) => {
            let by = &answered.by.by;
            let names = (by.model.as_str(), by.version.as_str(), by.variant.as_str());
            let (bytes, length) = tensors::render(&request, names, &outputs, &answered.outputs);
            if let Some(shadow) = answered.shadow {
                shadow.follow(routes);
            }
            match length {
                None => {
                    let kind = [(header::CONTENT_TYPE, "application/json".to_owned())];
                    (kind, bytes).into_response()
                }
                Some(n) => {
                    let octets = (
                        header::CONTENT_TYPE.as_str(),
                        "application/octet-stream".into(),
                    );
                    ([octets, (HEADER_LENGTH, n.to_string())], bytes).into_response()
                }
            }
        }
        Err(error @ GuestError::BadRequest(_)) => refuse(StatusCode::BAD_REQUEST, error),
        Err(error @ (GuestError::Busy | GuestError::Gone(_))) => try_later(error, RETRY_AFTER),
        Err(error @ (GuestError::Code(_) | GuestError::Died(_) | GuestError::Load(_))) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
    }
}

#[cfg(test)]
mod tests;
