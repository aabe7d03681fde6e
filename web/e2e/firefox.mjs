// Firefox with a recorded voice and a coloured picture, on the page that users get. It is driven by Marionette, its
// own remote protocol (the one geckodriver speaks): JSON over TCP, which needs no package.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { Browser } from "./browser.mjs";

/** What differs from a fresh profile: no first-run pages and traffic, devices that every machine has, no questions. */
const PREFERENCES = {
  "marionette.port": 0,
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.autoplay.default": 0,
  "devtools.console.stdout.content": true,
  "app.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "browser.startup.page": 0,
  "browser.sessionstore.resume_from_crash": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "media.gmp-manager.updateEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "",
  "toolkit.telemetry.enabled": false,
};

/** One Marionette session: commands are answered in order of their ids. */
class Marionette {
  static async connect(directory, child) {
    for (let attempt = 0; ; attempt++) {
      const port = (() => {
        try {
          return Number(readFileSync(`${directory}/MarionetteActivePort`, "utf8"));
        } catch {
          return 0; // not yet there
        }
      })();
      if (port > 0) {
        const socket = connect(port, "127.0.0.1");
        if (await once(socket, "connect").then(() => true, () => false)) {
          const self = new Marionette();
          Object.assign(self, { socket, buffer: Buffer.alloc(0), id: 0, waiting: new Map() });
          socket.on("data", (data) => self.#read(data));
          socket.on("close", () => self.#closed());
          return self;
        }
      }
      if (attempt > 600 || child.exitCode !== null) throw new Error(`Firefox did not start; see ${directory}/log`);
      await new Promise((r) => setTimeout(r, 50));
    }
  }

  #read(data) {
    this.buffer = Buffer.concat([this.buffer, data]);
    for (;;) {
      const colon = this.buffer.indexOf(":");
      if (colon < 0) return;
      const end = colon + 1 + Number(this.buffer.subarray(0, colon));
      if (this.buffer.length < end) return;
      const message = JSON.parse(this.buffer.subarray(colon + 1, end));
      this.buffer = this.buffer.subarray(end);
      if (!Array.isArray(message)) continue; // the greeting
      const [, id, error, result] = message;
      const waiting = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) waiting?.reject(new Error(`${waiting.name}: ${error.error}: ${error.message}`));
      else waiting?.resolve(result?.value === undefined ? result : result.value);
    }
  }

  #closed() {
    for (const { name, reject } of this.waiting.values()) reject(new Error(`${name}: Firefox is gone`));
    this.waiting.clear();
  }

  send(name, parameters = {}) {
    const id = ++this.id;
    const text = JSON.stringify([0, id, name, parameters]);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { name, resolve, reject });
      this.socket.write(`${Buffer.byteLength(text)}:${text}`);
    });
  }
}

/** The few methods of Playwright's page that `Browser` uses. */
class Page {
  constructor(marionette) {
    this.marionette = marionette;
  }

  async goto(url) {
    await this.marionette.send("WebDriver:Navigate", { url });
  }

  /** Calls `script` in the page with `argument`; a promise is awaited there. */
  async evaluate(script, argument) {
    const body = `const done = arguments[arguments.length - 1];
      (async () => (${script})(arguments[0]))().then((value) => done({ value }), (e) => done({ error: String(e) }));`;
    const answer = await this.marionette.send("WebDriver:ExecuteAsyncScript", { script: body, args: [argument ?? null], sandbox: null });
    if (answer?.error) throw new Error(answer.error);
    return answer?.value;
  }

  async waitForFunction(script, argument, { timeout = 30_000 } = {}) {
    const begin = Date.now();
    while (!(await this.evaluate(script, argument))) {
      if (Date.now() - begin > timeout) throw new Error(`not within ${timeout} ms: ${script}`);
      await new Promise((r) => setTimeout(r, 50));
    }
  }

  async waitForSelector(selector) {
    await this.waitForFunction((s) => document.querySelector(s) !== null, selector);
  }

  async textContent(selector) {
    return this.evaluate((s) => document.querySelector(s)?.textContent, selector);
  }

