// A meeting of two phones (one plain and PCMU, one SDES and Opus) and three browsers: everyone hears and sees
// whoever speaks, whatever they came with; people leave and join; nothing is left at the end.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { Lab } from "./lab.mjs";
import { Stage, until } from "./stage.mjs";
import { Wire } from "./wire.mjs";

/** How long after somebody unmutes and speaks the others must hear and see them: nine in ten of all times taken. */
const WITHIN_MS = 1000;
/** No end may take longer than this, however busy the machine. */
const AT_MOST_MS = 2000;
/** Every time taken, ms. */
const taken = [];

const directory = mkdtempSync(`${tmpdir()}/rostrum-meeting-`);
let lab, wire, stage;

before(async () => {
  lab = await Lab.start(directory);
  wire = await Wire.start(20000, 20999);
  stage = new Stage({ lab, wire, directory, ms: AT_MOST_MS });
});

after(async () => {
  await stage?.stop();
  await wire?.stop();
  await lab?.stop();
  if (!process.env.ROSTRUM_KEEP) rmSync(directory, { recursive: true, force: true });
  else console.log(`kept ${directory}`);
});

async function turn(speaker) {
  const times = await stage.turn(speaker);
  taken.push(...Object.values(times));
  return times;
}

test("phones and browsers join one meeting", async () => {
  await stage.phone("Red", { codec: "PCMU/8000/1" });
  await stage.phone("Green", { codec: "opus/48000/2", encryption: "srtp-mand" });
  for (const name of ["Blue", "Yellow", "Magenta"]) await stage.browser(name);
  const ids = await stage.sources();
  assert.deepEqual(Object.keys(ids).sort(), ["Blue", "Green", "Magenta", "Red", "Yellow"]);
  await until("Blue's page knows everyone", 5000, async () => {
    const roster = await stage.ends.get("Blue").roster();
    return Object.entries(ids).every(([name, source]) => roster[name]?.includes(source)) || roster;
  });
});

for (const speaker of ["Red", "Blue", "Green", "Yellow", "Magenta"]) {
  test(`everyone hears and sees ${speaker}`, async (t) => {
    t.diagnostic(JSON.stringify(await turn(speaker)));
  });
}

test("one leaves and comes back while the others go on", async () => {
  const end = stage.ends.get("Yellow");
  await end.leave();
  await until("Yellow is out of the roster", 5000, async () => {
    const names = Object.keys(await stage.ends.get("Blue").roster());
    return !names.includes("Yellow") || names;
  });
  stage.ends.delete("Yellow");
  await turn("Red");
  await end.join();
  stage.ends.set("Yellow", end);
  await turn("Yellow");
  await turn("Green");
});

test("nine in ten see and hear a new speaker within a second", (t) => {
  const sorted = taken.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  t.diagnostic(`${sorted.length} times: p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, most ${sorted.at(-1)} ms`);
  assert.ok(sorted.length >= 20 && at(0.9) <= WITHIN_MS, sorted.join(" "));
});

test("nothing is left when all have gone", async () => {
  await stage.leave();
  assert.equal(await lab.stop(), 0);
});
