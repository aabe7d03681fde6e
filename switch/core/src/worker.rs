//! stub
use crate::dtls::Identity;
use std::{net::*, sync::Arc, time::*};
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u32);
pub struct PlainPorts {
    pub rtp: SocketId,
    pub rtcp: Option<SocketId>,
    pub advertised: IpAddr,
    pub rtp_port: u16,
    pub rtcp_port: u16,
}
pub trait Ports {
    fn webrtc(&self) -> Vec<(SocketId, Vec<SocketAddr>)>;
    fn open(&mut self, ipv6: bool, with_rtcp: bool) -> Option<PlainPorts>;
    fn close(&mut self, socket: SocketId);
}
pub struct WorkerConfig {
    pub clock: crate::WallClock,
    pub video_bitrate: u32,
    pub speaker_interval: Duration,
}
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("stale")]
    Stale { highest: u64 },
    #[error("x")]
    Refused,
}
pub struct Transmit<'a> {
    pub socket: SocketId,
    pub remote: SocketAddr,
    pub bytes: &'a [u8],
}
pub struct Worker;
impl Worker {
    pub fn new(_: WorkerConfig, _: Arc<Identity>, _: [u8; 32]) -> Self {
        Self
    }
    pub fn apply(
        &mut self,
        _: Instant,
        _: &control::ApplyRequest,
        _: &mut dyn Ports,
    ) -> Result<Vec<control::LegState>, ApplyError> {
        todo!()
    }
    pub fn handle_datagram(&mut self, _: Instant, _: SocketId, _: SocketAddr, _: &mut [u8]) {}
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        None
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn handle_timeout(&mut self, _: Instant) {}
    pub fn poll_event(&mut self) -> Option<control::Event> {
        None
    }
    pub fn inspect(&self, _: Instant, _: Option<&str>) -> Vec<control::MeetingView> {
        vec![]
    }
    pub fn legs(&self) -> usize {
        0
    }
}
