// The meeting: pictures, who is here, and what there is to do.

import { devices } from "../media/devices.ts";
import { OwnMedia } from "../media/own.ts";
import { Slots } from "../media/slots.ts";
import { Stats } from "../media/stats.ts";
import type { Link } from "../sip/client.ts";
import type { Roster } from "../sip/roster.ts";
import { h, replace } from "./dom.ts";
import { type Icon, icon } from "./icons.ts";
import type { JoinRequest } from "./join.ts";
import { Pictures, circle } from "./pictures.ts";
import { statsPanel } from "./stats-panel.ts";

const POLL_MS = 100;
const CONNECTING = "Connecting sound and pictures…";

/** What the page asks for. */
export interface MeetingActions {
  leave(): void;
  mute(muted: boolean): void;
  /** Offers the media lines as they are now; false: the meeting did not take them. */
  renegotiate(): Promise<boolean>;
}

export class MeetingPage {
  readonly slots: Slots;
  readonly stats: Stats;
  private readonly own: OwnMedia;
  private readonly pictures: Pictures;
  private readonly people = h("ul", { class: "people", "aria-label": "Participants" });
  private readonly aside: HTMLElement;
  private readonly status = h("span", { class: "status", role: "status" }, "Joining…");
  private readonly quality = h("span", { class: "quality", title: "Connection quality" });
  private readonly notice = h("p", { class: "alert", role: "alert" });
  private readonly self = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": "Your picture" });
  private readonly selfLabel = h("figcaption", {}, "You");
  private readonly selfTile: HTMLElement;
  private readonly audio = h("div", { hidden: true });
  private readonly panel = h("section", { class: "panel", hidden: true, "aria-label": "Statistics" });
  private readonly microphones = h("select", { id: "use-microphone", onchange: () => void this.own.use("audio", this.microphones.value) });
  private readonly cameras = h("select", { id: "use-camera", onchange: () => void this.own.use("video", this.cameras.value) });
  private readonly timers: number[] = [];
  /** Ends every listener of this page. */
  private readonly closed = new AbortController();
  /** Everyone who was here, so that those who have left keep their names in the history. */
  private readonly names = new Map<number, string>();
  private roster?: Roster;
  private speaking = new Set<number>();

  constructor(
    root: HTMLElement,
    private readonly pc: RTCPeerConnection,
    private readonly request: JoinRequest,
    private readonly actions: MeetingActions,
  ) {
    this.slots = new Slots(pc);
    this.stats = new Stats(pc);
    this.self.muted = true;
    this.selfTile = h("figure", { class: "tile self" }, this.self, h("div", { class: "avatar" }, circle(0, request.identity.displayName)), this.selfLabel);
    this.pictures = new Pictures(this.slots, this.selfTile, (s) => this.nameOf(s));
    const invite = h("button", { id: "invite", title: "Copy a link that opens this meeting", onclick: () => void this.copyLink() }, "Copy link");
    this.aside = h("aside", { id: "people-panel" }, h("h2", {}, "Participants"), this.people, invite);
    this.own = new OwnMedia(pc, request, {
      onChange: () => this.drawOwn(),
      onProblem: (text) => (this.notice.textContent = text),
      onMute: (muted) => actions.mute(muted),
      renegotiate: () => actions.renegotiate(),
    });
    replace(
      root,
      h(
        "main",
        { class: "meeting" },
        h("header", {}, h("h1", { id: "title" }, request.meeting), this.status, this.quality, this.notice),
        this.pictures.stage,
        this.pictures.strip,
        this.aside,
        this.panel,
        this.controls(),
        this.audio,
      ),
    );
    if (matchMedia("(max-width: 720px)").matches) this.toggle("people", this.aside);
    this.drawOwn();
    this.drawPeople();
    document.getElementById("mute")!.focus();
    const { signal } = this.closed;
    navigator.mediaDevices?.addEventListener("devicechange", () => void this.listDevices(), { signal });
    document.addEventListener("keydown", this.onKey, { signal });
    pc.addEventListener("connectionstatechange", () => this.drawConnection(), { signal });
    this.timers.push(window.setInterval(() => this.poll(), POLL_MS));
    this.timers.push(window.setInterval(() => void this.refreshStats(), 1000));
  }

