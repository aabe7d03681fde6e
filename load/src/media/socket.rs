//! A UDP socket of one m-line, or of a bundle of them, shared by the thread that reads it and the one that sends.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// Kernel buffer for what has not been read. A key frame to each of a thousand legs comes at once, but to a socket
/// each; more than this is seconds of video.
const RECEIVE_BUFFER: usize = 1 << 20;

/// µs since the engine began.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// One that begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }

    /// That instant as others count.
    #[must_use]
    pub fn instant(self, at: u64) -> Instant {
        self.0 + std::time::Duration::from_micros(at)
    }
}

/// The socket.
#[derive(Debug)]
pub struct MediaSocket {
    udp: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl MediaSocket {
    /// Binds to an address; port 0 is any.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        // the kernel grants what it may
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&address.into())?;
        let udp: UdpSocket = socket.into();
        // also turns on GRO and arrival times, and makes it non-blocking
        let state = UdpSocketState::new(UdpSockRef::from(&udp))?;
        let local = udp.local_addr()?;
        Ok(Self { udp, state, local })
    }

    /// Its address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Reads a batch; `WouldBlock` when there is none.
    ///
    /// # Errors
    /// What the system says.
    #[inline]
    pub fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        self.state.recv(UdpSockRef::from(&self.udp), buffers, metas)
    }

    /// Sends a datagram; whether the kernel took it.
    #[must_use]
    pub fn send(&self, datagram: &[u8], to: SocketAddr) -> bool {
        self.udp.send_to(datagram, to).is_ok()
    }
}

impl AsFd for MediaSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}
