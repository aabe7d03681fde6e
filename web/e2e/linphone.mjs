// linphonec as a child process, driven through its standard input: it plays and records wav files and sends a still.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, createWriteStream, fstatSync, mkdirSync, openSync, readSync, rmSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";

/** What its configuration calls what we call so. */
const ENCRYPTIONS = { none: "none", sdes: "srtp", dtls: "dtls" };

/** Codecs that it would use unless told not to: mime, clock rate, channels. */
const AUDIO = ["opus/48000/2", "speex/16000/1", "speex/8000/1", "PCMU/8000/1", "PCMA/8000/1", "GSM/8000/1", "G722/8000/1", "G729/8000/1"];
const VIDEO = ["VP8/90000/1", "H264/90000/1"];

/** Sections of its configuration that leave only `wanted`. */
function codecs(kind, all, wanted) {
  return all
    .map((codec, i) => {
      const [mime, rate, channels] = codec.split("/");
      return `[${kind}_codec_${i}]\nmime=${mime}\nrate=${rate}\n${kind === "audio" ? `channels=${channels}\n` : ""}enabled=${codec === wanted ? 1 : 0}\n\n`;
    })
    .join("");
}

export class Linphone {
  /**
   * @param {object} o lab, name, number, directory, account {uri,user,password}, domain, registrar host:port, encryption
   *   (none, sdes, dtls), ice?, ipv6?, audio (of `AUDIO`), video (of `VIDEO`), speech (wav), colour [r, g, b]
   */
  static async start(o) {
    const directory = `${o.directory}/${o.name}`;
    mkdirSync(`${directory}/.local/share/linphone`, { recursive: true }); // its database; it does nothing without
    const rtp = 20000 + 200 * o.number;
    const still = `${directory}/still.jpg`;
    const hex = o.colour.map((c) => c.toString(16).padStart(2, "0")).join("");
    execFileSync("ffmpeg", ["-y", "-loglevel", "error", "-f", "lavfi", "-i", `color=c=0x${hex}:s=176x144`, "-frames:v", "1", "-pix_fmt", "yuvj420p", still]);
    const silence = `${directory}/silence.wav`;
    execFileSync("sox", ["-n", "-b", "16", "-r", "16000", "-c", "1", silence, "trim", "0", "10"]);
    writeFileSync(
      `${directory}/rc`,
      `[sip]
sip_port=${o.transport === "tcp" ? 0 : -1}
sip_tcp_port=${o.transport === "tcp" ? -1 : 0}
sip_tls_port=0
use_ipv6=${o.ipv6 ? 1 : 0}
media_encryption=${ENCRYPTIONS[o.encryption]}
media_encryption_mandatory=${o.encryption === "none" ? 0 : 1}
default_proxy=0
guess_hostname=1

[net]
mtu=1300
${o.ice ? "nat_policy_ref=ice\n\n[nat_policy_0]\nref=ice\nice_enabled=1\n" : ""}
[rtp]
audio_rtp_port=${rtp}
video_rtp_port=${rtp + 100}
nortp_timeout=120

[proxy_0]
reg_proxy=<sip:${o.registrar};transport=${o.transport ?? "udp"}>
reg_route=<sip:${o.registrar};transport=${o.transport ?? "udp"};lr>
reg_identity="${o.name}" <${o.account.uri}>
reg_expires=300
reg_sendregister=1
publish=0

[auth_info_0]
username=${o.account.user}
passwd=${o.account.password}
realm=${o.domain}
domain=${o.domain}

[video]
size=qcif
display=1
capture=1
automatically_initiate=1
automatically_accept=1
show_local=0
self_view=0
displaytype=MSExtDisplay
device=StaticImage: Static picture

${codecs("audio", AUDIO, o.audio)}${codecs("video", VIDEO, o.video)}`,
    );
    // it would spin at the end of its input for ever, so it goes with us, however we end
    const child = spawn("setpriv", ["--pdeathsig", "KILL", "linphonec", "-c", `${directory}/rc`, ...(process.env.ROSTRUM_KEEP ? ["-d", "6", "-l", `${directory}/linphone.log`] : []), "-V"], {
      cwd: directory,
      env: { ...process.env, HOME: directory, DISPLAY: "" },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const log = createWriteStream(`${directory}/log`);
    child.stdout.pipe(log);
    child.stderr.pipe(log);
    const self = new Linphone();
    Object.assign(self, { ...o, directory, child, rtp, silence, recording: `${directory}/heard.wav`, output: "", waiting: [], muted: true });
    child.stdout.on("data", (d) => self.#read(String(d)));
    child.once("exit", () => self.#read("Terminating...\n"));
    try {
      await self.#registered();
    } catch (e) {
      await self.stop();
      throw e;
    }
    for (const command of ["soundcard use files", `staticpic set ${still}`, `play ${silence}`, `record ${self.recording}`]) self.#command(command);
    return self;
  }

  async #registered() {
    for (let attempt = 0; attempt < 200 && this.child.exitCode === null; attempt++) {
      const known = await this.lab.api(`/registrations?search=${this.account.user}`);
      if (JSON.stringify(known).includes(this.account.user)) return;
      await new Promise((r) => setTimeout(r, 50));
    }
    throw new Error(`${this.name}: not registered; see ${this.directory}/log`);
  }

  #read(text) {
    this.output += text;
    for (const w of this.waiting.splice(0)) if (!w()) this.waiting.push(w);
  }

  /** Waits until it says `good` in what it has not said before; rejects at `bad` or after `ms`. */
  #says(good, bad, ms) {
    const from = this.output.length === 0 ? 0 : (this.mark ?? 0);
    return new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(`${this.name}: ${why}; see ${this.directory}/log: ${this.output.slice(from).slice(-300)}`));
      const timer = setTimeout(() => fail(`no ${good} in ${ms} ms`), ms);
      const check = () => {
        const text = this.output.slice(from);
        if (good.test(text)) resolve();
        else if (bad.test(text)) fail("it failed");
        else return false;
        clearTimeout(timer);
        this.mark = this.output.length;
        return true;
      };
      if (!check()) this.waiting.push(check);
    });
  }

  #command(line) {
    this.mark = this.output.length;
    this.child.stdin.write(`${line}\n`);
  }

  async call(uri) {
    this.#command(`call ${uri}`);
    await this.#says(/Media streams established/, /Call \d+ with .* (ended|error)|Terminating/, 20_000);
    this.#command("staticpic fps 10"); // of the running stream: one frame a second otherwise
  }

  async hangUp() {
    this.#command("terminate");
    await this.#says(/Call \d+ with .* ended/, /Terminating/, 10_000);
  }

  async speak(on) {
    if (this.muted === !on) return;
    this.#command(`play ${on ? this.speech : this.silence}`); // its mute leaves files alone
    this.muted = !on;
  }

  /** RMS of the last `ms` of decoded audio, dBFS. */
  heard(ms) {
    let fd;
    try {
      fd = openSync(this.recording);
    } catch {
      return -100; // no call yet
    }
    try {
      // the head of the file is written when it is closed: it is mono, at the rate its codec decodes to
      const { size } = fstatSync(fd);
      const rate = { opus: 48000, G722: 16000 }[this.audio.split("/")[0]] ?? 8000;
      const length = Math.min(2 * Math.floor((ms * rate) / 1000), size - 44) & ~1;
      if (length <= 0) return -100;
      const bytes = Buffer.alloc(length);
      readSync(fd, bytes, 0, length, 44 + ((size - 44 - length) & ~1));
      let sum = 0;
      for (let i = 0; i + 1 < length; i += 2) sum += (bytes.readInt16LE(i) / 32768) ** 2;
      return 10 * Math.log10(sum / (length / 2) + 1e-10);
    } finally {
      closeSync(fd);
    }
  }

  /** Mean colour [r, g, b] of the picture being received; undefined: none yet. */
  async seen() {
    const file = `${this.directory}/seen.jpg`;
    rmSync(file, { force: true });
    this.#command(`snapshot ${file}`);
    for (let i = 0; i < 20; i++) {
      await new Promise((r) => setTimeout(r, 50));
      try {
        const { stdout: raw } = await promisify(execFile)("ffmpeg", ["-loglevel", "error", "-i", file, "-vf", "scale=1:1", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], { encoding: "buffer" });
        if (raw.length >= 3) return [...raw.subarray(0, 3)];
      } catch {
        // not written yet, or half written
      }
    }
    return undefined;
  }

  async stop() {
    if (this.child.exitCode !== null) return;
    const gone = once(this.child, "exit");
    this.child.stdin.end("quit\n");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 8000);
    await gone;
    clearTimeout(timer);
  }
}
