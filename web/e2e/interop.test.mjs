// Every kind of leg talks with the others: short meetings of Firefox, linphonec, baresip and Chromium, whose media
// differ in encryption, ICE, codecs and address family. In each, everyone in turn speaks, and all others hear it (sound
// decoded, CSRC of the speaker) and see it (picture decoded, in the speaker's colour).

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, afterEach, before, test } from "node:test";
import { HOST6, Lab } from "./lab.mjs";
import { Stage, until } from "./stage.mjs";
import { Wire } from "./wire.mjs";

/** No end may take longer than this to perceive a new speaker, however busy the machine. */
const AT_MOST_MS = 10_000;

const directory = mkdtempSync(`${tmpdir()}/rostrum-interop-`);
let lab, wire, stage;

before(async () => {
  wire = await Wire.start(20000, 20999);
});

afterEach(async () => {
  await stage?.stop();
  await lab?.stop();
});

after(async () => {
  await wire?.stop();
  if (!process.env.ROSTRUM_KEEP) rmSync(directory, { recursive: true, force: true });
  else console.log(`kept ${directory}`);
});

/** An empty meeting on a server of its own, so that who did not get to leave one is not in the next. */
async function meeting(name, ...options) {
  const own = `${directory}/${name}`;
  mkdirSync(own, { recursive: true });
  lab = await Lab.start(own, ...options);
  return (stage = new Stage({ lab, wire, directory: own, ms: AT_MOST_MS }));
}

test("Firefox talks with Chromium and a phone, on the page that users get", async (t) => {
  const { ends } = await meeting("firefox");
  await stage.phone("Red", { codec: "PCMU/8000/1" });
  await stage.browser("Blue");
  const fox = await stage.firefox("Yellow");
  // as it is out of the box: an mDNS name for a candidate, which the server cannot look up and does not need to
  const offer = await fox.page.evaluate(() => window.rostrum.pc.localDescription.sdp);
  assert.match(offer, /\.local \d+ typ host/);
  assert.equal((await stage.leg("Yellow")).media[0].security, "dtls");
  await stage.turns(t);

  const ids = await stage.sources();
  await until("Firefox knows everyone by name", 5000, async () => {
    const roster = await fox.roster();
    return Object.entries(ids).every(([name, source]) => roster[name]?.includes(source)) || roster;
  });
  await stage.turn("Blue");
  await until("Firefox names whom it shows", 5000, async () => {
    const caption = await fox.page.evaluate(() => document.querySelector("#video-0").closest("figure").textContent);
    return caption.includes("Blue") || caption;
  });
  await fox.page.click("#stats");
  await until("Firefox's statistics show streams in both directions and who was switched to", 5000, async () => {
    const panel = await fox.page.textContent("section.panel");
    return (/in audio/.test(panel) && /out audio/.test(panel) && /in video.*VP8/.test(panel) && /out video.*VP8/.test(panel) && /opus/i.test(panel) && /Blue/.test(panel)) || panel;
  });
  await fox.leave();
  assert.match(await fox.problem(), /You left/);
  await until("Firefox is out of the others' roster", 5000, async () => {
    const names = Object.keys(await ends.get("Blue").roster());
    return !names.includes("Yellow") || names;
  });
  await fox.stop();
  ends.delete("Yellow");
  await stage.leave();
});

test("linphone talks with Chromium: plain, with SDES, and with DTLS and ICE", async (t) => {
  await meeting("linphone");
  await stage.linphone("Red", { encryption: "none", audio: "PCMA/8000/1", video: "VP8/90000/1" });
  await stage.linphone("Green", { encryption: "sdes", audio: "opus/48000/2", video: "VP8/90000/1" });
  await stage.linphone("Magenta", { encryption: "dtls", ice: true, audio: "opus/48000/2", video: "VP8/90000/1" });
  await stage.browser("Blue");
  for (const [name, security] of [["Red", "plain"], ["Green", "sdes"], ["Magenta", "dtls"]]) {
    assert.deepEqual((await stage.leg(name)).media.map((m) => m.security), [security, security], name);
  }
  await stage.turns(t);
  await stage.leave();
});

test("baresip talks with Chromium: DTLS and ICE, G.722 alone, PCMA alone with SDES", async (t) => {
  await meeting("baresip");
  await stage.phone("Red", { codec: "opus/48000/2", encryption: "dtls_srtp", ice: true });
  const joined = Date.now();
  await stage.phone("Green", { codec: "G722/16000/1" });
  await stage.phone("Magenta", { codec: "PCMA/8000/1", encryption: "srtp-mand" });
  await stage.browser("Blue");
  const legs = await Promise.all(["Red", "Green", "Magenta"].map((name) => stage.leg(name)));
  assert.deepEqual(legs.map((l) => l.media[0].security), ["dtls", "plain", "sdes"]);
  assert.deepEqual(legs.map((l) => l.media[0].codecs[0]), ["opus", "G722", "PCMA"]);
  assert.equal(legs[2].srtp_profile, "AES_CM_128_HMAC_SHA1_80");
  await stage.turns(t);
  // baresip checks its path once and then sends media only: consent (30 s) must not run out over that
  await until("Red has been there for longer than consent lasts", 32_000, () => Date.now() - joined > 32_000);
  await stage.turn("Red");
  await stage.leave();
});

test("a meeting over IPv6 alone", async (t) => {
  await meeting("ipv6", "--host", HOST6);
  await stage.phone("Red", { codec: "PCMU/8000/1", ipv6: true });
  await stage.linphone("Green", { encryption: "sdes", audio: "opus/48000/2", video: "VP8/90000/1", ipv6: true });
  await stage.browser("Blue");
  for (const name of ["Red", "Green", "Blue"]) assert.match((await stage.leg(name)).remote, /^\[2001:db8::1\]:\d+$/, name);
  await stage.turns(t);
  await stage.leave();
});

for (const videoCodec of ["H264", "VP9", "AV1"]) {
  test(`three Chromium see each other in ${videoCodec} over changes of speaker`, async (t) => {
    const { ends } = await meeting(videoCodec);
    await stage.browsers(["Blue", "Yellow", "Magenta"], { videoCodec });
    await stage.turns(t);
    await stage.turn("Blue");
    for (const end of ends.values()) {
      const codecs = await end.page.evaluate(async () => {
        const stats = await window.rostrum.pc.getStats();
        const used = [...stats.values()].filter((s) => /^(in|out)bound-rtp$/.test(s.type) && s.kind === "video" && s.codecId);
        return [...new Set(used.map((s) => `${s.type} ${stats.get(s.codecId).mimeType}`))].sort();
      });
      assert.deepEqual(codecs, [`inbound-rtp video/${videoCodec}`, `outbound-rtp video/${videoCodec}`].sort(), end.name);
    }
    await stage.leave();
  });
}
