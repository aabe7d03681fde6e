// baresip as a child process, driven over its control socket.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, openSync, readFileSync, readSync, closeSync, fstatSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { HOST, HOST6 } from "./lab.mjs";
import { meanColour } from "./media.mjs";

/** A TCP port that is free now, and whose successor is too (baresip takes it for TLS). */
async function freePorts(host) {
  for (;;) {
    const server = createServer();
    server.listen(0, host);
    await once(server, "listening");
    const { port } = server.address();
    const next = createServer();
    next.listen(port + 1, host);
    const ok = await once(next, "listening").then(() => true, () => false);
    server.close();
    next.close();
    if (ok) return port;
  }
}

export class Phone {
  /**
   * @param {object} o lab, name, number, directory, account {uri,user,password}, registrar host:port, transport, codec
   *   ("PCMU/8000/1", "G722/16000/1", "opus/48000/2"), encryption ("", "srtp-mand" or "dtls_srtp"), ice?, ipv6?,
   *   speech and picture files
   */
  static async start(o) {
    const directory = `${o.directory}/${o.name}`;
    mkdirSync(directory, { recursive: true });
    const [, rate, channels] = o.codec.split("/");
    const host = o.ipv6 ? HOST6 : HOST;
    const sip = await freePorts(host);
    const control = await freePorts("127.0.0.1");
    const [rtp] = [20000 + 200 * (o.number ?? 0)];
    const modules = ["opus", "g711", "g722", "aufile", "aubridge", "sndfile", "srtp", "dtls_srtp", "ice", "vp8", "avformat", "fakevideo", "snapshot", "swscale"];
    writeFileSync(
      `${directory}/config`,
      `poll_method epoll
sip_listen ${o.ipv6 ? `[${host}]` : host}:${sip}
sip_verify_server no
call_local_timeout 120
call_max_calls 4
audio_source aufile,${o.speech}
audio_player aubridge,null
audio_alert aubridge,null
ausrc_srate ${rate}
auplay_srate ${rate}
ausrc_channels ${channels}
auplay_channels ${channels}
audio_level ${o.levels === false ? "no" : "yes"}
audio_buffer 20-160
rtp_ports ${rtp}-${rtp + 199}
jitter_buffer_delay 1-5
net_interface rostrum0
video_source avformat,${o.picture}
video_display fakevideo,nil
video_size 160x120
video_bitrate 150000
video_fps 10
module_path /usr/lib/baresip/modules
${modules.map((m) => `module ${m}.so`).join("\n")}
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
module_app debug_cmd.so
snd_path ${directory}
ctrl_tcp_listen 127.0.0.1:${control}
`,
    );
    const parameters = [
      `auth_user=${o.account.user}`,
      `auth_pass=${o.account.password}`,
      `outbound="sip:${o.registrar};transport=${o.transport ?? "udp"}"`,
      "regint=300",
      `audio_codecs=${o.codec}`,
      "video_codecs=VP8",
      ...(o.encryption ? [`mediaenc=${o.encryption}`] : []),
      ...(o.ice ? ["medianat=ice"] : []),
    ];
    writeFileSync(`${directory}/accounts`, `"${o.name}" <${o.account.uri}>;${parameters.join(";")}\n`);
    writeFileSync(`${directory}/contacts`, "");
    const child = spawn("baresip", [o.ipv6 ? "-6" : "-4", "-f", directory], { cwd: directory, stdio: ["ignore", "pipe", "pipe"] });
    const log = createWriteStream(`${directory}/log`);
    child.stdout.pipe(log);
    child.stderr.pipe(log);
    const phone = new Phone();
    Object.assign(phone, { ...o, directory, child, events: [], waiting: [], muted: false, buffer: Buffer.alloc(0), rtp });
    await phone.#connect(control);
    await phone.#registered();
    return phone;
  }

