// A meeting of two phones (one plain and PCMU, one SDES and Opus) and three browsers: everyone hears and sees
// whoever speaks, whatever they came with; people leave and join; nothing is left at the end.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { Lab } from "./lab.mjs";
import { Stage, until } from "./stage.mjs";
import { Wire } from "./wire.mjs";

/** How long after the switch hears a new speaker everyone else must hear and see that one. */
const WITHIN_MS = 1000;
/** Five clients encode and decode on the machine that measures: an end that is late may show in so many turns that it need not be. */
const TURNS = 3;
/** What takes longer never comes. */
const AT_MOST_MS = 5000;

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

/** `speaker` speaks, again after the one before where somebody was late, until each end was in time once. */
async function turn(t, speaker) {
  const before = [stage.previous, ...stage.ends.keys()].find((name) => name !== speaker && stage.ends.has(name));
  let late = [...stage.ends.keys()];
  for (let i = 0; i < TURNS && late.length > 0; i++) {
    if (i > 0) await stage.turn(before);
    const times = await stage.turn(speaker);
    t.diagnostic(`${speaker}: ${JSON.stringify(times)}`);
    late = late.filter((name) => name !== speaker && Math.max(times[name].hears, times[name].sees) > WITHIN_MS);
  }
  assert.deepEqual(late, [], `in none of ${TURNS} turns of ${speaker} these were in time`);
}

test("phones and browsers join one meeting", async () => {
  await stage.phone("Red", { codec: "PCMU/8000/1" });
  await stage.phone("Green", { codec: "opus/48000/2", encryption: "srtp-mand" });
  await stage.browsers(["Blue", "Yellow", "Magenta"]);
  const ids = await stage.sources();
  assert.deepEqual(Object.keys(ids).sort(), ["Blue", "Green", "Magenta", "Red", "Yellow"]);
  await until("Blue's page knows everyone", 5000, async () => {
    const roster = await stage.ends.get("Blue").roster();
    return Object.entries(ids).every(([name, source]) => roster[name]?.includes(source)) || roster;
  });
});

for (const speaker of ["Red", "Blue", "Green", "Yellow", "Magenta"]) {
  test(`everyone hears and sees ${speaker} within a second`, (t) => turn(t, speaker));
}

test("one leaves and comes back while the others go on", async (t) => {
  const end = stage.ends.get("Yellow");
  await end.leave();
  await until("Yellow is out of the roster", 5000, async () => {
    const names = Object.keys(await stage.ends.get("Blue").roster());
    return !names.includes("Yellow") || names;
  });
  stage.ends.delete("Yellow");
  await turn(t, "Red");
  await end.join();
  stage.ends.set("Yellow", end);
  await turn(t, "Yellow");
  await turn(t, "Green");
});

test("nothing is left when all have gone", async () => {
  await stage.leave();
  assert.equal(await lab.stop(), 0);
});
