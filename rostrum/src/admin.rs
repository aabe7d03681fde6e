//! The operator's HTTP port: metrics, health, and a read-only view of what the roles hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use cluster::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

/// How long `/readyz` waits for the store.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// A running admin server.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Not ready while draining.
    draining: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Admin {
    /// Binds and serves `/metrics`, `/healthz`, `/readyz` and the roles' views.
    pub async fn start(
        listen: SocketAddr,
        metrics: PrometheusHandle,
        store: Arc<dyn Store>,
        views: Router,
    ) -> Result<Self, String> {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(|e| format!("admin.listen {listen}: {e}; is another process using it?"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let draining = Arc::new(AtomicBool::new(false));
        let is_draining = Arc::clone(&draining);
        let router = Router::new()
            .route(
                "/metrics",
                get(async move || {
                    (
                        [(
                            header::CONTENT_TYPE,
                            "text/plain; version=0.0.4; charset=utf-8",
                        )],
                        metrics.render(),
                    )
                }),
            )
            .route("/healthz", get(async || "ok\n"))
            .route(
                "/readyz",
                get(move || ready(Arc::clone(&store), Arc::clone(&is_draining))),
            )
            .merge(views);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, router)
                .with_graceful_shutdown(stopped.cancelled_owned())
                .await;
            if let Err(e) = served {
                tracing::error!("admin server ended: {e}");
            }
        });
        Ok(Self {
            address,
            draining,
            stop,
        })
    }

    /// While draining, `/readyz` answers 503.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

async fn ready(store: Arc<dyn Store>, draining: Arc<AtomicBool>) -> impl IntoResponse {
    if draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match tokio::time::timeout(STORE_PATIENCE, store.status()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(e)) => (StatusCode::SERVICE_UNAVAILABLE, format!("store: {e}\n")),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "store: no answer\n".to_owned(),
        ),
    }
}
