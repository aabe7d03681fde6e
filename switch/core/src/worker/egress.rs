//! What a meeting sends, sealed into the batch; and a burst for thousands, made by several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::transports::Links;
use crate::link::Sending;
use crate::slot::{InPacket, Scratch, Slot};
use crate::transmit::{Job, Outlet};
use crate::{Batch, Egress, LegKey, RtpOut, TransportIndex};

/// Listeners from which on a burst is made by several threads. Fewer are served sooner than a thread begins.
pub const SPREAD_FROM: usize = 1_000;

/// Seals what the meeting sends.
pub(super) struct Out<'a, 'o> {
    pub(super) links: &'a mut Links,
    pub(super) batch: &'a mut Batch,
    pub(super) unsendable: &'a mut u64,
    /// Where more than enough goes meanwhile; `None`: it all waits in the batch.
    pub(super) outlet: Option<&'a mut (dyn Outlet + 'o)>,
}

impl Egress for Out<'_, '_> {
    fn rtp(&mut self, leg: LegKey, transport: TransportIndex, packet: RtpOut<'_>) {
        let sent = self
            .links
            .link(leg, transport)
            .is_some_and(|link| link.send_rtp(packet, self.batch));
        *self.unsendable += u64::from(!sent);
    }

    fn rtcp(&mut self, leg: LegKey, transport: TransportIndex, compound: &[u8]) {
        let sent = self
            .links
            .link(leg, transport)
            .is_some_and(|link| link.send_rtcp(compound, self.batch));
        *self.unsendable += u64::from(!sent);
    }

    fn fan_out(
        &mut self,
        now: Instant,
        packets: &[InPacket<'_>],
        direct: &[u32],
        slots: &mut [Option<Slot>],
        scratch: &mut Scratch,
    ) -> bool {
        let lanes = self.outlet.as_ref().map_or(1, |outlet| outlet.lanes());
        if lanes > 1 && direct.len() >= SPREAD_FROM {
            return self.spread(now, packets, direct, slots, lanes);
        }
        let mut waits = false;
        for &s in direct {
            if let Some(slot) = slots[s as usize].as_mut() {
                waits |= slot.send_all(now, packets, scratch, self);
            }
            if self.batch.is_enough()
                && let Some(outlet) = &mut self.outlet
            {
                outlet.send(self.batch);
            }
        }
        waits
    }
}

impl Out<'_, '_> {
    fn spread(
        &mut self,
        now: Instant,
        packets: &[InPacket<'_>],
        direct: &[u32],
        slots: &mut [Option<Slot>],
        lanes: usize,
    ) -> bool {
        let Some(outlet) = &mut self.outlet else {
            return false;
        };
        // What the listeners were sent before goes before.
        outlet.send(self.batch);
        let mut served = vec![false; slots.len()];
        direct.iter().for_each(|s| served[*s as usize] = true);
        let mut listeners: Vec<&mut Slot> = slots
            .iter_mut()
            .zip(served)
            .filter_map(|(slot, served)| slot.as_mut().filter(|_| served))
            .collect();
        // A leg is fed a stream once, so that no two of them have a link in common.
        listeners.sort_by_key(|slot| slot.leg.index());
        let mut legs = self.links.legs.iter_mut().enumerate();
        let mut ready: Vec<(&mut Slot, Option<Sending<'_>>)> = Vec::with_capacity(listeners.len());
        for slot in listeners {
            let (leg, transport) = (slot.leg, slot.transport);
            let links = legs
                .by_ref()
                .find(|(at, _)| *at == leg.index())
                .and_then(|(_, links)| links.as_mut())
                .filter(|links| links.key == leg);
            let found = links.and_then(|l| l.transports.iter_mut().find(|t| t.index == transport));
            ready.push((slot, found.and_then(|t| t.link.sending())));
        }
        let (waits, unsendable) = (AtomicBool::new(false), AtomicU64::new(0));
        let each = ready.len().div_ceil(lanes).max(1);
        let mut jobs: Vec<Job<'_>> = Vec::with_capacity(lanes);
        for part in ready.chunks_mut(each) {
            let (waits, unsendable) = (&waits, &unsendable);
            jobs.push(Box::new(move |batch, send| {
                let mut scratch = Scratch::default();
                for (slot, sending) in part {
                    let mut lane = Lane {
                        sending: sending.as_mut(),
                        batch,
                        unsendable: 0,
                    };
                    if slot.send_all(now, packets, &mut scratch, &mut lane) {
                        waits.store(true, Ordering::Relaxed);
                    }
                    unsendable.fetch_add(lane.unsendable, Ordering::Relaxed);
                    if batch.is_enough() {
                        send(batch);
                    }
                }
                send(batch);
            }));
        }
        outlet.spread(jobs);
        *self.unsendable += unsendable.into_inner();
        waits.into_inner()
    }
}

/// One listener's link, on whichever thread.
struct Lane<'a, 'l> {
    sending: Option<&'a mut Sending<'l>>,
    batch: &'a mut Batch,
    unsendable: u64,
}

impl Egress for Lane<'_, '_> {
    fn rtp(&mut self, _leg: LegKey, _transport: TransportIndex, packet: RtpOut<'_>) {
        let sent = self
            .sending
            .as_mut()
            .is_some_and(|sending| sending.rtp(packet, self.batch));
        self.unsendable += u64::from(!sent);
    }

    fn rtcp(&mut self, _leg: LegKey, _transport: TransportIndex, _compound: &[u8]) {
        self.unsendable += 1; // a slot sends none
    }
}