  async #find(selector) {
    await this.waitForSelector(selector);
    return Object.values(await this.marionette.send("WebDriver:FindElement", { using: "css selector", value: selector }))[0];
  }

  async click(selector) {
    await this.marionette.send("WebDriver:ElementClick", { id: await this.#find(selector) });
  }

  async fill(selector, text) {
    const id = await this.#find(selector);
    await this.marionette.send("WebDriver:ElementClear", { id });
    await this.marionette.send("WebDriver:ElementSendKeys", { id, text });
  }

  async setChecked(selector, on) {
    await this.waitForSelector(selector);
    if ((await this.evaluate((s) => document.querySelector(s).checked, selector)) !== on) await this.click(selector);
  }

  async screenshot() {
    return Buffer.from(await this.marionette.send("WebDriver:TakeScreenshot", { full: false }), "base64");
  }
}

/**
 * Replaces what comes from the devices from now on: their sound by a looping recording, their picture by one colour.
 * Firefox's own stand-ins (a steady tone, a picture of changing colours) can be told neither from noise nor apart.
 */
function replaceDevices({ wav, colour }) {
  const media = navigator.mediaDevices;
  const original = media.getUserMedia.bind(media);
  media.getUserMedia = async (constraints) => {
    const given = await original(constraints);
    const tracks = [];
    if (constraints.audio) {
      // not through an AudioContext, which does not run on a machine without a sound card
      const bytes = Uint8Array.from(atob(wav), (c) => c.charCodeAt(0));
      const player = new Audio(URL.createObjectURL(new Blob([bytes], { type: "audio/wav" })));
      player.loop = true;
      const captured = player.mozCaptureStream();
      await player.play();
      tracks.push(...captured.getAudioTracks());
    }
    if (constraints.video) {
      const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 120 });
      const brush = canvas.getContext("2d");
      const paint = () => {
        brush.fillStyle = `rgb(${colour})`;
        brush.fillRect(0, 0, canvas.width, canvas.height);
      };
      paint();
      setInterval(paint, 100);
      tracks.push(...canvas.captureStream(10).getVideoTracks());
    }
    for (const track of given.getTracks()) track.stop();
    return new MediaStream(tracks);
  };
}

export class Firefox extends Browser {
  /** @param {object} o name, directory, url, meeting, speech (a wav file), colour [r, g, b] */
  static async start(o) {
    const profile = `${o.directory}/${o.name}-profile`;
    mkdirSync(profile, { recursive: true });
    const lines = Object.entries(PREFERENCES).map(([k, v]) => `user_pref(${JSON.stringify(k)}, ${JSON.stringify(v)});\n`);
    writeFileSync(`${profile}/user.js`, lines.join(""));
    const child = spawn("firefox-esr", ["--headless", "--no-remote", "--marionette", "--profile", profile], {
      env: { ...process.env, HOME: profile, MOZ_HEADLESS_WIDTH: "1100", MOZ_HEADLESS_HEIGHT: "800" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const log = createWriteStream(`${profile}/log`);
    child.stdout.pipe(log);
    child.stderr.pipe(log);
    const self = new Firefox();
    const lastLines = [];
    child.stdout.on("data", (d) => lastLines.push(...String(d).split("\n").filter((l) => l.startsWith("console."))));
    Object.assign(self, { ...o, child, profile, log: lastLines, marionette: await Marionette.connect(profile, child) });
    await self.marionette.send("WebDriver:NewSession", { acceptInsecureCerts: true, timeouts: { script: 30_000 } });
    self.page = new Page(self.marionette);
    await self.open();
    return self;
  }

  /** Looks at the page with the browser's own devices first, then with ours: the page asks for them once more. */
  async fillIn() {
    await super.fillIn();
    await this.page.evaluate(replaceDevices, { wav: readFileSync(this.speech).toString("base64"), colour: this.colour });
    await this.page.evaluate(() => {
      const before = document.querySelector("#preview").srcObject;
      document.querySelector("#microphone").dispatchEvent(new Event("change"));
      window.before = before;
    });
    await this.page.waitForFunction(() => {
      const now = document.querySelector("#preview").srcObject;
      return now !== window.before && now?.getTracks().length === 2;
    });
  }

  async stop() {
    if (this.child.exitCode !== null) return;
    const gone = once(this.child, "exit");
    await this.marionette.send("Marionette:Quit", { flags: ["eForceQuit"] }).catch(() => {});
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 5000);
    await gone;
    clearTimeout(timer);
    this.marionette.socket.destroy();
  }
}