  /** Waits until the registrar knows us; baresip may have registered before its control socket was open. */
  async #registered() {
    for (let attempt = 0; attempt < 200; attempt++) {
      const known = await this.lab.api(`/registrations?search=${this.account.user}`);
      if (JSON.stringify(known).includes(this.account.user)) return;
      await new Promise((r) => setTimeout(r, 50));
    }
    throw new Error(`${this.name}: not registered; see ${this.directory}/log`);
  }

  async #connect(port) {
    for (let attempt = 0; ; attempt++) {
      const socket = connect(port, "127.0.0.1");
      if (await once(socket, "connect").then(() => true, () => false)) {
        this.socket = socket;
        socket.on("data", (data) => this.#read(data));
        return;
      }
      if (attempt > 100 || this.child.exitCode !== null) throw new Error(`${this.name}: baresip did not start`);
      await new Promise((r) => setTimeout(r, 50));
    }
  }

  /** Netstrings of JSON: events, and answers to commands in order. */
  #read(data) {
    this.buffer = Buffer.concat([this.buffer, data]);
    for (;;) {
      const colon = this.buffer.indexOf(":");
      if (colon < 0) return;
      const length = Number(this.buffer.subarray(0, colon));
      if (this.buffer.length < colon + length + 2) return;
      const message = JSON.parse(this.buffer.subarray(colon + 1, colon + 1 + length));
      this.buffer = this.buffer.subarray(colon + length + 2);
      this.events.push(message);
      for (const w of this.waiting.splice(0)) {
        if (w.match(message)) w.resolve(message);
        else this.waiting.push(w);
      }
    }
  }

  /** The next event, or one that already came, that matches. */
  event(match, ms = 10_000) {
    const found = this.events.find(match);
    if (found) return Promise.resolve(found);
    return this.next(match, ms);
  }

  next(match, ms = 10_000) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${this.name}: no such event in ${ms} ms; had ${this.events.map((e) => e.type ?? "response").join(" ")}`)), ms);
      this.waiting.push({ match, resolve: (m) => (clearTimeout(timer), resolve(m)) });
    });
  }

  async command(command, params) {
    const json = JSON.stringify(params === undefined ? { command } : { command, params });
    const answer = this.next((m) => m.response);
    this.socket.write(`${Buffer.byteLength(json)}:${json},`);
    return answer;
  }

  async call(uri) {
    const established = this.next((m) => m.type === "CALL_ESTABLISHED" || m.type === "CALL_CLOSED", 15_000);
    await this.command("dial", uri);
    const e = await established;
    if (e.type !== "CALL_ESTABLISHED") throw new Error(`${this.name}: call refused: ${e.param}`);
  }

  async hangUp() {
    const closed = this.next((m) => m.type === "CALL_CLOSED");
    await this.command("hangup");
    await closed;
  }

  async speak(on) {
    if (this.muted === !on) return;
    await this.command("mute");
    this.muted = !on;
  }

  /** RMS of the last `ms` of decoded audio, dBFS. */
  heard(ms) {
    const file = readdirSync(this.directory).filter((f) => f.endsWith("-dec.wav")).sort().at(-1);
    if (!file) return -100;
    const fd = openSync(`${this.directory}/${file}`);
    try {
      const [, rate, channels] = this.codec.split("/").map(Number);
      const want = Math.floor((ms * rate * channels * 2) / 1000 / 4) * 4;
      const { size } = fstatSync(fd);
      const length = Math.min(want, size - 44);
      if (length <= 0) return -100;
      const bytes = Buffer.alloc(length);
      readSync(fd, bytes, 0, length, 44 + Math.floor((size - 44 - length) / 4) * 4);
      let sum = 0;
      for (let i = 0; i + 1 < length; i += 2) sum += (bytes.readInt16LE(i) / 32768) ** 2;
      return 10 * Math.log10(sum / (length / 2) + 1e-10);
    } finally {
      closeSync(fd);
    }
  }

  /** Mean colour [r, g, b] of the picture being received; undefined: none yet. */
  async seen() {
    const file = `${this.directory}/seen.png`;
    rmSync(file, { force: true });
    await this.command("snapshot_recv", file);
    for (let i = 0; i < 20; i++) {
      try {
        if (readFileSync(file).length > 0) {
          return meanColour(readFileSync(file));
        }
      } catch {
        // not written yet, or half written
      }
      await new Promise((r) => setTimeout(r, 25));
    }
    return undefined;
  }

  async stop() {
    if (this.child.exitCode !== null) return;
    this.child.kill("SIGTERM");
    await once(this.child, "exit");
    this.socket.destroy();
  }
}
