// Chromium with a recorded voice and a coloured picture, on the page that users get.

import { chromium } from "playwright-core";
import { writeFileSync } from "node:fs";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required", "--ignore-certificate-errors", "--allow-loopback-in-peer-connection",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];

/** Takes the devices of one kind, "audio" or "video", from the page, as on a machine that has none. */
function without(kind) {
  const media = navigator.mediaDevices;
  const [original, enumerate] = [media.getUserMedia.bind(media), media.enumerateDevices.bind(media)];
  media.getUserMedia = async (constraints) => {
    if (constraints[kind]) throw new DOMException("Requested device not found", "NotFoundError");
    return original(constraints);
  };
  media.enumerateDevices = async () => (await enumerate()).filter((d) => d.kind !== `${kind}input`);
}

/** Leaves one video codec, and repair, in every offer. */
function offerOnly(mimeType) {
  const createOffer = RTCPeerConnection.prototype.createOffer;
  RTCPeerConnection.prototype.createOffer = function (...args) {
    const codecs = RTCRtpReceiver.getCapabilities("video").codecs.filter((c) => c.mimeType === mimeType || c.mimeType === "video/rtx");
    for (const t of this.getTransceivers()) if (t.receiver.track.kind === "video") t.setCodecPreferences(codecs);
    return createOffer.apply(this, args);
  };
}

export class Browser {
  /**
   * @param {object} o name, directory, url, meeting, speech and picture files, account? {user,password}, viewport?, query?,
   *   browser? (another end's: one process for both, with that one's speech and picture), devices? (none: false),
   *   cameras? (so many, none of which has the picture), lacks? (no device of that kind: "audio" or "video"),
   *   permissions? (of "microphone" and "camera", others are refused), certificates? (checked as for any user: "check"),
   *   videoCodec? (the only one offered: "H264")
   */
  static async start(o) {
    const flags = FLAGS.filter(
      (f) =>
        !((o.devices === false || o.cameras) && f.includes("fake-device")) &&
        !(o.permissions && f.includes("fake-ui")) &&
        !(o.certificates === "check" && f.includes("certificate")),
    );
    const files = o.devices === false ? [] : [`--use-file-for-fake-audio-capture=${o.speech}`];
    if (o.cameras) files.push(`--use-fake-device-for-media-stream=device-count=${o.cameras}`);
    else if (o.devices !== false) files.push(`--use-file-for-fake-video-capture=${o.picture}`);
    const browser = o.browser ?? (await chromium.launch({ executablePath: "/usr/bin/chromium", args: [...flags, ...files] }));
    const context = await browser.newContext({
      ignoreHTTPSErrors: o.certificates !== "check",
      permissions: o.permissions ?? ["microphone", "camera"],
      viewport: o.viewport ?? { width: 1100, height: 700 },
    });
    const page = await context.newPage();
    if (o.videoCodec) await page.addInitScript(offerOnly, `video/${o.videoCodec}`);
    if (o.lacks) await page.addInitScript(without, o.lacks);
    const self = new Browser();
    Object.assign(self, { ...o, shared: o.browser !== undefined, browser, context, page, log: [], sent: [], received: [] });
    page.on("console", (m) => self.log.push(`${m.type()}: ${m.text()}`));
    page.on("pageerror", (e) => self.log.push(`error: ${e.message}`));
    page.on("websocket", (socket) => {
      socket.on("framesent", ({ payload }) => self.sent.push(String(payload)));
      socket.on("framereceived", ({ payload }) => self.received.push(String(payload)));
    });
    if (o.certificates !== "check") await self.open();
    return self;
  }

  async open() {
    await this.page.goto(`${this.url}?size=160x120&video-slots=${this.videoSlots ?? 2}${this.query ?? ""}`);
  }

  async fillIn() {
    const { page } = this;
    await page.fill("#name", this.name);
    await page.fill("#meeting", this.meeting);
    await page.setChecked("#account", this.account !== undefined);
    if (this.account) {
      await page.fill("#user", this.account.user);
      await page.fill("#password", this.account.password);
    }
    const has = (kind, device) => this.devices !== false && this.lacks !== kind && (this.permissions?.includes(device) ?? true);
    const tracks = Number(has("audio", "microphone")) + Number(has("video", "camera") && !/video=off/.test(this.query ?? ""));
    await page.waitForFunction((n) => document.querySelector("#preview")?.srcObject?.getTracks().length === n, tracks);
  }

  /** Fills in the form and joins, muted. */
  async join() {
    const { page } = this;
    await this.fillIn();
    await page.click("#join");
    try {
      await page.waitForFunction(() => window.rostrum.client?.established && window.rostrum.pc?.connectionState === "connected", null, { timeout: 20_000 });
    } catch (e) {
      throw new Error(`${this.name} did not join: ${await this.problem()}\n${this.log.join("\n")}\n${e.message}`);
    }
    await this.speak(false);
  }

