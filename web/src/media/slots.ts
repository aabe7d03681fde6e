// What the switch sends us: a fixed set of slots, each filled by whoever holds it. The CSRC says who.

export interface Slot {
  kind: "audio" | "video";
  number: number;
  transceiver: RTCRtpTransceiver;
  /** CSRC of the holder; 0: nobody yet. */
  source: number;
  /** Holder's audio level 0..1 where the packets carry one. */
  level: number;
  switches: number;
}

export interface SwitchRecord {
  at: Date;
  kind: "audio" | "video";
  slot: number;
  from: number;
  to: number;
}

const HISTORY = 200;
/** A contributing source older than this no longer holds the slot. */
const STALE_MS = 3000;

export class Slots {
  readonly slots: Slot[] = [];
  readonly history: SwitchRecord[] = [];

  constructor(private readonly pc: RTCPeerConnection) {}

  /** Reads who holds each slot now. True: something changed. */
  poll(): boolean {
    let changed = false;
    const count = { audio: 0, video: 0 };
    for (const [i, transceiver] of this.pc.getTransceivers().entries()) {
      const kind = transceiver.receiver.track.kind as "audio" | "video";
      const number = count[kind]++;
      const slot = (this.slots[i] ??= { kind, number, transceiver, source: 0, level: 0, switches: 0 });
      const newest = transceiver.receiver
        .getContributingSources()
        .reduce<RTCRtpContributingSource | undefined>((a, b) => (!a || b.timestamp > a.timestamp ? b : a), undefined);
      if (!newest) continue;
      const age = performance.timeOrigin + performance.now() - newest.timestamp;
      slot.level = age < STALE_MS && kind === "audio" ? (newest.audioLevel ?? 0) : 0;
      if (newest.source !== slot.source) {
        this.history.push({ at: new Date(), kind, slot: number, from: slot.source, to: newest.source });
        if (this.history.length > HISTORY) this.history.shift();
        slot.source = newest.source;
        slot.switches += 1;
        changed = true;
      }
    }
    return changed;
  }

  of(kind: "audio" | "video"): Slot[] {
    return this.slots.filter((s) => s && s.kind === kind);
  }
}
