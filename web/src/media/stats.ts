// getStats, condensed to what a developer looks for.

export interface StreamReport {
  direction: "in" | "out";
  kind: string;
  mid: string;
  codec: string;
  kbps: number;
  packets: number;
  lost: number;
  lossPercent: number;
  jitterMs: number;
  rttMs: number;
  size: string;
  fps: number;
  frames: number;
  freezes: number;
}

interface Before {
  at: number;
  bytes: number;
  packets: number;
  lost: number;
}

export type Quality = "good" | "fair" | "poor" | "unknown";

export class Stats {
  reports: StreamReport[] = [];
  private before = new Map<string, Before>();

  constructor(private readonly pc: RTCPeerConnection) {}

  async refresh(): Promise<StreamReport[]> {
    const all = await this.pc.getStats();
    const reports: StreamReport[] = [];
    const seen = new Map<string, Before>();
    let rtt = 0;
    all.forEach((s) => {
      if (s.type === "candidate-pair" && s.nominated && s.currentRoundTripTime) rtt = s.currentRoundTripTime * 1000;
    });
    all.forEach((s) => {
      if (s.type !== "inbound-rtp" && s.type !== "outbound-rtp") return;
      const inbound = s.type === "inbound-rtp";
      const bytes = (inbound ? s.bytesReceived : s.bytesSent) ?? 0;
      const packets = (inbound ? s.packetsReceived : s.packetsSent) ?? 0;
      const remote = inbound ? undefined : all.get(s.remoteId);
      const lost = (inbound ? s.packetsLost : remote?.packetsLost) ?? 0;
      const was = this.before.get(s.id);
      seen.set(s.id, { at: s.timestamp, bytes, packets, lost });
      const seconds = was ? (s.timestamp - was.at) / 1000 : 0;
      const gained = was ? packets - was.packets : 0;
      const missing = was ? Math.max(0, lost - was.lost) : 0;
      const codec = all.get(s.codecId);
      reports.push({
        direction: inbound ? "in" : "out",
        kind: s.kind,
        mid: s.mid ?? "",
        codec: codec?.mimeType?.split("/")[1] ?? "",
        kbps: seconds > 0 && was ? ((bytes - was.bytes) * 8) / 1000 / seconds : 0,
        packets,
        lost,
        lossPercent: gained + missing > 0 ? (100 * missing) / (gained + missing) : 0,
        jitterMs: 1000 * ((inbound ? s.jitter : remote?.jitter) ?? 0),
        rttMs: remote?.roundTripTime ? remote.roundTripTime * 1000 : rtt,
        size: s.frameWidth ? `${s.frameWidth}×${s.frameHeight}` : "",
        fps: s.framesPerSecond ?? 0,
        frames: (inbound ? s.framesDecoded : s.framesEncoded) ?? 0,
        freezes: s.freezeCount ?? 0,
      });
    });
    this.before = seen;
    this.reports = reports;
    return reports;
  }

  quality(): Quality {
    const live = this.reports.filter((r) => r.packets > 0);
    if (live.length === 0) return "unknown";
    const loss = Math.max(...live.map((r) => r.lossPercent));
    const rtt = Math.max(...live.map((r) => r.rttMs));
    if (loss > 5 || rtt > 400) return "poor";
    return loss > 1 || rtt > 150 ? "fair" : "good";
  }
}
