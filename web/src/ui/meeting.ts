// The meeting: the dominant speaker large, the other slots beside, and what there is to do.

import { capture, deviceAdvice, devices } from "../media/devices.ts";
import { type Slot, Slots } from "../media/slots.ts";
import { Stats } from "../media/stats.ts";
import type { Link } from "../sip/client.ts";
import type { Roster } from "../sip/roster.ts";
import { h, replace } from "./dom.ts";
import { type Icon, icon } from "./icons.ts";
import type { JoinRequest } from "./join.ts";
import { statsPanel } from "./stats-panel.ts";

const POLL_MS = 100;
/** A picture that has not changed for so long is covered by the holder's name. */
const STILL_MS = 3000;

/** Hues of the circles that stand for people, by CSRC: the same for everyone. */
const HUES = 12;

interface Tile {
  slot: Slot;
  el: HTMLElement;
  video: HTMLVideoElement;
  avatar: HTMLElement;
  label: HTMLElement;
  lastTime: number;
  lastMoved: number;
}

export class MeetingPage {
  readonly slots: Slots;
  readonly stats: Stats;
  private readonly tiles: Tile[] = [];
  private readonly stage = h("section", { class: "stage", "aria-label": "Speaker" });
  private readonly strip = h("section", { class: "strip", "aria-label": "Other pictures" });
  private readonly people = h("ul", { class: "people", "aria-label": "Participants" });
  private readonly aside = h("aside", { id: "people-panel" }, h("h2", {}, "Participants"), this.people);
  private readonly status = h("span", { class: "status", role: "status" }, "Joining…");
  private readonly quality = h("span", { class: "quality", title: "Connection quality" });
  private readonly notice = h("p", { class: "alert", role: "alert" });
  private readonly self = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": "Your picture" });
  private readonly selfLabel = h("figcaption", {}, "You");
  private readonly selfTile = h("figure", { class: "tile self" }, this.self, h("div", { class: "avatar" }, h("span", {}, "You")), this.selfLabel);
  private readonly audio = h("div", { hidden: true });
  private readonly panel = h("section", { class: "panel", hidden: true, "aria-label": "Statistics" });
  private readonly timers: number[] = [];
  /** Ends every listener of this page. */
  private readonly closed = new AbortController();
  private roster?: Roster;
  private muted = false;
  private cameraOff: boolean;

  constructor(
    root: HTMLElement,
    private readonly pc: RTCPeerConnection,
    private readonly request: JoinRequest,
    private readonly onLeave: () => void,
  ) {
    this.slots = new Slots(pc);
    this.stats = new Stats(pc);
    this.self.muted = true;
    this.self.srcObject = request.stream;
    this.cameraOff = request.stream.getVideoTracks().length === 0;
    replace(
      root,
      h(
        "main",
        { class: "meeting" },
        h("header", {}, h("h1", { id: "title" }, request.meeting), this.status, this.quality, this.notice),
        this.stage,
        this.strip,
        this.aside,
        this.panel,
        this.controls(),
        this.audio,
      ),
    );
    this.strip.append(this.selfTile);
    if (matchMedia("(max-width: 720px)").matches) this.toggle("people", this.aside);
    this.drawCamera();
    this.timers.push(window.setInterval(() => this.poll(), POLL_MS));
    this.timers.push(window.setInterval(() => void this.refreshStats(), 1000));
    document.addEventListener("keydown", this.onKey, { signal: this.closed.signal });
  }

  close(): void {
    for (const t of this.timers) clearInterval(t);
    this.closed.abort();
    for (const t of this.request.stream.getTracks()) t.stop();
  }

  setLink(link: Link): void {
    if (link === "offline") this.status.textContent = "Reconnecting… sound and pictures go on.";
    else if (link === "online" && this.pc.connectionState !== "new") this.status.textContent = "Connected";
  }

  joined(): void {
    this.status.textContent = "Connected";
    this.poll();
  }

  setRoster(roster: Roster): void {
    this.roster = roster;
    if (roster.title) document.getElementById("title")!.textContent = roster.title;
    this.drawPeople();
    for (const t of this.tiles) this.drawTile(t);
  }

  nameOf(source: number): string {
    return this.roster?.bySource(source)?.name ?? (source ? `#${source}` : "");
  }

  // ---- controls