  close(): void {
    for (const t of this.timers) clearInterval(t);
    this.closed.abort();
    this.own.close();
  }

  setLink(link: Link): void {
    if (link === "offline") this.status.textContent = "Reconnecting… sound and pictures go on.";
    else if (link === "online" && this.pc.connectionState !== "new") this.status.textContent = "Connected";
  }

  joined(): void {
    this.status.textContent = this.pc.connectionState === "connected" ? "Connected" : CONNECTING;
    this.poll();
  }

  /** The meeting was lost; another attempt to be in it is under way. */
  rejoining(): void {
    this.status.textContent = "The connection was lost. Joining again…";
  }

  setRoster(roster: Roster): void {
    this.roster = roster;
    if (roster.title) document.getElementById("title")!.textContent = roster.title;
    const here = new Set<number>();
    for (const p of roster.participants.values()) {
      for (const source of p.sources) {
        here.add(source);
        this.names.set(source, p.name);
      }
    }
    this.slots.setGone([...this.names.keys()].filter((s) => !here.has(s)));
    this.drawPeople();
  }

  nameOf(source: number): string {
    return this.names.get(source) ?? (source ? `#${source}` : "");
  }

  // ---- controls

  private controls(): HTMLElement {
    const menu = h("div", { id: "device-menu", class: "menu", hidden: true }, h("label", {}, "Microphone", this.microphones), h("label", {}, "Camera", this.cameras));
    const control = (id: string, name: Icon, text: string, title: string, press: () => void, state: object = {}): HTMLElement =>
      h("button", { id, title, onclick: press, ...state }, icon(name), h("span", {}, text));
    return h(
      "nav",
      { "aria-label": "Controls" },
      control("mute", "microphone", "Mute", "Microphone (M)", () => void this.own.toggleMute()),
      control("camera-off", "camera", "Camera off", "Camera (V)", () => void this.own.toggleCamera()),
      control("devices", "devices", "Devices", "Change microphone or camera (D)", () => this.toggle("devices", menu), { "aria-expanded": "false", "aria-controls": "device-menu" }),
      control("people", "people", "People", "Who is here (P)", () => this.toggle("people", this.aside), { "aria-expanded": "true", "aria-controls": "people-panel" }),
      control("stats", "statistics", "Statistics", "Statistics for developers (S)", () => this.toggle("stats", this.panel), { "aria-expanded": "false" }),
      control("leave", "leave", "Leave", "Leave the meeting", () => this.actions.leave(), { class: "danger" }),
      menu,
    );
  }

  private readonly onKey = (e: KeyboardEvent): void => {
    const target = e.target as HTMLElement;
    if (e.ctrlKey || e.metaKey || e.altKey || e.repeat) return;
    const open = document.querySelector<HTMLElement>("#devices[aria-expanded=true]");
    if (e.key === "Escape" && open) {
      open.click();
      open.focus();
    }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    const button = { m: "mute", v: "camera-off", d: "devices", p: "people", s: "stats" }[e.key.toLowerCase()];
    if (button) document.getElementById(button)!.click();
  };

  /** Opens or closes what a button controls. */
  private toggle(id: string, what: HTMLElement): void {
    what.hidden = !what.hidden;
    document.getElementById(id)!.setAttribute("aria-expanded", String(!what.hidden));
    if (what === this.panel) void this.refreshStats();
  }

  private async listDevices(): Promise<void> {
    for (const [select, kind, none] of [
      [this.microphones, "audio", "No microphone in use"],
      [this.cameras, "video", "No camera in use"],
    ] as const) {
      const used = this.own.track(kind)?.getSettings().deviceId;
      const list = (await devices(`${kind}input`)).map((d, i) => h("option", { value: d.deviceId }, d.label || `Device ${i + 1}`));
      replace(select, ...(used ? [] : [h("option", { value: "", disabled: true }, none)]), ...list);
      select.value = used ?? "";
    }
  }

