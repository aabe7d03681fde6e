//! How often the heap is asked for one proxied INVITE. In a file of its own: the counter is the process's
//! allocator, and another test beside it would count too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rostrum_benches::sip_load::{INVITE, proxy};
use sip::Limits;

/// Counts, and leaves the work to the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes unchanged to `System`, which keeps the contract.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised us; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised us; `ptr` came from `System`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most a message may cost.
const AT_MOST: usize = 5;

#[test]
fn a_proxied_invite_costs_at_most_five_allocations() {
    // As a socket hands it over: a buffer of its own, not counted.
    let received = Bytes::copy_from_slice(INVITE);
    let limits = Limits::default();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let sent = proxy(received, &limits, true);
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    println!(
        "{count} allocations for a proxied INVITE of {} bytes",
        INVITE.len()
    );
    assert!(sent.len() > INVITE.len());
    assert!(count > 0, "the counter does not count");
    assert!(count <= AT_MOST, "{count} allocations");
}