  private controls(): HTMLElement {
    const microphones = h("select", { id: "use-microphone", onchange: () => void this.use("audio", microphones.value) });
    const cameras = h("select", { id: "use-camera", onchange: () => void this.use("video", cameras.value) });
    const fill = async (): Promise<void> => {
      for (const [select, kind, track] of [
        [microphones, "audioinput", this.request.stream.getAudioTracks()[0]],
        [cameras, "videoinput", this.request.stream.getVideoTracks()[0]],
      ] as const) {
        replace(select, ...(await devices(kind)).map((d, i) => h("option", { value: d.deviceId }, d.label || `Device ${i + 1}`)));
        const id = track?.getSettings().deviceId;
        if (id) select.value = id;
      }
    };
    const menu = h("div", { id: "device-menu", class: "menu", hidden: true }, h("label", {}, "Microphone", microphones), h("label", {}, "Camera", cameras));
    void fill();
    navigator.mediaDevices?.addEventListener("devicechange", fill, { signal: this.closed.signal });
    const control = (id: string, name: Icon, text: string, title: string, press: () => void, state: object = {}): HTMLElement =>
      h("button", { id, title, onclick: press, ...state }, icon(name), h("span", {}, text));
    return h(
      "nav",
      { "aria-label": "Controls" },
      control("mute", "microphone", "Mute", "Mute (M)", () => this.toggleMute(), { "aria-pressed": "false" }),
      control("camera-off", "camera", "Camera off", "Camera (V)", () => void this.toggleCamera(), { "aria-pressed": "false" }),
      control("devices", "devices", "Devices", "Change microphone or camera (D)", () => this.toggle("devices", menu), { "aria-expanded": "false", "aria-controls": "device-menu" }),
      control("people", "people", "People", "Who is here (P)", () => this.toggle("people", this.aside), { "aria-expanded": "true", "aria-controls": "people-panel" }),
      control("stats", "statistics", "Statistics", "Statistics for developers (S)", () => this.toggle("stats", this.panel), { "aria-expanded": "false" }),
      control("leave", "leave", "Leave", "Leave the meeting", this.onLeave, { class: "danger" }),
      menu,
    );
  }

  /** Opens or closes what a button controls. */
  private toggle(id: string, what: HTMLElement): void {
    what.hidden = !what.hidden;
    document.getElementById(id)!.setAttribute("aria-expanded", String(!what.hidden));
    if (what === this.panel) void this.refreshStats();
  }

  /** Shows a switch as on or off, and what pressing it does. */
  private draw(id: string, name: Icon, off: boolean, text: string): void {
    const button = document.getElementById(id)!;
    button.setAttribute("aria-pressed", String(off));
    replace(button, icon(name, off), h("span", {}, text));
  }

  private readonly onKey = (e: KeyboardEvent): void => {
    const target = e.target as HTMLElement;
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    if (e.repeat) return;
    const key = e.key.toLowerCase();
    if (key === "m") this.toggleMute();
    else if (key === "v") void this.toggleCamera();
    else if (["d", "p", "s"].includes(key)) document.getElementById({ d: "devices", p: "people", s: "stats" }[key]!)!.click();
    else if (key === "escape") document.querySelector<HTMLElement>("#devices[aria-expanded=true]")?.click();
  };

  private sender(kind: "audio" | "video"): RTCRtpSender | undefined {
    return this.pc.getTransceivers().find((t) => t.receiver.track.kind === kind)?.sender;
  }

  private toggleMute(): void {
    if (this.request.stream.getAudioTracks().length === 0) {
      this.notice.textContent = "You joined to listen only. Leave and join again with a microphone to be heard.";
      return;
    }
    this.muted = !this.muted;
    for (const t of this.request.stream.getAudioTracks()) t.enabled = !this.muted;
    this.draw("mute", "microphone", this.muted, this.muted ? "Unmute" : "Mute");
    this.selfLabel.textContent = this.muted ? "You, muted" : "You";
  }

  private async toggleCamera(): Promise<void> {
    const stream = this.request.stream;
    if (!this.cameraOff) {
      await this.sender("video")?.replaceTrack(null);
      for (const t of stream.getVideoTracks()) {
        t.stop();
        stream.removeTrack(t);
      }
      this.cameraOff = true;
    } else if (this.request.choice.wantVideo) {
      await this.use("video", this.request.choice.video ?? "");
    } else {
      this.notice.textContent = "You joined without a camera. Leave and join again with one to be seen.";
      return;
    }
    this.drawCamera();
  }

  private drawCamera(): void {
    this.draw("camera-off", "camera", this.cameraOff, this.cameraOff ? "Camera on" : "Camera off");
    this.selfTile.classList.toggle("still", this.cameraOff);
  }

