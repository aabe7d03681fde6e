// Statistics for developers: streams, slots and who held them.

import type { Slots } from "../media/slots.ts";
import type { StreamReport } from "../media/stats.ts";
import { h, replace } from "./dom.ts";

function table(caption: string, head: string[], rows: (string | number)[][]): HTMLElement {
  return h(
    "table",
    {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...head.map((c) => h("th", { scope: "col" }, c)))),
    h("tbody", {}, ...rows.map((r) => h("tr", {}, ...r.map((c) => h("td", {}, String(c)))))),
  );
}

export function statsPanel(root: HTMLElement, reports: StreamReport[], slots: Slots, nameOf: (source: number) => string): void {
  const name = (s: number): string => (s ? nameOf(s) : "–");
  replace(
    root,
    table(
      "Streams",
      ["", "mid", "codec", "kbit/s", "packets", "lost", "loss %", "jitter ms", "RTT ms", "picture", "fps", "frames", "freezes"],
      reports
        .filter((r) => r.packets > 0)
        .map((r) => [
          `${r.direction} ${r.kind}`,
          r.mid,
          r.codec,
          r.kbps.toFixed(0),
          r.packets,
          r.lost,
          r.lossPercent.toFixed(1),
          r.jitterMs.toFixed(1),
          r.rttMs.toFixed(1),
          r.size,
          r.kind === "video" ? r.fps : "",
          r.kind === "video" ? r.frames : "",
          r.kind === "video" && r.direction === "in" ? r.freezes : "",
        ]),
    ),
    table(
      "Slots",
      ["slot", "holder", "CSRC", "switches"],
      slots.slots.filter(Boolean).map((s) => [`${s.kind} ${s.number}`, name(s.source), s.source || "–", s.switches]),
    ),
    table(
      "Switches, newest first",
      ["time", "slot", "from", "to"],
      slots.history
        .slice(-20)
        .reverse()
        .map((r) => [r.at.toLocaleTimeString(), `${r.kind} ${r.slot}`, name(r.from), name(r.to)]),
    ),
  );
}
