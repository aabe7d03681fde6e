//! Questions to the processes' views, answered soon or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(2);

/// The body of a good answer.
///
/// # Errors
/// None came, or one that is not 200.
pub async fn call(to: SocketAddr, method: &str, path: &str, body: &str) -> Result<String, String> {
    let told = |e: &dyn std::fmt::Display| format!("http://{to}{path}: {e}");
    let asked = async {
        let mut stream = TcpStream::connect(to).await?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<String, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer
        .map_err(|_| told(&"no answer"))?
        .map_err(|e| told(&e))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| told(&"not HTTP"))?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(told(&body.trim())),
    }
}

/// [`call`], read as JSON.
///
/// # Errors
/// As of [`call`], or it is not JSON.
pub async fn json(to: SocketAddr, method: &str, path: &str, body: &str) -> Result<Value, String> {
    let text = call(to, method, path, body).await?;
    serde_json::from_str(&text).map_err(|e| format!("http://{to}{path}: {e}"))
}