  /** Changes a device in the running meeting: the track is replaced, nothing is renegotiated. */
  private async use(kind: "audio" | "video", device: string): Promise<void> {
    const { stream, choice } = this.request;
    if (kind === "audio" ? !choice.wantAudio : !choice.wantVideo) {
      this.notice.textContent = `You joined without a ${kind === "audio" ? "microphone" : "camera"}. Leave and join again to use one.`;
      return;
    }
    try {
      const got = await capture({ ...choice, wantAudio: kind === "audio", wantVideo: kind === "video", audio: device || undefined, video: device || undefined });
      const track = got.stream.getTracks()[0];
      if (!track) return;
      for (const old of stream.getTracks().filter((t) => t.kind === kind)) {
        old.stop();
        stream.removeTrack(old);
      }
      stream.addTrack(track);
      if (kind === "audio") track.enabled = !this.muted;
      else {
        this.cameraOff = false;
        this.drawCamera();
      }
      await this.sender(kind)?.replaceTrack(track);
      this.self.srcObject = stream;
      this.notice.textContent = "";
    } catch (e) {
      this.notice.textContent = deviceAdvice(e);
    }
  }

  // ---- drawing

  private poll(): void {
    const changed = this.slots.poll();
    this.attach();
    const now = performance.now();
    for (const t of this.tiles) {
      if (t.video.currentTime !== t.lastTime) {
        t.lastTime = t.video.currentTime;
        t.lastMoved = now;
      }
      t.el.classList.toggle("still", now - t.lastMoved > STILL_MS);
      const heard = this.slots.of("audio").find((a) => a.source !== 0 && a.source === t.slot.source);
      t.el.classList.toggle("speaking", (heard?.level ?? 0) > 0.01);
      if (changed) this.drawTile(t);
    }
    if (changed) this.drawPeople();
  }

  /** Gives every receiver an element, once. */
  private attach(): void {
    for (const slot of this.slots.of("audio")) {
      const id = `audio-${slot.number}`;
      if (document.getElementById(id)) continue;
      const el = h("audio", { id, autoplay: true });
      el.srcObject = new MediaStream([slot.transceiver.receiver.track]);
      this.audio.append(el);
      el.play().catch(() => (this.notice.textContent = "Click anywhere to hear the others."));
      document.addEventListener("click", () => void el.play(), { once: true, signal: this.closed.signal });
    }
    for (const slot of this.slots.of("video")) {
      if (this.tiles.some((t) => t.slot.number === slot.number)) continue;
      if (slot.transceiver.currentDirection === null || !/recv/.test(slot.transceiver.currentDirection)) continue;
      const video = h("video", { autoplay: true, muted: true, playsinline: true, id: `video-${slot.number}` });
      video.muted = true;
      video.srcObject = new MediaStream([slot.transceiver.receiver.track]);
      const label = h("figcaption");
      const avatar = h("div", { class: "avatar" });
      const large = slot.number === 0;
      const el = h("figure", { class: large ? "tile large" : "tile" }, video, avatar, label);
      const tile: Tile = { slot, el, video, avatar, label, lastTime: -1, lastMoved: 0 };
      this.tiles.push(tile);
      if (large) this.stage.append(el);
      else this.selfTile.before(el);
      this.drawTile(tile);
    }
  }

  private drawTile(t: Tile): void {
    const { source } = t.slot;
    t.label.textContent = this.nameOf(source);
    t.el.classList.toggle("empty", source === 0);
    if (source) replace(t.avatar, this.circle(source));
    else t.avatar.textContent = t.el.classList.contains("large") ? "Nobody has spoken yet." : "";
  }

  /** The first letters of a name on the colour of its CSRC. */
  private circle(source: number): HTMLElement {
    const letters = this.nameOf(source)
      .split(/\s+/)
      .map((w) => w[0] ?? "")
      .join("");
    return h("span", { style: `--hue: ${(source % HUES) * (360 / HUES)}` }, letters.slice(0, 2).toUpperCase());
  }

  private drawPeople(): void {
    const dominant = this.slots.of("video")[0]?.source || this.slots.of("audio")[0]?.source || 0;
    const rows = [...(this.roster?.participants.values() ?? [])].map((p) => {
      const speaks = p.sources.includes(dominant);
      const marks = [speaks ? "speaking" : "", p.audioMuted ? "listening" : "", p.status !== "connected" ? p.status : ""].filter(Boolean);
      return h(
        "li",
        { "data-entity": p.entity, class: speaks ? "speaking" : undefined },
        this.circle(p.sources[0] ?? 0),
        h("b", {}, p.name),
        marks.length > 0 ? h("small", {}, marks.join(", ")) : undefined,
      );
    });
    replace(this.people, ...rows);
    const count = this.roster?.participants.size ?? 0;
    document.querySelector("#people span")!.textContent = count > 0 ? `People (${count})` : "People";
  }

  private async refreshStats(): Promise<void> {
    if (this.pc.connectionState === "closed") return;
    const reports = await this.stats.refresh();
    const quality = this.stats.quality();
    this.quality.className = `quality ${quality}`;
    this.quality.textContent = quality === "unknown" ? "" : `Connection ${quality}`;
    if (!this.panel.hidden) statsPanel(this.panel, reports, this.slots, (s) => this.nameOf(s));
  }
}
