//! Metrics and probes over plain HTTP.
//!
//! `/livez`: the process answers. `/readyz`: it serves; 503 once it drains. A target that cannot be reached does not make a
//! replica unready, since the other replicas cannot reach it either; nor does an archive that cannot be used, which a second line
//! tells of. `/metrics`: `OpenMetrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::archive::{Archive, Condition};
use crate::config::AdminListen;
use crate::telemetry::Metrics;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn bind(listen: AdminListen) -> Result<Option<TcpListener>, ServeError> {
    match listen {
        AdminListen::Off => Ok(None),
        AdminListen::At(at) => TcpListener::bind(at).await.map(Some).map_err(|source| ServeError::Admin { at, source }),
    }
}

/// Answers until `stop`; without a listener it waits for that.
pub(super) async fn serve(
    listener: Option<TcpListener>,
    metrics: Arc<Metrics>,
    archive: Option<Arc<Archive>>,
    draining: CancellationToken,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let Some(listener) = listener else {
        stop.cancelled().await;
        return Ok(());
    };
    let at = listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    tracing::info!("metrics and probes are answered on http://{at}");
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state((draining, archive)))
        .route("/metrics", get(text).with_state(metrics));
    tokio::select! {
        served = axum::serve(listener, router) => served.map_err(|source| ServeError::Admin { at, source }),
        () = stop.cancelled() => Ok(()),
    }
}

type Readiness = (CancellationToken, Option<Arc<Archive>>);

async fn ready(State((draining, archive)): State<Readiness>) -> (StatusCode, String) {
    if draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    let archive = archive.and_then(|archive| archive.condition()).map(|condition| {
        let Condition { reason, lasts, waiting } = condition;
        let fix = reason.fix();
        format!("archive: cannot be used for {} s, {waiting} executions wait for it; {fix}\n", lasts.as_secs())
    });
    (StatusCode::OK, format!("ready\n{}", archive.unwrap_or_default()))
}

async fn text(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
