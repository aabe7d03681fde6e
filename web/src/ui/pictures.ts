// The pictures: the first slot large, the others, people who are only heard, and oneself in a strip.

import type { Slot, Slots } from "../media/slots.ts";
import { h, replace } from "./dom.ts";

/** A picture that has not changed for so long is covered by the holder's name. */
const STILL_MS = 2000;

interface Tile {
  slot: Slot;
  el: HTMLElement;
  video: HTMLVideoElement;
  avatar: HTMLElement;
  label: HTMLElement;
  frames: number;
  moved: number;
}

/** The first letters of a name on the colour of its CSRC, the same for everyone. */
export function circle(source: number, name: string): HTMLElement {
  const letters = name
    .split(/\s+/)
    .map((w) => [...w][0] ?? "")
    .join("");
  return h("span", { style: `--hue: ${(Math.imul(source, 0x9e3779b1) >>> 0) % 360}`, "aria-hidden": "true" }, letters.slice(0, 2).toUpperCase());
}

export class Pictures {
  readonly stage = h("section", { class: "stage", "aria-label": "Speaker" });
  readonly strip: HTMLElement;
  private readonly tiles: Tile[] = [];
  private readonly voices = new Map<number, HTMLElement>();
  /** What stands where nobody is shown. */
  empty = "";

  constructor(
    private readonly slots: Slots,
    private readonly self: HTMLElement,
    private readonly nameOf: (source: number) => string,
  ) {
    this.strip = h("section", { class: "strip", "aria-label": "Other pictures" }, self);
  }

  /** Follows the slots; called often. */
  poll(speaking: Set<number>): void {
    this.attach();
    const now = performance.now();
    for (const t of this.tiles) {
      const frames = t.video.getVideoPlaybackQuality().totalVideoFrames;
      if (frames !== t.frames) [t.frames, t.moved] = [frames, now];
      t.el.classList.toggle("still", now - t.moved > STILL_MS);
      t.el.classList.toggle("speaking", speaking.has(t.slot.source));
    }
    for (const [source, el] of this.voices) el.classList.toggle("speaking", speaking.has(source));
  }

  /** Names and holders have changed. */
  draw(): void {
    for (const t of this.tiles) {
      const { source } = t.slot;
      t.label.textContent = this.nameOf(source);
      t.el.classList.toggle("empty", source === 0);
      if (source) replace(t.avatar, circle(source, this.nameOf(source)));
      else t.avatar.textContent = t.slot.number === 0 ? this.empty : "";
    }
    const seen = new Set(this.slots.of("video").map((s) => s.source));
    const heard = new Set(this.slots.of("audio").map((s) => s.source).filter((s) => s && !seen.has(s)));
    for (const [source, el] of this.voices) {
      if (heard.has(source)) continue;
      el.remove();
      this.voices.delete(source);
    }
    for (const source of heard) {
      const name = this.nameOf(source);
      const el = this.voices.get(source) ?? h("figure", { class: "tile still" });
      replace(el, h("div", { class: "avatar" }, circle(source, name)), h("figcaption", {}, name));
      if (!this.voices.has(source)) this.self.before(el);
      this.voices.set(source, el);
    }
  }

  /** Gives every video slot that receives a tile, once. */
  private attach(): void {
    for (const slot of this.slots.of("video")) {
      if (this.tiles.some((t) => t.slot.number === slot.number)) continue;
      if (!/recv/.test(slot.transceiver.currentDirection ?? "")) continue;
      const video = h("video", { autoplay: true, muted: true, playsinline: true, id: `video-${slot.number}` });
      video.muted = true;
      video.srcObject = new MediaStream([slot.transceiver.receiver.track]);
      const label = h("figcaption");
      const avatar = h("div", { class: "avatar" });
      const large = slot.number === 0;
      const el = h("figure", { class: large ? "tile large" : "tile" }, video, avatar, label);
      this.tiles.push({ slot, el, video, avatar, label, frames: -1, moved: 0 });
      if (large) this.stage.append(el);
      else this.self.before(el);
      this.draw();
    }
  }
}
