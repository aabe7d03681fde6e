// What the switch sends us: a fixed set of slots, each filled by whoever holds it. The CSRC says who.

export interface Slot {
  kind: "audio" | "video";
  number: number;
  transceiver: RTCRtpTransceiver;
  /** CSRC of the holder; 0: nobody. */
  source: number;
  switches: number;
  /** When the holder's last packet came and when he was last loud, ms of the performance clock. */
  heard: number;
  loud: number;
}

export interface SwitchRecord {
  at: Date;
  kind: "audio" | "video";
  slot: number;
  from: number;
  to: number;
}

const HISTORY = 200;
/** Linear level from which somebody speaks: -40 dBov. */
const LOUD = 0.01;
/** Somebody speaks until this long after the last loud packet. */
const HANGOVER_MS = 600;
/** Of two slots with one holder, the one without packets for so long is nobody's. */
const DOUBLED_MS = 500;

export class Slots {
  readonly slots: Slot[] = [];
  readonly history: SwitchRecord[] = [];
  private readonly gone = new Set<number>();

  constructor(private readonly pc: RTCPeerConnection) {}

  /** Reads who holds each slot now. True: something changed. */
  poll(): boolean {
    let changed = false;
    const now = performance.now();
    const count = { audio: 0, video: 0 };
    for (const [i, transceiver] of this.pc.getTransceivers().entries()) {
      const kind = transceiver.receiver.track.kind as "audio" | "video";
      const number = count[kind]++;
      const slot = (this.slots[i] ??= { kind, number, transceiver, source: 0, switches: 0, heard: 0, loud: 0 });
      const newest = transceiver.receiver
        .getContributingSources()
        .filter((s) => !this.gone.has(s.source))
        .reduce<RTCRtpContributingSource | undefined>((a, b) => (!a || b.timestamp > a.timestamp ? b : a), undefined);
      if (!newest) continue;
      const heard = newest.timestamp - performance.timeOrigin;
      if (heard <= slot.heard && newest.source !== slot.source) continue; // what released the slot is newer
      slot.heard = heard;
      const level = newest.audioLevel ?? transceiver.receiver.getSynchronizationSources()[0]?.audioLevel ?? 0;
      if (kind === "audio" && level > LOUD) slot.loud = heard;
      changed = this.fill(slot, newest.source) || changed;
    }
    for (const slot of this.of("video")) {
      const newer = (s: Slot): boolean => s !== slot && s.source === slot.source && s.heard > slot.heard;
      if (slot.source && now - slot.heard > DOUBLED_MS && this.of("video").some(newer)) changed = this.fill(slot, 0) || changed;
    }
    return changed;
  }

  private fill(slot: Slot, source: number): boolean {
    if (slot.source === source) return false;
    this.history.push({ at: new Date(), kind: slot.kind, slot: slot.number, from: slot.source, to: source });
    if (this.history.length > HISTORY) this.history.shift();
    slot.source = source;
    if (source) slot.switches += 1;
    return true;
  }

  /** Those who have left hold nothing, whatever their last packets say. */
  setGone(sources: Iterable<number>): void {
    this.gone.clear();
    for (const source of sources) this.gone.add(source);
    for (const slot of this.slots) if (slot && this.gone.has(slot.source)) this.fill(slot, 0);
  }

  /** Who is speaking now, by CSRC. */
  speaking(): Set<number> {
    const now = performance.now();
    return new Set(this.of("audio").filter((s) => s.source && now - s.loud < HANGOVER_MS).map((s) => s.source));
  }

  of(kind: "audio" | "video"): Slot[] {
    return this.slots.filter((s) => s && s.kind === kind);
  }
}
