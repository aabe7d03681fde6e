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

/** dBFS from which sound is heard, over `HEARD_MS`; below `SILENT` there is none. */
const HEARD = -45;
const SILENT = -55;
const HEARD_MS = 250;
/** What has been said must have died away after so long. */
const SILENT_WITHIN_MS = 5000;
/** The same as energy, which browsers tell instead: square × seconds. */
const energy = (level) => 10 ** (level / 10) * (HEARD_MS / 1000);
/** Level (RFC 6464, -dBov) up to which the switch takes for speech what somebody sends. */
const SPEECH = 50;

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
  /** Who spoke last. */
  previous;
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

  /**
   * Chromium, one process each; `options` as `Browser.start` takes them. All start before the first joins: it would take
   * the others' starting for jitter, and play what it hears half a second late from then on.
   */
  async browsers(names, options = {}) {
    const ends = [];
    for (const name of names) {
      const { colour, recording } = CAST[name];
      ends.push(
        await Browser.start({
          ...this.#common(name),
          speech: speech(`${this.directory}/${name}.wav`, 48000, 1, recording),
          picture: y4m(`${this.directory}/${name}.y4m`, colour),
          ...options,
        }),
      );
    }
    for (const end of ends) await this.#enter(end, (e) => e.join());
    return ends;
  }

  async browser(name, options) {
    return (await this.browsers([name], options))[0];
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

  /** Waits until `end` hears nobody any more; gives what the browser's slots have heard until then. */
  async #silence(end) {
    let quiet;
    await until(`${end.name} hears nothing`, SILENT_WITHIN_MS, async () => {
      if (!(end instanceof Browser)) return end.heard(HEARD_MS) < SILENT || end.heard(HEARD_MS);
      const energies = await end.energies();
      const same = quiet?.energies.every((e, i) => energies[i] - e < energy(SILENT));
      if (!same) quiet = { energies, since: Date.now() };
      return Date.now() - quiet.since >= HEARD_MS || energies;
    });
    return quiet?.energies;
  }

  /** When `end` hears and sees `speaker`, the only one who has spoken since `quiet`. */
  async #perceives(end, speaker, source, ssrc, quiet) {
    const { colour } = CAST[speaker];
    if (end instanceof Browser) {
      const { heard, seen, found } = await end.perceive({ source, colour, energy: energy(HEARD), quiet, ms: this.ms });
      for (const [what, at] of [["hears", heard], ["sees", seen]]) {
        if (!at) throw new Error(`${end.name} ${what} ${speaker} (${source}): not within ${this.ms} ms: ${JSON.stringify(found)}`);
      }
      return [heard, seen];
    }
    const heard = until(`${end.name} hears ${speaker}`, this.ms, () => {
      const csrcs = this.wire.csrcs(end.rtp, end.rtp + 199, ssrc, HEARD_MS);
      const level = end.heard(HEARD_MS);
      return (csrcs.includes(source) && level > HEARD) || { source, csrcs, level };
    });
    const seen = until(`${end.name} sees ${speaker}`, this.ms, () => this.#shows(end, speaker));
    return Promise.all([heard.then(Date.now), seen.then(Date.now)]);
  }

  /** True when `end` has the picture of `name` before it; else the colour it has. */
  async #shows(end, name) {
    const colour = end instanceof Browser ? (await end.look()).video[0]?.colour : await end.seen();
    return sameColour(colour, CAST[name].colour) || { colour };
  }

  /** Waits until the switch takes what `speaker` sends for speech. Gives the latest time, from `begin` on, at which that was not yet so. */
  async #speechBegins(speaker, source, begin) {
    await until(`${speaker} speaks`, this.ms, async () => {
      const asked = Date.now();
      const { media } = await this.view(); // without it where the switch does not answer in time
      const leg = media?.legs.find((l) => l.source === source);
      // the level is that of the newest packet alone, who is active is so over pauses
      if (leg?.level <= SPEECH || media?.active.includes(leg?.id)) return true;
      begin = asked;
      return leg?.level;
    });
    return begin;
  }

  /**
   * `speaker` speaks until everyone else hears and sees that one, who sees the one before. Gives the times that took
   * from the beginning of the speech on, ms.
   */
  async turn(speaker) {
    const { participants } = await this.view();
    const member = (name) => participants.find((p) => p.display === name) ?? assert.fail(`${name} is not in the meeting`);
    const { source } = member(speaker);
    const others = await Promise.all(
      [...this.ends.values()]
        .filter((end) => end.name !== speaker)
        .map(async (end) => ({ end, ssrc: member(end.name).media.find((m) => m.kind === "audio").ssrc, quiet: await this.#silence(end) })),
    );
    const times = {};
    const muted = Date.now();
    await this.ends.get(speaker).speak(true);
    try {
      const begin = this.#speechBegins(speaker, source, muted);
      await Promise.all(
        others.map(async ({ end, ssrc, quiet }) => {
          const [began, ...at] = await Promise.all([begin, this.#perceives(end, speaker, source, ssrc, quiet)]).then((all) => all.flat());
          const [hears, sees] = at.map((time) => Math.max(0, time - began));
          times[end.name] = { hears, sees };
        }),
      );
      if (this.previous !== speaker && this.ends.has(this.previous)) {
        const end = this.ends.get(speaker);
        await until(`${speaker} sees ${this.previous}, who spoke before`, this.ms, () => this.#shows(end, this.previous));
      }
      return times;
    } finally {
      await this.ends.get(speaker).speak(false);
      this.previous = speaker;
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
