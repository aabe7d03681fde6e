//! sendmmsg with UDP_SEGMENT and a source address, and a socket's count of lost datagrams, which no crate offers without
//! `unsafe`; here is all there is of it.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libc::{c_int, c_void, cmsghdr, in_pktinfo, in6_pktinfo, iovec, mmsghdr};
use socket2::SockAddr;

/// One message of a call.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// To whom.
    pub remote: SocketAddr,
    /// From this address of the machine, or the one the system chooses; of the remote's family.
    pub source: Option<IpAddr>,
    /// Cut into datagrams of so many bytes each but the last; 0: one datagram.
    pub segment: u16,
    /// How many datagrams that makes; the kernel counts for itself.
    pub datagrams: usize,
    /// The bytes, in order.
    pub parts: &'a [&'a [u8]],
}

/// Both control messages of IPv6, the larger ones: CMSG_SPACE of in6_pktinfo and of a u16.
const CONTROL: usize = 64;

/// Control messages are aligned like their header.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Room for the kernel's view of the messages of a call. What its pointers lead to is alive during the call only.
#[derive(Default)]
pub struct Room {
    headers: Vec<mmsghdr>,
    parts: Vec<iovec>,
    remotes: Vec<SockAddr>,
    controls: Vec<Control>,
}

impl Room {
    /// Sends the messages; how many of them, from the first, the kernel took.
    ///
    /// # Errors
    /// Why the first was not taken.
    pub fn send(&mut self, socket: BorrowedFd<'_>, messages: &[Message<'_>]) -> io::Result<usize> {
        self.headers.clear();
        self.parts.clear();
        self.remotes.clear();
        self.controls.clear();
        for message in messages {
            self.parts.extend(message.parts.iter().map(|part| iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            }));
            self.remotes.push(message.remote.into());
            self.controls.push(Control([0; CONTROL]));
        }
        // Nothing is pushed to these any more, so that their elements stay where they are.
        let mut first_part = 0;
        for (at, message) in messages.iter().enumerate() {
            // SAFETY: all of msghdr's fields are pointers and integers, for which zero is a value.
            let mut header: mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = self.remotes[at].as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = self.remotes[at].len();
            header.msg_hdr.msg_iov = self.parts[first_part..].as_mut_ptr();
            header.msg_hdr.msg_iovlen = message.parts.len();
            first_part += message.parts.len();
            let control = &mut self.controls[at];
            let written = control.write(message);
            if written > 0 {
                header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                header.msg_hdr.msg_controllen = written;
            }
            self.headers.push(header);
        }
        // SAFETY: the headers are as many as the vector has, and each leads to a name, parts and a control buffer of the
        // lengths it states, which live in `self` or are borrowed by `messages`. The kernel only reads what they lead to.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Place of the drops among the numbers that SO_MEMINFO gives (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;

/// Datagrams that a socket had no room for since it was opened; wraps. 0 where the kernel does not say.
pub fn overruns(socket: BorrowedFd<'_>) -> u32 {
    let mut numbers = [0u32; SK_MEMINFO_DROPS + 1];
    let mut len = mem::size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `numbers`, which has so many, and then how many into `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &mut len,
        )
    };
    match result {
        0 => numbers[SK_MEMINFO_DROPS],
        _ => 0,
    }
}

impl Control {
    /// Writes what goes along with a message; its length.
    fn write(&mut self, message: &Message<'_>) -> usize {
        let mut at = 0;
        match message.source {
            Some(IpAddr::V4(ip)) => {
                let info = in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                at = self.put(at, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(ip)) => {
                let info = in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                at = self.put(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if message.segment > 0 {
            at = self.put(at, libc::SOL_UDP, libc::UDP_SEGMENT, message.segment);
        }
        at
    }

    /// Appends one control message at `at`, a multiple of the header's alignment; where the next begins.
    fn put<T: Copy>(&mut self, at: usize, level: c_int, kind: c_int, value: T) -> usize {
        // SAFETY: both only compute with lengths.
        let (space, len) = unsafe {
            let size = mem::size_of::<T>() as u32;
            (
                libc::CMSG_SPACE(size) as usize,
                libc::CMSG_LEN(size) as usize,
            )
        };
        assert!(at + space <= CONTROL, "CONTROL has room for all there is");
        let start = self.0[at..at + space].as_mut_ptr();
        // SAFETY: `start` has `space` bytes, which is the header, the value and padding (asserted); it is aligned like the
        // header, because the buffer is and CMSG_SPACE is a multiple of that; the value is written unaligned.
        unsafe {
            let header: *mut cmsghdr = start.cast();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = len;
            let data: *mut c_void = libc::CMSG_DATA(header).cast();
            ptr::write_unaligned(data.cast(), value);
        }
        at + space
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 4096];
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
        (buffer[..len].to_vec(), from)
    }

    #[test]
    fn each_message_goes_to_its_remote_in_its_segments_from_its_source() {
        for (any, own, other) in [("0.0.0.0", "127.0.0.1", "127.0.0.2"), ("::", "::1", "::1")] {
            let bind = |ip: &str| {
                let ip: IpAddr = ip.parse().expect("an address");
                UdpSocket::bind(SocketAddr::new(ip, 0)).expect("a port")
            };
            let sender = bind(any);
            let receivers = [bind(own), bind(own), bind(own)];
            let remote = |at: usize| receivers[at].local_addr().expect("bound");
            let source = Some(other.parse().expect("an address"));
            let messages = [
                Message {
                    remote: remote(0),
                    source: None,
                    segment: 0,
                    datagrams: 1,
                    parts: &[b"lone"],
                },
                Message {
                    remote: remote(1),
                    source,
                    segment: 3,
                    datagrams: 3,
                    parts: &[b"one", b"two", b"3"],
                },
                Message {
                    remote: remote(2),
                    source,
                    segment: 0,
                    datagrams: 1,
                    parts: &[b"in ", b"parts"],
                },
            ];
            let sent = Room::default().send(sender.as_fd(), &messages);
            assert_eq!(sent.expect("sent"), 3);
            assert_eq!(receive(&receivers[0]).0, b"lone");
            for expected in [&b"one"[..], b"two", b"3"] {
                let (bytes, from) = receive(&receivers[1]);
                assert_eq!(bytes, expected);
                assert_eq!(Some(from.ip()), source);
            }
            let (bytes, from) = receive(&receivers[2]);
            assert_eq!(bytes, b"in parts");
            assert_eq!(Some(from.ip()), source);
        }
    }

    #[test]
    fn what_a_full_socket_loses_is_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert_eq!(overruns(receiver.as_fd()), 0);
        let to = receiver.local_addr().expect("bound");
        for _ in 0..2_000 {
            sender.send_to(&[0; 60_000], to).expect("sent");
        }
        let lost = overruns(receiver.as_fd());
        assert!(lost > 0 && lost <= 2_000, "{lost}");
    }

    #[test]
    fn the_first_message_s_error_is_told_and_a_later_one_s_shortens_the_count() {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let good = Message {
            remote: receiver.local_addr().expect("bound"),
            source: None,
            segment: 0,
            datagrams: 1,
            parts: &[b"x"],
        };
        let bad = Message {
            remote: "[::1]:9".parse().expect("an address"),
            ..good
        };
        let mut room = Room::default();
        assert!(room.send(sender.as_fd(), &[bad, good]).is_err());
        let sent = room.send(sender.as_fd(), &[good, bad, good]);
        assert_eq!(sent.expect("sent"), 1);
    }
}