  private async copyLink(): Promise<void> {
    const link = new URL(location.pathname, location.origin);
    link.searchParams.set("meeting", this.request.meeting);
    try {
      await navigator.clipboard.writeText(link.href);
      this.status.textContent = "The link is copied.";
    } catch {
      this.notice.textContent = `Copy this link: ${link.href}`;
    }
  }

  // ---- drawing

  private drawOwn(): void {
    const { muted } = this.own;
    const [audio, video] = [this.own.track("audio"), this.own.track("video")];
    const draw = (id: string, name: Icon, off: boolean, text: string): void => {
      const button = document.getElementById(id)!;
      button.classList.toggle("off", off);
      replace(button, icon(name, off), h("span", {}, text));
    };
    draw("mute", "microphone", muted || !audio, !audio ? "Microphone on" : muted ? "Unmute" : "Mute");
    draw("camera-off", "camera", !video, video ? "Camera off" : "Camera on");
    this.selfTile.classList.toggle("still", !video);
    this.selfLabel.textContent = !audio ? "You, listening" : muted ? "You, muted" : "You";
    if (this.self.srcObject !== this.own.stream) this.self.srcObject = this.own.stream;
    void this.listDevices();
  }

  private drawConnection(): void {
    if (this.pc.connectionState === "disconnected") this.notice.textContent = "The media connection is interrupted. It may come back by itself.";
    else if (this.pc.connectionState === "connected") {
      this.notice.textContent = "";
      if (this.status.textContent === CONNECTING) this.status.textContent = "Connected";
    }
    void this.refreshStats();
  }

  private poll(): void {
    const changed = this.slots.poll();
    this.playAudio();
    const speaking = this.slots.speaking();
    const same = speaking.size === this.speaking.size && [...speaking].every((s) => this.speaking.has(s));
    this.speaking = speaking;
    if (changed || !same) this.drawPeople();
    this.pictures.poll(speaking);
  }

  /** Gives every audio slot an element, once. */
  private playAudio(): void {
    for (const slot of this.slots.of("audio")) {
      const id = `audio-${slot.number}`;
      if (document.getElementById(id)) continue;
      const el = h("audio", { id, autoplay: true });
      el.srcObject = new MediaStream([slot.transceiver.receiver.track]);
      this.audio.append(el);
      el.play().catch(() => (this.notice.textContent = "Click anywhere to hear the others."));
      document.addEventListener("click", () => void el.play(), { once: true, signal: this.closed.signal });
    }
  }

  private drawPeople(): void {
    const everyone = [...(this.roster?.participants.values() ?? [])];
    const rows = everyone.map((p) => {
      const speaks = p.sources.some((s) => this.speaking.has(s));
      const roles = p.roles.filter((r) => r !== "participant");
      const marks = [...roles, speaks ? "speaking" : "", p.audioMuted ? "listening" : "", p.status !== "connected" ? p.status : ""].filter(Boolean);
      return h(
        "li",
        { "data-entity": p.entity, class: speaks ? "speaking" : undefined },
        circle(p.sources[0] ?? 0, p.name),
        h("b", {}, p.name),
        p.entity === this.request.identity.uri ? h("i", {}, "you") : undefined,
        marks.length > 0 ? h("small", {}, marks.join(", ")) : undefined,
      );
    });
    replace(this.people, ...rows);
    document.querySelector("#people span")!.textContent = everyone.length > 0 ? `People (${everyone.length})` : "People";
    this.pictures.empty = everyone.length > 1 ? "Nobody shows a picture." : "Nobody else is here yet.";
    this.pictures.draw();
  }

  private async refreshStats(): Promise<void> {
    if (this.pc.connectionState === "closed") return;
    const reports = await this.stats.refresh();
    const quality = this.pc.connectionState === "connected" ? this.stats.quality() : "poor";
    this.quality.className = `quality ${quality}`;
    this.quality.textContent = quality === "unknown" || this.status.textContent === "Joining…" ? "" : `Connection ${quality}`;
    if (!this.panel.hidden) statsPanel(this.panel, reports, this.slots, (s) => this.nameOf(s));
  }
}
