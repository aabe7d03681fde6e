// RTP headers on the wire, where a client does not tell its CSRC. SRTP leaves headers readable.

import { spawn } from "node:child_process";
import { once } from "node:events";

export class Wire {
  /** Watches RTP to UDP ports [low, high]. */
  static async start(low, high) {
    const wire = new Wire();
    wire.last = new Map();
    wire.child = spawn("tcpdump", ["-i", "any", "-U", "-w", "-", "--immediate-mode", "udp", "and", "dst", "portrange", `${low}-${high}`], { stdio: ["ignore", "pipe", "pipe"] });
    const ready = new Promise((resolve) => wire.child.stderr.on("data", (d) => String(d).includes("listening") && resolve()));
    let buffer = Buffer.alloc(0);
    let header = false;
    let link = 0;
    wire.child.stdout.on("data", (data) => {
      buffer = Buffer.concat([buffer, data]);
      if (!header) {
        if (buffer.length < 24) return;
        link = buffer.readUInt32LE(20);
        buffer = buffer.subarray(24);
        header = true;
      }
      while (buffer.length >= 16) {
        const length = buffer.readUInt32LE(8);
        if (buffer.length < 16 + length) return;
        wire.#packet(buffer.subarray(16, 16 + length), link);
        buffer = buffer.subarray(16 + length);
      }
    });
    await Promise.race([ready, once(wire.child, "exit").then(() => Promise.reject(new Error("tcpdump did not start")))]);
    return wire;
  }

  #packet(frame, link) {
    const offset = link === 276 ? 20 : link === 113 ? 16 : 14; // Linux cooked v2, v1, Ethernet
    const ip = frame.subarray(offset);
    if (ip.length < 48) return;
    const six = ip[0] >> 4 === 6;
    if (ip[six ? 6 : 9] !== 17) return;
    const udp = ip.subarray(six ? 40 : (ip[0] & 15) * 4);
    const rtp = udp.subarray(8);
    if (rtp.length < 12 || rtp[0] >> 6 !== 2 || (rtp[1] >= 192 && rtp[1] <= 223)) return;
    const csrcs = [];
    for (let i = 0; i < (rtp[0] & 15) && rtp.length >= 16 + 4 * i; i++) csrcs.push(rtp.readUInt32BE(12 + 4 * i));
    const port = udp.readUInt16BE(2);
    const streams = this.last.get(port) ?? new Map();
    streams.set(rtp.readUInt32BE(8), { csrcs, at: Date.now() });
    this.last.set(port, streams);
  }

  /** CSRCs of the newest packet of the stream `ssrc` to ports [low, high]; none if it came more than `ms` ago. */
  csrcs(low, high, ssrc, ms) {
    for (const [port, streams] of this.last) {
      const stream = port >= low && port <= high ? streams.get(ssrc) : undefined;
      if (stream && Date.now() - stream.at < ms) return stream.csrcs;
    }
    return [];
  }

  async stop() {
    this.child.kill("SIGTERM");
    await once(this.child, "exit");
  }
}
