//! One TCP or TLS connection: cutting messages out of it, answering keepalives, writing what is queued.
//!
//! Reading and writing go on beside each other in one task, so that a peer that does not read can still
//! be heard, and the other way round.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use sip::frame::{Frame, FrameError, Framer};
use sip::{FlowId, Hop, Limits, Message, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::flows::{Handle, Outbox, Outgoing, Permit};
use crate::transports::Shared;
use crate::{Input, metrics};

/// How long a connection that is being closed may still take to write what was queued.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Room kept free in the read buffer. Raising it costs memory for every connection.
const READ_ROOM: usize = 4_096;

/// One connection that is established, with all its task needs.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) flow: FlowId,
    /// With `flow` and `local` set.
    pub(crate) hop: Hop,
    pub(crate) handle: Handle,
    pub(crate) outbox: Outbox,
    /// Held until the end.
    pub(crate) permit: Permit,
}

impl Established {
    /// Enters an accepted connection into the table.
    pub(crate) fn accepted(shared: &Shared, hop: Hop, permit: Permit) -> Self {
        let target = crate::flows::Target {
            transport: hop.transport,
            remote: hop.remote,
            name: None,
        };
        let (flow, handle, outbox) = shared.flows.insert(target);
        let hop = Hop {
            flow: Some(flow),
            ..hop
        };
        Self {
            flow,
            hop,
            handle,
            outbox,
            permit,
        }
    }
}

/// When a peer that says too little is given up.
#[derive(Debug)]
pub(crate) struct Patience {
    opened: Instant,
    heard: Instant,
    partial_since: Option<Instant>,
    proven: bool,
}

impl Patience {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            opened: now,
            heard: now,
            partial_since: None,
            proven: false,
        }
    }

    /// Bytes came; `partial`: a message is begun and not complete.
    pub(crate) fn heard(&mut self, partial: bool) {
        self.heard = Instant::now();
        self.partial_since = match (partial, self.partial_since) {
            (true, None) => Some(self.heard),
            (true, since) => since,
            (false, _) => None,
        };
    }

    /// A message came; the first well-formed one proves that SIP is spoken here.
    pub(crate) fn message(&mut self, bytes: &Bytes, limits: &Limits) {
        self.partial_since = None;
        if !self.proven {
            self.proven = Message::parse(bytes.clone(), limits).is_ok_and(|m| m.defect().is_none());
        }
    }

    /// When to give up, and what that is called.
    pub(crate) fn deadline(&self, options: &crate::Options) -> (Instant, &'static str) {
        let mut first = (self.heard + options.idle_timeout, "idle");
        if !self.proven {
            first = first.min((
                self.opened + options.first_message_timeout,
                "no_valid_message",
            ));
        }
        if let Some(since) = self.partial_since {
            first = first.min((since + options.message_timeout, "message_too_slow"));
        }
        first
    }
}

/// Runs a connection to its end.
pub(crate) async fn run<S>(shared: &Shared, stream: S, mut established: Established)
where
    S: AsyncRead + AsyncWrite + Send,
{
    metrics::opened(established.hop.transport);
    let (reader, mut writer) = tokio::io::split(stream);
    // Not cancelled with the reader: what is queued is still written, a refusal of a bad message above all.
    let drain = CancellationToken::new();
    let reason = {
        let mut write = std::pin::pin!(write_all(
            shared,
            &mut writer,
            &mut established.outbox,
            &drain
        ));
        let reason = tokio::select! {
            reason = read_all(shared, reader, established.hop, &established.handle) => reason,
            result = &mut write => ended(&result),
            () = established.handle.closing.cancelled() => "closed",
        };
        drain.cancel();
        if reason != "write" {
            let _ = timeout(LINGER, &mut write).await;
        }
        reason
    };
    let _ = timeout(LINGER, writer.shutdown()).await;
    finish(shared, established, reason).await;
}

/// Ends a connection in the table and tells the element.
pub(crate) async fn finish(shared: &Shared, established: Established, reason: &'static str) {
    let Established {
        flow,
        hop,
        mut outbox,
        permit,
        ..
    } = established;
    let reason = if outbox.was_slow() {
        "slow_consumer"
    } else {
        reason
    };
    tracing::debug!(flow = flow.0, remote = %hop.remote, reason, "connection closed");
    shared.flows.remove(flow);
    metrics::closed(hop.transport, reason);
    fail_unsent(shared, &mut outbox);
    drop(permit);
    shared.deliver(Input::FlowClosed(flow)).await;
}

/// Reports everything still queued as not sent.
pub(crate) fn fail_unsent(shared: &Shared, outbox: &mut Outbox) {
    for outgoing in outbox.unsent() {
        if let Some(id) = outgoing.id {
            shared.send_failed(id, outgoing.hop);
        }
    }
}

pub(crate) fn ended<E>(result: &Result<(), E>) -> &'static str {
    if result.is_ok() { "closed" } else { "write" }
}

/// Writes the queue until it is closed, or `drain` is cancelled and it is empty.
async fn write_all<W>(
    shared: &Shared,
    writer: &mut W,
    outbox: &mut Outbox,
    drain: &CancellationToken,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some(bytes) = next_outgoing(outbox, drain).await {
        let write = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        timeout(shared.options.write_timeout, write).await??;
        written(outbox);
    }
    Ok(())
}