  async problem() {
    return this.page.evaluate(() => [...document.querySelectorAll("[role=alert], [role=status]")].map((e) => e.textContent).join(" | "));
  }

  /** Packets received so far, all streams. */
  async packets() {
    return this.page.evaluate(async () => {
      let sum = 0;
      (await window.rostrum.pc.getStats()).forEach((s) => (sum += s.type === "inbound-rtp" ? s.packetsReceived : 0));
      return sum;
    });
  }

  async speak(on) {
    await this.page.evaluate((wanted) => {
      const button = document.querySelector("#mute");
      if (button.classList.contains("off") === wanted) button.click();
    }, on);
  }

  /** Per slot: CSRC now and, of pictures, the mean colour. Asks for no statistics, which are dear. */
  async look() {
    return this.page.evaluate(() => {
      const out = { audio: [], video: [] };
      for (const { receiver } of window.rostrum.pc.getTransceivers()) {
        const newest = receiver.getContributingSources().reduce((a, b) => (!a || b.timestamp > a.timestamp ? b : a), undefined);
        const slot = { csrc: newest?.source ?? 0 };
        const slots = out[receiver.track.kind];
        const video = document.querySelector(`#video-${slots.length}`);
        if (slots === out.video && video?.videoWidth > 0) {
          const canvas = (window.probe ??= Object.assign(document.createElement("canvas"), { width: 1, height: 1 }));
          const context = canvas.getContext("2d", { willReadFrequently: true });
          context.drawImage(video, 0, 0, 1, 1);
          slot.colour = [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        }
        slots.push(slot);
      }
      return out;
    });
  }

  /** Energy of the decoded sound of each audio slot so far: the sum of square × seconds. */
  async energies() {
    return this.page.evaluate(async () => {
      const { pc } = window.rostrum;
      const mids = pc.getTransceivers().filter((t) => t.receiver.track.kind === "audio").map((t) => t.mid);
      const energies = mids.map(() => 0);
      (await pc.getStats()).forEach((s) => {
        if (s.type === "inbound-rtp" && mids.includes(s.mid)) energies[mids.indexOf(s.mid)] = s.totalAudioEnergy ?? 0;
      });
      return energies;
    });
  }

  /**
   * Watches in the page, so that the way there and back takes no part, until `source` is heard (its slot has gathered
   * `energy` since `quiet`) and seen (the first picture is its own and of `colour`). Gives the times of both, undefined
   * for what has not come after `ms`, and what there is instead.
   */
  async perceive(o) {
    return this.page.evaluate(async ({ source, colour, energy, quiet, ms }) => {
      const end = Date.now() + ms;
      const receivers = (kind) => window.rostrum.pc.getReceivers().filter((r) => r.track.kind === kind);
      const holder = (r) => r.getContributingSources().reduce((a, b) => (!a || b.timestamp > a.timestamp ? b : a), undefined)?.source;
      const every20 = async (check) => {
        for (; Date.now() < end; await new Promise((r) => setTimeout(r, 20))) if (await check()) return Date.now();
        return undefined;
      };
      const found = {};
      const hears = async () => {
        found.audio = receivers("audio").map(holder);
        const slot = found.audio.indexOf(source);
        if (slot < 0) return false;
        // statistics are dear: only of the slot that it is
        const reports = [...(await receivers("audio")[slot].getStats()).values()];
        const report = reports.find((s) => s.type === "inbound-rtp"); // not yet there where the first packet has just come
        found.gained = (report?.totalAudioEnergy ?? 0) - quiet[slot];
        return found.gained > energy;
      };
      const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
      const sees = () => {
        const video = document.querySelector("#video-0");
        found.video = holder(receivers("video")[0]);
        if (found.video !== source || !video?.videoWidth) return false;
        context.drawImage(video, 0, 0, 1, 1);
        found.colour = [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        return found.colour.every((c, i) => Math.abs(c - colour[i]) < 60);
      };
      const [heard, seen] = await Promise.all([every20(hears), every20(sees)]);
      return { heard, seen, found };
    }, o);
  }

  /** Name -> source id, as the conference event package told it. */
  async roster() {
    return this.page.evaluate(() => Object.fromEntries([...window.rostrum.client.roster.participants.values()].map((p) => [p.name, p.sources])));
  }

  async screenshot(file) {
    writeFileSync(file, await this.page.screenshot());
  }

  async leave() {
    await this.page.click("#leave");
    await this.page.waitForSelector("#join");
  }

  async stop() {
    await (this.shared ? this.context : this.browser).close();
  }
}
