// A meeting with its participants, and what each of them must perceive when one of them speaks.

import assert from "node:assert/strict";
import { Browser } from "./browser.mjs";
import { Firefox } from "./firefox.mjs";
import { Linphone } from "./linphone.mjs";
import { mp4, sameColour, speech, y4m } from "./media.mjs";
import { Phone } from "./phone.mjs";

/** Everybody's picture and voice. */
const CAST = {
  Red: { colour: [220, 20, 20], recording: "demo-congrats" },
  Green: { colour: [20, 180, 20], recording: "demo-instruct" },
  Blue: { colour: [30, 30, 230], recording: "demo-abouttotry" },
  Yellow: { colour: [220, 220, 20], recording: "demo-moreinfo" },
  Magenta: { colour: [220, 20, 220], recording: "demo-nomatch" },
};

/** Calls `check` until it gives true; fails with what it last gave after `ms`. Returns how long it took, ms. */
export async function until(what, ms, check) {
  const begin = Date.now();
  for (;;) {
    const last = await check();
    if (last === true) return Date.now() - begin;
    if (Date.now() - begin > ms) throw new Error(`${what}: not within ${ms} ms: ${JSON.stringify(last)}`);
    await new Promise((r) => setTimeout(r, 30));
  }
}

export class Stage {
  ends = new Map();
  #previous;
  #number = 0;

  /** @param {{ lab: import("./lab.mjs").Lab, wire: import("./wire.mjs").Wire, directory: string, ms: number }} o within `ms` everything must be perceived */
  constructor(o) {
    Object.assign(this, o);
    this.uri = o.lab.info.meetings[0];
    this.meeting = this.uri.replace(/^sip:/, "").split("@")[0];
  }

  #common(name) {
    return { name, lab: this.lab, directory: this.directory, url: this.lab.info.web, meeting: this.meeting, colour: CAST[name].colour };
  }

  #account() {
    const number = this.#number++;
    return { number, account: this.lab.info.accounts[number], registrar: this.lab.info.sip.udp, domain: this.lab.info.domain };
  }

  async #enter(end, join) {
    this.ends.set(end.name, end);
    await join(end);
    await end.speak(false);
    return end;
  }

  /** baresip; `options` as `Phone.start` takes them. */
  async phone(name, options) {
    const [, rate, channels] = options.codec.split("/");
    const { colour, recording } = CAST[name];
    const end = await Phone.start({
      ...this.#common(name), ...this.#account(),
      speech: speech(`${this.directory}/${name}.wav`, rate, channels, recording),
      picture: mp4(`${this.directory}/${name}.mp4`, colour),
      ...options,
    });
    return this.#enter(end, (e) => e.call(this.uri));
  }

  /** linphonec; `options` as `Linphone.start` takes them. */
  async linphone(name, options) {
    const wav = speech(`${this.directory}/${name}.wav`, 16000, 1, CAST[name].recording);
    const end = await Linphone.start({ ...this.#common(name), ...this.#account(), speech: wav, ...options });
    return this.#enter(end, (e) => e.call(this.uri));
  }

  /** Chromium; `options` as `Browser.start` takes them. */
  async browser(name, options = {}) {
    const { colour, recording } = CAST[name];
    const end = await Browser.start({
      ...this.#common(name),
      speech: speech(`${this.directory}/${name}.wav`, 48000, 1, recording),
      picture: y4m(`${this.directory}/${name}.y4m`, colour),
      ...options,
    });
    return this.#enter(end, (e) => e.join());
  }

  async firefox(name) {
    const wav = speech(`${this.directory}/${name}.wav`, 16000, 1, CAST[name].recording, 1);
    return this.#enter(await Firefox.start({ ...this.#common(name), speech: wav }), (e) => e.join());
  }

  view() {
    return this.lab.api(`/meetings/${this.meeting}`);
  }

  /** Participants by display name, with the source id the focus gave them. */
  async sources() {
    return Object.fromEntries((await this.view()).participants.map((p) => [p.display, p.source]));
  }

  /** What the switch and the focus know of somebody's leg. */
  async leg(name) {
    const { participants, media } = await this.view();
    const participant = participants.find((p) => p.display === name);
    return { ...media.legs.find((l) => l.source === participant.source), media: participant.media };
  }

  /** True when `end` hears and sees `speaker`; else what is missing. */
  async #perceives(end, speaker, source, energyBefore) {
    if (!(end instanceof Browser)) {
      const level = end.heard(250);
      const csrcs = [...this.wire.csrcs(end.rtp, end.rtp + 199, 300)];
      if (level < -45 || !csrcs.includes(source)) return { level, csrcs, source };
      const colour = await end.seen();
      return sameColour(colour, CAST[speaker].colour) || { colour };
    }
    const look = await end.look();
    const heard = look.audio.some((a, i) => a.csrc === source && a.energy - (energyBefore[i] ?? 0) > 0.001);
    const seen = look.video[0]?.csrc === source && look.video[0].frames > 0 && sameColour(look.video[0].colour, CAST[speaker].colour);
    return (heard && seen) || { source, ...look };
  }

  /** `speaker` speaks until everyone else hears and sees that one, who sees the one before. Gives the times, ms. */
  async turn(speaker) {
    const ids = await this.sources();
    assert.ok(ids[speaker], `${speaker} is in the meeting: ${JSON.stringify(ids)}`);
    const others = [...this.ends].filter(([name]) => name !== speaker);
    const before = new Map();
    for (const [name, end] of others) before.set(name, end instanceof Browser ? (await end.look()).audio.map((a) => a.energy) : []);
    const end = this.ends.get(speaker);
    await end.speak(true);
    try {
      const times = await Promise.all(
        others.map(async ([name, other]) => [name, await until(`${name} hears and sees ${speaker}`, this.ms, () => this.#perceives(other, speaker, ids[speaker], before.get(name)))]),
      );
      if (this.ends.has(this.#previous)) {
        await until(`${speaker} sees ${this.#previous}, who spoke before`, this.ms, async () => {
          const colour = end instanceof Browser ? (await end.look()).video[0]?.colour : await end.seen();
          return sameColour(colour, CAST[this.#previous].colour) || { colour };
        });
      }
      return Object.fromEntries(times);
    } finally {
      await end.speak(false);
      this.#previous = speaker;
    }
  }

  /** Everybody in turn. */
  async turns(t) {
    for (const name of this.ends.keys()) t.diagnostic(`${name}: ${JSON.stringify(await this.turn(name))}`);
  }

  /** Everybody leaves, and nothing is left. */
  async leave() {
    for (const end of this.ends.values()) await (end instanceof Browser ? end.leave() : end.hangUp());
    await until("no leg, port or dialog is left", 5000, async () => {
      const counts = await this.lab.api("/counts");
      return (counts.dialogs === 0 && counts.switch_legs === 0 && counts.ports === 0) || counts;
    });
    await this.stop();
  }

  async stop() {
    await Promise.all([...this.ends.values()].map((end) => end.stop()));
    this.ends.clear();
  }
}
