// The meeting: the dominant speaker large, the other slots beside, and what there is to do.

import { capture, deviceAdvice, devices } from "../media/devices.ts";
import { type Slot, Slots } from "../media/slots.ts";
import { Stats } from "../media/stats.ts";
import type { Link } from "../sip/client.ts";
import type { Roster } from "../sip/roster.ts";
import { h, replace } from "./dom.ts";
import type { JoinRequest } from "./join.ts";
import { statsPanel } from "./stats-panel.ts";

const POLL_MS = 100;
/** A picture that has not changed for so long is covered by the holder's name. */
const STILL_MS = 3000;

interface Tile {
  slot: Slot;
  el: HTMLElement;
  video: HTMLVideoElement;
  label: HTMLElement;
  lastTime: number;
  lastMoved: number;
}

export class MeetingPage {
  readonly slots: Slots;
  readonly stats: Stats;
  private readonly tiles: Tile[] = [];
  private readonly stage = h("section", { class: "stage", "aria-label": "Videos" });
  private readonly people = h("ul", { class: "people", "aria-label": "Participants" });
  private readonly status = h("span", { class: "status", role: "status" }, "Joining…");
  private readonly quality = h("span", { class: "quality", title: "Connection quality" });
  private readonly notice = h("p", { class: "alert", role: "alert" });
  private readonly self = h("video", { autoplay: true, muted: true, playsinline: true, class: "self", "aria-label": "Your picture" });
  private readonly audio = h("div", { hidden: true });
  private readonly panel = h("section", { class: "panel", hidden: true, "aria-label": "Statistics" });
  private readonly timers: number[] = [];
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
        h("header", {}, h("strong", { id: "title" }, request.meeting), this.status, this.quality, this.notice),
        this.stage,
        h("aside", {}, this.self, h("h2", {}, "Participants"), this.people),
        this.panel,
        this.controls(),
        this.audio,
      ),
    );
    this.timers.push(window.setInterval(() => this.poll(), POLL_MS));
    this.timers.push(window.setInterval(() => void this.refreshStats(), 1000));
    document.addEventListener("keydown", this.onKey);
  }

  close(): void {
    for (const t of this.timers) clearInterval(t);
    document.removeEventListener("keydown", this.onKey);
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
    const mute = h("button", { id: "mute", "aria-pressed": "false", title: "Mute (M)", onclick: () => this.toggleMute() }, "Mute");
    const camera = h("button", { id: "camera-off", "aria-pressed": String(this.cameraOff), title: "Camera (V)", onclick: () => void this.toggleCamera() }, "Camera off");
    const microphones = h("select", { "aria-label": "Microphone", id: "use-microphone", onchange: () => void this.use("audio", microphones.value) });
    const cameras = h("select", { "aria-label": "Camera", id: "use-camera", onchange: () => void this.use("video", cameras.value) });
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
    void fill();
    navigator.mediaDevices?.addEventListener("devicechange", () => void fill());
    return h(
      "nav",
      { "aria-label": "Controls" },
      mute,
      camera,
      microphones,
      cameras,
      h("button", { id: "stats", "aria-expanded": "false", title: "Statistics (S)", onclick: () => this.toggleStats() }, "Statistics"),
      h("button", { id: "leave", class: "danger", title: "Leave", onclick: () => this.onLeave() }, "Leave"),
    );
  }

  private readonly onKey = (e: KeyboardEvent): void => {
    const target = e.target as HTMLElement;
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    if (e.repeat) return;
    const key = e.key.toLowerCase();
    if (key === "m") this.toggleMute();
    else if (key === "v") void this.toggleCamera();
    else if (key === "s") this.toggleStats();
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
    const button = document.getElementById("mute")!;
    button.setAttribute("aria-pressed", String(this.muted));
    button.textContent = this.muted ? "Unmute" : "Mute";
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
    const button = document.getElementById("camera-off")!;
    button.setAttribute("aria-pressed", String(this.cameraOff));
    button.textContent = this.cameraOff ? "Camera on" : "Camera off";
    this.self.classList.toggle("off", this.cameraOff);
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

  private toggleStats(): void {
    this.panel.hidden = !this.panel.hidden;
    document.getElementById("stats")!.setAttribute("aria-expanded", String(!this.panel.hidden));
    void this.refreshStats();
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
      document.addEventListener("click", () => void el.play(), { once: true });
    }
    for (const slot of this.slots.of("video")) {
      if (this.tiles.some((t) => t.slot.number === slot.number)) continue;
      if (slot.transceiver.currentDirection === null || !/recv/.test(slot.transceiver.currentDirection)) continue;
      const video = h("video", { autoplay: true, muted: true, playsinline: true, id: `video-${slot.number}` });
      video.muted = true;
      video.srcObject = new MediaStream([slot.transceiver.receiver.track]);
      const label = h("figcaption");
      const el = h("figure", { class: slot.number === 0 ? "tile large" : "tile" }, video, h("div", { class: "avatar" }), label);
      const tile: Tile = { slot, el, video, label, lastTime: -1, lastMoved: 0 };
      this.tiles.push(tile);
      this.stage.append(el);
      this.drawTile(tile);
    }
  }

  private drawTile(t: Tile): void {
    const name = this.nameOf(t.slot.source);
    t.label.textContent = name;
    t.el.classList.toggle("empty", t.slot.source === 0);
    t.el.querySelector(".avatar")!.textContent = name
      .split(/\s+/)
      .map((w) => w[0] ?? "")
      .join("")
      .slice(0, 2)
      .toUpperCase();
  }

  private drawPeople(): void {
    const dominant = this.slots.of("video")[0]?.source || this.slots.of("audio")[0]?.source;
    const rows = [...(this.roster?.participants.values() ?? [])].map((p) => {
      const marks = [p.sources.includes(dominant ?? 0) ? "speaking" : "", p.audioMuted ? "listening" : "", p.status !== "connected" ? p.status : ""].filter(Boolean);
      return h("li", { "data-entity": p.entity }, p.name, marks.length > 0 ? h("small", {}, ` ${marks.join(", ")}`) : undefined);
    });
    replace(this.people, ...rows);
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
