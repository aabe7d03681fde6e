//! SIP over WebSocket (RFC 7118): one message a frame, text or binary, over a stream that an HTTP server has upgraded.

use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use sip::Hop;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use crate::connection::{
    Established, LINGER, Patience, ended, finish, next_outgoing, own, written,
};
use crate::flows::{Handle, Outbox};
use crate::transports::Shared;
use crate::{Input, metrics};

/// Read buffer of each connection. Raising it costs memory for every browser.
const READ_BUFFER: usize = 4_096;
/// Pings without any answer after which a browser is taken to be gone.
const LOST_PINGS: u32 = 2;

/// Runs an upgraded stream to its end.
pub(crate) async fn run<S>(shared: &Shared, stream: S, mut established: Established)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    metrics::opened(established.hop.transport);
    let limit = shared.options.limits.message;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(shared.options.write_queue_bytes + limit + READ_BUFFER)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (mut sink, source) = socket.split();
    let drain = CancellationToken::new();
    let reason = {
        let mut write = std::pin::pin!(write_all(
            shared,
            &mut sink,
            &mut established.outbox,
            &drain
        ));
        let reason = tokio::select! {
            reason = read_all(shared, source, established.hop, &established.handle) => reason,
            result = &mut write => ended(&result),
            () = established.handle.closing.cancelled() => "closed",
        };
        drain.cancel();
        if reason != "write" {
            let _ = timeout(LINGER, &mut write).await;
        }
        reason
    };
    let farewell = CloseFrame {
        code: close_code(reason),
        reason: Utf8Bytes::from_static(reason),
    };
    let _ = timeout(LINGER, sink.send(Message::Close(Some(farewell)))).await;
    finish(shared, established, reason).await;
}

fn close_code(reason: &str) -> CloseCode {
    match reason {
        "too_large" => CloseCode::Size,
        "closed" | "element_gone" => CloseCode::Away,
        "peer" => CloseCode::Normal,
        _ => CloseCode::Policy,
    }
}

/// Writes the queue, and pings in its silences.
async fn write_all<W>(
    shared: &Shared,
    sink: &mut W,
    outbox: &mut Outbox,
    drain: &CancellationToken,
) -> Result<(), WriteError>
where
    W: futures_util::Sink<Message, Error = Error> + Unpin,
{
    loop {
        let frame = match timeout(shared.options.websocket_ping, next_outgoing(outbox, drain)).await
        {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => frame(bytes),
            Err(_) => Message::Ping(Bytes::new()),
        };
        timeout(shared.options.write_timeout, sink.send(frame))
            .await
            .map_err(|_| WriteError)?
            .map_err(|_| WriteError)?;
        written(outbox);
    }
}

#[derive(Debug)]
struct WriteError;

/// Text where it is UTF-8, as nearly all SIP is; else binary (RFC 7118 §5).
fn frame(bytes: Bytes) -> Message {
    match Utf8Bytes::try_from(bytes.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    }
}

/// Reads until the peer, the element or a limit ends it; returns why.
async fn read_all<R>(shared: &Shared, mut source: R, hop: Hop, handle: &Handle) -> &'static str
where
    R: Stream<Item = Result<Message, Error>> + Unpin,
{
    let limits = shared.options.limits;
    let mut patience = Patience::new();
    loop {
        let (deadline, late) = patience.deadline(&shared.options);
        // Any frame counts, so that a browser that only answers pings stays.
        let lost = Instant::now() + shared.options.websocket_ping * LOST_PINGS;
        let (deadline, late) = if lost < deadline {
            (lost, "lost")
        } else {
            (deadline, late)
        };
        let bytes = match timeout_at(deadline, source.next()).await {
            Err(_) => return late,
            Ok(None | Some(Ok(Message::Close(_)))) => return "peer",
            Ok(Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. })))) => {
                return "too_large";
            }
            Ok(Some(Err(Error::Protocol(_) | Error::Utf8(_)))) => return "bad_framing",
            Ok(Some(Err(_))) => return "reset",
            Ok(Some(Ok(Message::Text(text)))) => Bytes::from(text),
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
            Ok(Some(Ok(_))) => continue,
        };
        patience.heard(false);
        if bytes.iter().all(|b| matches!(b, b'\r' | b'\n')) {
            // Not in RFC 7118, but clients send the stream keepalive here too, and wait for its answer.
            if bytes.len() >= 4 {
                let _ = handle.push(own(hop, Bytes::from_static(b"\r\n")));
            }
            continue;
        }
        patience.message(&bytes, &limits);
        metrics::received(hop.transport);
        if !shared.deliver(Input::Message { hop, bytes }).await {
            return "element_gone";
        }
    }
}
