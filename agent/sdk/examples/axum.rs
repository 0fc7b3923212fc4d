//! Serves an axum router through a tunnel.
//!
//! ```text
//! ADIT_ENGINE=edge.example.com ADIT_TOKEN=... cargo run --features axum --example axum
//! ```

use adit_agent::{Client, TunnelOptions};
use axum::{Router, routing::get};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (engine, token) = (std::env::var("ADIT_ENGINE")?, std::env::var("ADIT_TOKEN")?);

    let client = Client::builder()
        .engine(engine)
        .token(token)
        .connect()
        .await?;
    let tunnel = client.create_tunnel(TunnelOptions::http()).await?;
    println!("{}", tunnel.forwarding().unwrap_or_default());
    let router = Router::new().route("/", get(|| async { "hello from behind the tunnel\n" }));
    axum::serve(tunnel, router).await?;
    Ok(())
}