/// The next message to write; `None` when there will be none.
pub(crate) async fn next_outgoing(outbox: &mut Outbox, drain: &CancellationToken) -> Option<Bytes> {
    let outgoing = tokio::select! {
        biased;
        outgoing = outbox.queue.recv() => outgoing,
        () = drain.cancelled() => {
            outbox.queue.close();
            outbox.queue.recv().await
        }
    }?;
    Some(outbox.taken(outgoing))
}

/// Counts what was being written as sent.
pub(crate) fn written(outbox: &mut Outbox) {
    if let Some(Outgoing {
        id: Some(_), hop, ..
    }) = outbox.current.take()
    {
        metrics::sent(hop.transport);
    }
}

/// Reads until the peer, the element or a limit ends it; returns why.
async fn read_all<R>(shared: &Shared, mut reader: R, hop: Hop, handle: &Handle) -> &'static str
where
    R: AsyncRead + Unpin,
{
    let limits = shared.options.limits;
    let mut framer = Framer::new(limits);
    let mut patience = Patience::new();
    loop {
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(bytes))) => {
                    patience.message(&bytes, &limits);
                    metrics::received(hop.transport);
                    if !shared.deliver(Input::Message { hop, bytes }).await {
                        return "element_gone";
                    }
                }
                // RFC 5626 §4.4.1: a double CRLF is answered with a single one.
                Ok(Some(Frame::Ping)) => {
                    let _ = handle.push(own(hop, Bytes::from_static(b"\r\n")));
                }
                Ok(Some(Frame::Pong)) => {}
                Ok(None) => break,
                Err(error) => {
                    if let Some(answer) = refusal(&error, hop, &limits) {
                        let _ = handle.push(own(hop, answer));
                    }
                    return "bad_framing";
                }
            }
        }
        let buffer = framer.buffer_mut();
        patience.heard(!buffer.is_empty());
        buffer.reserve(READ_ROOM);
        let (deadline, late) = patience.deadline(&shared.options);
        match tokio::time::timeout_at(deadline, reader.read_buf(buffer)).await {
            Err(_) => return late,
            Ok(Err(_)) => return "reset",
            Ok(Ok(0)) => return "peer",
            Ok(Ok(_)) => {}
        }
    }
}

/// Something of our own to write.
pub(crate) fn own(hop: Hop, bytes: Bytes) -> Outgoing {
    Outgoing {
        id: None,
        hop,
        bytes,
    }
}

/// The answer to a message that could not be cut out, where its head can be read (RFC 3261 §18.3).
fn refusal(error: &FrameError, hop: Hop, limits: &Limits) -> Option<Bytes> {
    let request = Message::parse(error.answerable.clone()?, limits).ok()?;
    if !request.is_request() || *request.method() == Method::Ack || request.top_via().is_err() {
        return None;
    }
    let (status, reason) = match request.defect() {
        Some(defect) => (defect.status, defect.reason),
        None => (StatusCode::of(400), error.reason),
    };
    let tag = hop.flow.map(|f| format!("f{:x}", f.0));
    Some(Message::response(&request, status, Some(reason), tag.as_deref()).to_bytes())
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::Options;

    const GOOD: &[u8] = b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
        To: <sip:x>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

    fn options() -> Options {
        Options {
            first_message_timeout: Duration::from_secs(20),
            message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            ..Options::default()
        }
    }

    /// Seconds from now, and why.
    fn left(patience: &Patience) -> (u64, &'static str) {
        let (at, why) = patience.deadline(&options());
        (at.saturating_duration_since(Instant::now()).as_secs(), why)
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_says_anything_well_formed_is_given_up_whatever_it_sends() {
        let mut patience = Patience::new();
        assert_eq!(left(&patience), (20, "no_valid_message"));
        advance(Duration::from_secs(15)).await;
        patience.heard(false);
        patience.message(&Bytes::from_static(b"HELLO\r\n\r\n"), &Limits::default());
        assert_eq!(left(&patience), (5, "no_valid_message"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_good_message_earns_the_idle_time_which_begins_anew_with_every_byte() {
        let mut patience = Patience::new();
        patience.heard(false);
        patience.message(&Bytes::from_static(GOOD), &Limits::default());
        assert_eq!(left(&patience), (60, "idle"));
        advance(Duration::from_secs(59)).await;
        assert_eq!(left(&patience), (1, "idle"));
        patience.heard(false);
        assert_eq!(left(&patience), (60, "idle"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_dribbles_in_is_given_up_counted_from_its_first_byte() {
        let mut patience = Patience::new();
        patience.message(&Bytes::from_static(GOOD), &Limits::default());
        for second in 0..10 {
            patience.heard(true);
            assert_eq!(left(&patience), (10 - second, "message_too_slow"));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(left(&patience), (0, "message_too_slow"));
        // Once it is whole the next one has its own time.
        patience.message(&Bytes::from_static(GOOD), &Limits::default());
        patience.heard(true);
        assert_eq!(left(&patience), (10, "message_too_slow"));
    }
}
