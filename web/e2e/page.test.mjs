// What a user meets on the page: a connection that drops, errors, accounts, devices, keys, a phone's narrow screen.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { Browser } from "./browser.mjs";
import { Lab } from "./lab.mjs";
import { sameColour, speech, y4m } from "./media.mjs";
import { Proxy } from "./proxy.mjs";

const directory = mkdtempSync(`${tmpdir()}/rostrum-page-`);
let lab, proxy, files;
const ends = new Map();

before(async () => {
  lab = await Lab.start(directory);
  proxy = await Proxy.start(Number(new URL(lab.info.web_local).port));
  files = { speech: speech(`${directory}/voice.wav`, 48000, 1, "demo-congrats"), picture: y4m(`${directory}/picture.y4m`, [30, 30, 230]) };
});

after(async () => {
  for (const end of [...ends.values()].reverse()) await end.stop();
  await proxy?.cut();
  await lab?.stop();
  if (!process.env.ROSTRUM_KEEP) rmSync(directory, { recursive: true, force: true });
  else console.log(`kept ${directory}`);
});

async function open(name, options) {
  const end = await Browser.start({ name, directory, url: lab.info.web_local, meeting: "standup", ...files, ...options });
  ends.set(name, end);
  return end;
}

async function stop(name) {
  await ends.get(name).stop();
  ends.delete(name);
}

const people = async () => (await lab.api("/meetings/standup")).participants;
const text = (end, selector) => end.page.textContent(selector);

/** Calls `check` until it gives true; fails with what it last gave after `ms`. */
async function until(what, ms, check) {
  const begin = Date.now();
  for (;;) {
    const last = await check();
    if (last === true) return;
    if (Date.now() - begin > ms) throw new Error(`${what}: not within ${ms} ms: ${JSON.stringify(last)}`);
    await new Promise((r) => setTimeout(r, 50));
  }
}

async function nothingLeft(ms = 5000) {
  await until("no leg, port or dialog is left", ms, async () => {
    const counts = await lab.api("/counts");
    return (counts.dialogs === 0 && counts.switch_legs === 0 && counts.ports === 0) || counts;
  });
}

async function screenshot(end, name) {
  if (process.env.ROSTRUM_SCREENSHOTS) await end.screenshot(`${process.env.ROSTRUM_SCREENSHOTS}/${name}.png`);
}

async function listed(end, names, ms = 5000) {
  await until(`${end.name}'s page lists ${names}`, ms, async () => {
    const rows = await end.page.$$eval(".people li", (all) => all.map((e) => e.querySelector("b").textContent));
    return JSON.stringify(rows.sort()) === JSON.stringify(names) || [rows, await end.problem()];
  });
  await until("nobody who has a microphone is shown as a listener", 2000, async () => {
    const rows = await end.page.$$eval(".people li", (all) => all.map((e) => e.textContent));
    return !rows.some((r) => /listening/.test(r)) || rows;
  });
}

/**
 * Breaks the line between page and server with `lose`, which the page must notice within `ms`, until `mend`; resolves
 * when the page has registered over a new one.
 */
async function drop(end, { lose = () => proxy.cut(), mend = () => proxy.mend(), ms = 3000 } = {}) {
  const sent = end.sent.length;
  const received = end.received.length;
  await lose();
  await until("the page says that it reconnects", ms, async () => /Reconnecting/.test(await text(end, "[role=status]")) || text(end, "[role=status]"));
  const packets = await end.packets();
  await until("media flow without the connection", 2000, async () => (await end.packets()) > packets + 50);
  assert.match(await text(end, "[role=status]"), /Reconnecting/);
  await mend();
  await until("the page has registered again", 15_000, () => end.sent.slice(sent).some((m) => /^REGISTER /.test(m)) && end.received.slice(received).some((m) => /^SIP\/2\.0 200[^]*\r\nCSeq: \d+ REGISTER/i.test(m)));
  await until("the dialog goes on", 5000, () => {
    const update = end.sent.slice(sent).find((m) => /^(UPDATE|INVITE) /.test(m));
    const cseq = update && new RegExp(`^SIP/2\\.0 200[^]*\\r\\nCSeq: ${update.match(/\r\nCSeq: (.*)\r\n/)[1]}\r\n`, "i");
    return (update !== undefined && end.received.slice(received).some((m) => cseq.test(m))) || end.sent.slice(sent).map((m) => m.split("\r\n")[0]);
  });
  await until("the page says that it is connected", 3000, async () => (await text(end, "[role=status]")) === "Connected" || text(end, "[role=status]"));
}

test("an account and a guest see each other's names", async () => {
  const alice = await open("Alice", { account: lab.account("alice"), url: proxy.url });
  await alice.fillIn();
  await screenshot(alice, "join");
  await alice.join();
  const bob = await open("Bob", { browser: alice.browser, url: proxy.url });
  await bob.join();
  for (const end of [alice, bob]) await listed(end, ["Alice", "Bob"]);
  assert.deepEqual((await people()).map((p) => p.uri.split("@")[0]).includes("sip:alice"), true);
});

test("keys mute, stop the camera and open the statistics", async () => {
  const { page } = ends.get("Alice");
  const says = (id) => text(ends.get("Alice"), `#${id}`);
  await page.keyboard.press("m");
  assert.equal(await says("mute"), "Mute");
  await page.keyboard.press("M");
  assert.equal(await says("mute"), "Unmute");
  assert.equal(await text(ends.get("Alice"), ".self figcaption"), "You, muted");
  await page.keyboard.press("v");
  await until("the camera is off", 2000, async () => (await says("camera-off")) === "Camera on");
  const sending = () => page.evaluate(() => window.rostrum.pc.getTransceivers().find((t) => t.receiver.track.kind === "video").sender.track?.readyState ?? "none");
  assert.equal(await sending(), "none");
  await page.keyboard.press("v");
  await until("the camera is on again", 3000, async () => (await says("camera-off")) === "Camera off" && (await sending()) === "live");
  await page.keyboard.press("s");
  assert.equal(await page.isVisible(".panel"), true);
});

test("who speaks is marked, and who stops the camera is shown by name", async () => {
  const { page } = ends.get("Alice");
  const bob = ends.get("Bob");
  const marked = (selector) => page.$$eval(selector, (all) => all.map((e) => e.textContent));
  await bob.speak(true);
  await until("Bob alone is marked, in the list and on his picture", 5000, async () => {
    const found = [...(await marked(".people li.speaking b")), ...(await marked(".tile.speaking figcaption"))];
    return JSON.stringify(found) === '["Bob","Bob"]' || found;
  });
  await bob.speak(false);
  await until("nobody is marked", 5000, async () => (await marked(".people li.speaking, .tile.speaking")).length === 0);
  const large = () => page.$eval(".tile.large", (e) => `${e.className} ${e.querySelector("figcaption").textContent}`);
  assert.equal(await large(), "tile large Bob");
  await bob.page.click("#camera-off");
  await until("Bob's name stands for his picture", 5000, async () => (await large()) === "tile large still Bob" || large());
  assert.equal(await page.isVisible(".tile.large .avatar"), true);
  await bob.page.click("#camera-off");
  await until("Bob's picture is back", 5000, async () => (await large()) === "tile large Bob" || large());
});

test("who leaves is shown no longer", async () => {
  const { page } = ends.get("Alice");
  const bob = ends.get("Bob");
  await bob.leave();
  await listed(ends.get("Alice"), ["Alice"]);
  const large = page.locator(".tile.large");
  await until("the large picture is nobody's", 3000, async () => (await large.getAttribute("class")).includes("empty") && /Nobody else is here/.test(await large.textContent()));
  assert.equal(await page.locator(".strip .tile:not(.self, .empty)").count(), 0);
  await bob.join();
  await listed(ends.get("Alice"), ["Alice", "Bob"]);
});

test("a camera is switched on after joining without one", async () => {
  const alice = ends.get("Alice");
  const carol = await open("Carol", { browser: alice.browser, query: "&video=off" });
  await carol.join();
  assert.equal(await text(carol, "#camera-off"), "Camera on");
  await carol.page.click("#camera-off");
  await carol.speak(true);
  const source = (await people()).find((p) => p.display === "Carol").source;
  await until("Alice sees Carol", 8000, async () => {
    const [shown] = (await alice.look()).video;
    return (shown.csrc === source && sameColour(shown.colour, [30, 30, 230])) || shown;
  });
  await until("Carol's page says that she is seen", 3000, async () => (await text(carol, "#camera-off")) === "Camera off");
  await carol.leave();
  await stop("Carol");
});

test("a microphone is changed in the middle of the meeting", async () => {
  const { page } = ends.get("Alice");
  await page.keyboard.press("m");
  await page.click("#devices");
  const options = await page.$$eval("#use-microphone option", (all) => all.map((o) => o.value));
  assert.ok(options.length > 1, `several microphones: ${options}`);
  const now = await page.inputValue("#use-microphone");
  const other = options.find((o) => o !== now);
  await page.selectOption("#use-microphone", other);
  const used = () => page.evaluate(() => window.rostrum.pc.getTransceivers()[0].sender.track.getSettings().deviceId);
  await until("the other microphone is sent", 3000, async () => (await used()) === other || used());
  assert.equal(await text(ends.get("Alice"), "p[role=alert]"), "");
  await page.selectOption("#use-microphone", now);
  await until("the first microphone is sent again", 3000, async () => (await used()) === now || used());
  await page.focus("#mute");
  await page.keyboard.press("Escape");
  assert.equal(await page.isVisible("#device-menu"), false);
  await ends.get("Alice").speak(false);
});

test("the statistics show streams, slots and who held them", async () => {
  const { page } = ends.get("Alice");
  await ends.get("Bob").speak(true);
  await until("the statistics name Bob", 8000, async () => {
    const panel = await page.innerText(".panel");
    const rows = await page.$$eval(".panel tbody tr", (all) => all.map((r) => [...r.cells].map((c) => c.textContent)));
    const audio = rows.find((r) => r[0] === "in audio");
    const video = rows.find((r) => r[0] === "in video");
    // on one machine loss, jitter and round trips may well round to nothing
    const measured = [audio, video].every((r) => r?.slice(6, 9).every((c) => /^\d+\.\d$/.test(c)));
    const held = rows.some((r) => r[0] === "audio 0" && r[1] === "Bob" && Number(r[3]) > 0);
    const switched = rows.some((r) => r[3] === "Bob" && /^audio/.test(r[1]));
    const heads = ["codec", "loss %", "jitter ms", "RTT ms"].every((c) => panel.includes(c));
    return (heads && audio?.[2] === "opus" && video?.[2] === "VP8" && measured && held && switched) || rows;
  });
  await screenshot(ends.get("Alice"), "desktop");
  await page.keyboard.press("s");
  await screenshot(ends.get("Alice"), "desktop-plain");
});

test("a phone's screen shows the speaker and every control without scrolling sideways", async () => {
  const { page } = ends.get("Alice");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.evaluate(() => new Promise(requestAnimationFrame));
  await screenshot(ends.get("Alice"), "phone");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  for (const id of ["mute", "camera-off", "stats", "leave", "video-0"]) {
    const box = await page.locator(`#${id}`).boundingBox();
    assert.ok(box && box.x >= 0 && box.x + box.width <= 390 && box.y >= 0 && box.y + box.height <= 844, `${id} is on the screen: ${JSON.stringify(box)}`);
    if (id !== "video-0") assert.ok(box.height >= 40, `${id} is large enough for a finger`);
  }
  await page.setViewportSize({ width: 1100, height: 700 });
});

test("a dropped connection comes back by itself while the media go on", async () => {
  const alice = ends.get("Alice");
  const bob = ends.get("Bob");
  await bob.speak(true);
  const before = Object.fromEntries((await people()).map((p) => [p.display, p.source]));
  const silent = () => alice.page.evaluate(() => window.rostrum.pc.getTransceivers()[0].sender.track.enabled === false);
  assert.equal(await silent(), true);
  await drop(alice);
  assert.equal(await silent(), true, "who was muted is still");
  assert.deepEqual(Object.fromEntries((await people()).map((p) => [p.display, p.source])), before);
  await bob.leave();
  await listed(alice, ["Alice"]);
  await bob.join();
  await listed(alice, ["Alice", "Bob"]);
  await alice.leave();
  assert.match(await text(alice, "#problem"), /You left/);
  await bob.leave();
  await nothingLeft();
});

test("a line that died without a word is noticed and replaced while the media go on", async () => {
  const alice = ends.get("Alice");
  const carol = await open("Carol", { browser: alice.browser }); // not over the proxy
  await alice.join();
  await carol.join();
  await carol.speak(true);
  const before = Object.fromEntries((await people()).map((p) => [p.display, p.source]));
  const tried = () => once(proxy.server, "relay");
  for (const [ms, hint] of [
    [20_000, () => {}], // 10 s of silence, 5 s for an answer
    [9_000, () => alice.page.evaluate(() => void window.dispatchEvent(new Event("offline")))], // 5 s
  ]) {
    await drop(alice, {
      ms,
      lose: () => (proxy.swallow(), hint()),
      mend: async () => (await tried(), proxy.forward()), // that try gets nowhere: the page must give it up
    });
    assert.deepEqual(Object.fromEntries((await people()).map((p) => [p.display, p.source])), before);
  }
  await carol.leave();
  await stop("Carol");
  await listed(alice, ["Alice"]);
  await alice.leave();
  await nothingLeft();
});

test("a subscription that the server gave up is asked for again until it is granted", async () => {
  const alice = ends.get("Alice");
  const carol = await open("Carol", { browser: alice.browser });
  const line = { refused: 0 };
  await carol.page.routeWebSocket(/\/sip$/, (page) => {
    const server = page.connectToServer();
    line.page = page;
    server.onMessage((m) => page.send(m));
    page.onMessage((m) => {
      if (!line.refusing || !/^SUBSCRIBE /.test(m)) return server.send(m);
      const copied = m.split("\r\n").filter((l) => /^(Via|From|To|Call-ID|CSeq):/i.test(l));
      page.send(["SIP/2.0 503 Service Unavailable", ...copied, "Content-Length: 0", "", ""].join("\r\n"));
      line.refusing = ++line.refused < 2;
    });
  });
  await carol.open();
  await carol.join();
  await listed(carol, ["Carol"]);
  const [head] = carol.received.findLast((m) => /^NOTIFY /.test(m)).split("\r\n\r\n");
  line.refusing = true;
  const last = head
    .replace(/branch=/i, "branch=z9hG4bKlast")
    .replace(/^CSeq: \d+/im, (l) => `CSeq: ${Number(l.slice(6)) + 1000}`)
    .replace(/^Subscription-State: .*$/im, "Subscription-State: terminated;reason=deactivated")
    .replace(/^Content-Type: .*\r\n/im, "")
    .replace(/^Content-Length: .*$/im, "Content-Length: 0");
  line.page.send(`${last}\r\n\r\n`);
  await until("the page asked twice in vain", 5000, () => line.refused === 2 || line);
  await ends.get("Bob").join();
  await listed(carol, ["Bob", "Carol"], 8000);
  await ends.get("Bob").leave();
  await listed(carol, ["Carol"]);
  await carol.leave();
  await stop("Carol");
  await nothingLeft();
});

test("errors say what to do", async () => {
  const alice = ends.get("Alice");
  const fails = async (change, pattern) => {
    await alice.fillIn();
    await change(alice.page);
    await alice.page.click("#join");
    await until(`the page says ${pattern}`, 10_000, async () => {
      const said = await text(alice, "#problem").catch(() => "");
      return pattern.test(said) || said;
    });
    assert.equal(await alice.page.isEnabled("#join"), true);
  };
  await alice.fillIn();
  await alice.page.fill("#user", "");
  await alice.page.click("#join");
  assert.equal(await alice.page.evaluate(() => document.activeElement.id), "user", "an empty account is asked for");
  await fails((page) => page.fill("#password", "wrong"), /password is wrong.*try again/i);
  await fails((page) => page.fill("#meeting", "nowhere!"), /no such meeting.*check its name/i);
  await fails(async (page) => {
    await page.uncheck("#account");
    await page.fill("#meeting", "members-only");
  }, /does not exist or lets no guests in.*sign in/i);
  await proxy.cut();
  await fails(async () => {}, /no sip connection.*try again/i);
  await proxy.mend();
  await nothingLeft();
});

test("a meeting whose media are lost is joined again", async () => {
  const alice = ends.get("Alice");
  await alice.join();
  await ends.get("Bob").join();
  await alice.speak(true);
  const port = await alice.page.evaluate(() => window.rostrum.pc.remoteDescription.sdp.match(/a=candidate:\S+ 1 udp \d+ \S+ (\d+)/)[1]);
  const rule = (family, ...what) => execFileSync("ip", [family, "rule", ...what]);
  const carol = await open("Carol", { browser: alice.browser, url: proxy.url });
  await carol.fillIn();
  for (const family of ["-4", "-6"]) {
    rule(family, "add", "pref", "100", "lookup", "local"); // or local addresses would be looked up before all else
    rule(family, "del", "pref", "0");
    for (const side of ["sport", "dport"]) rule(family, "add", "pref", "50", "ipproto", "udp", side, port, "blackhole");
  }
  try {
    await carol.page.click("#join");
    await until("the page says that media are interrupted", 15_000, async () => /interrupted/.test(await text(alice, "p[role=alert]")));
    assert.match(await text(alice, ".quality"), /poor/);
    const lost = await alice.page.evaluateHandle(() => window.rostrum.pc);
    await until("another connection is tried", 40_000, () => alice.page.evaluate((old) => window.rostrum.pc !== old, lost));
    await until("who never was in the meeting is told why", 30_000, async () => /Check that UDP/.test(await text(carol, "#problem").catch(() => "")));
  } finally {
    for (const family of ["-4", "-6"]) for (const side of ["sport", "dport"]) rule(family, "del", "pref", "50", "ipproto", "udp", side, port);
  }
  await listed(alice, ["Alice", "Bob"], 20_000);
  for (const end of [alice, ends.get("Bob")]) {
    await until(`${end.name} is connected again`, 40_000, async () => (await text(end, "[role=status]").catch(() => "")) === "Connected" && end.page.evaluate(() => window.rostrum.pc?.connectionState === "connected"));
  }
  const before = await alice.packets();
  await ends.get("Bob").speak(true);
  await until("media flow again", 5000, async () => (await alice.packets()) > before);
});

test("a server that dies and comes back has everyone again", async () => {
  const alice = ends.get("Alice");
  const carol = ends.get("Carol");
  await carol.join();
  await alice.speak(false);
  lab.child.kill("SIGKILL");
  await once(lab.child, "exit");
  await carol.page.waitForFunction(() => /Joining again|Reconnecting/.test(document.querySelector("[role=status]")?.textContent), null, { timeout: 30_000 });
  await until("Carol's page has given the connection up", 40_000, async () => {
    if (/Joining again/.test(await text(carol, "[role=status]").catch(() => ""))) await carol.page.click("#leave").catch(() => {});
    return carol.page.isVisible("#join");
  });
  lab = await Lab.start(directory);
  proxy.target = Number(new URL(lab.info.web_local).port);
  await until("both are in the meeting", 40_000, async () => {
    const names = (await people().catch(() => [])).map((p) => p.display).sort();
    return JSON.stringify(names) === '["Alice","Bob"]' || names;
  });
  for (const end of [alice, ends.get("Bob")]) {
    await listed(end, ["Alice", "Bob"], 30_000);
    await until(`${end.name}'s page is connected`, 30_000, async () => (await text(end, "[role=status]")) === "Connected" || text(end, "[role=status]"));
  }
  assert.equal(await text(alice, "#mute"), "Unmute", "who was muted is still");
  assert.equal(await alice.page.evaluate(() => window.rostrum.pc.getTransceivers()[0].sender.track.enabled), false);
  await ends.get("Bob").speak(true);
  const source = (await people()).find((p) => p.display === "Bob").source;
  assert.match(await text(carol, "#problem"), /You left/, "who left meanwhile is not brought back");
  await stop("Carol");
  await until("Alice hears Bob", 15_000, async () => {
    const look = await alice.look().catch(() => undefined);
    return look?.audio.some((a) => a.csrc === source) || look;
  });
  await alice.leave();
  await ends.get("Bob").leave();
  await nothingLeft(70_000); // what is sent to those who were cut off waits for them for a while
});

test("the page is used with the keyboard alone", async () => {
  const { page } = ends.get("Bob");
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#preview")?.srcObject?.getTracks().length === 2);
  await page.focus("#name");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("Bob");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "meeting");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => window.rostrum.client?.established, null, { timeout: 15_000 });
  for (let i = 0; i < 20 && (await page.evaluate(() => document.activeElement.id)) !== "leave"; i++) await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "leave");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#join");
  await nothingLeft();
});

test("devices that are refused or missing are named, and the others are used", async () => {
  await stop("Bob");
  const alice = ends.get("Alice");
  for (const [name, options, pattern, media] of [
    ["Refused", { permissions: [] }, /not allowed to use the microphone or camera.*Allow them.*listen only/, ""],
    ["Bare", { devices: false }, /No microphone or camera was found.*listen only/, ""],
    ["Mute", { permissions: ["camera"] }, /Joining without microphone.*not allowed to use the microphone.*Allow it/, "video"],
    ["Silent", { browser: alice.browser, lacks: "audio" }, /Joining without microphone.*No microphone was found/, "video"],
    ["Hidden", { browser: alice.browser, lacks: "video" }, /Joining without camera.*No camera was found/, "audio"],
  ]) {
    const end = await open(name, options);
    await until("the page says what to do", 5000, async () => pattern.test(await text(end, "#problem")) || text(end, "#problem"));
    assert.equal(await end.page.isVisible("#retry"), true);
    await end.join();
    assert.equal((await people()).length, 1);
    const sent = await end.page.evaluate(() => window.rostrum.pc.getSenders().filter((s) => s.track).map((s) => s.track.kind));
    assert.equal(sent.join(), media);
    await until("what there is goes out", 5000, () =>
      end.page.evaluate(async (kind) => {
        const reports = [...(await window.rostrum.pc.getStats()).values()].filter((s) => s.type === "outbound-rtp" && s.packetsSent > 0);
        return kind === reports.map((s) => s.kind).join() || reports.map((s) => [s.kind, s.packetsSent]);
      }, media),
    );
    await end.leave();
    await stop(name);
  }
  await nothingLeft();
});

test("devices chosen before joining and in the meeting are those in use", async () => {
  const end = await open("Dora", { cameras: 2 });
  const { page } = end;
  await end.fillIn();
  const level = () => page.getAttribute("[role=meter]", "aria-valuenow");
  await until("the level meter shows the voice", 5000, async () => Number(await level()) > 20 || level());
  await page.selectOption("#microphone", "off");
  await page.waitForFunction(() => document.querySelector("#preview").srcObject.getAudioTracks().length === 0);
  assert.equal(await level(), "0", "who has no microphone has no level");
  const other = {};
  for (const [id, kind] of [["microphone", "audio"], ["camera", "video"]]) {
    const devices = await page.$$eval(`#${id} option`, (all) => all.map((o) => o.value).filter((v) => v !== "off"));
    assert.ok(devices.length > 1, `several devices for ${id}: ${devices}`);
    other[kind] = devices;
    await page.selectOption(`#${id}`, devices[1]);
    await page.waitForFunction(
      ([kind, device]) => document.querySelector("#preview").srcObject.getTracks().find((t) => t.kind === kind)?.getSettings().deviceId === device,
      [kind, devices[1]],
    );
  }
  await end.join();
  const used = (kind) => page.evaluate((k) => window.rostrum.pc.getSenders().find((s) => s.track?.kind === k)?.track.getSettings().deviceId, kind);
  for (const kind of ["audio", "video"]) assert.equal(await used(kind), other[kind][1], `${kind} chosen before joining`);

  await page.click("#devices");
  assert.equal(await page.inputValue("#use-camera"), other.video[1]);
  const frames = () =>
    page.evaluate(async () => [...(await window.rostrum.pc.getStats()).values()].find((s) => s.type === "outbound-rtp" && s.kind === "video").framesEncoded);
  const offers = () => end.sent.filter((m) => /^(INVITE|UPDATE) /.test(m)).length;
  const before = offers();
  await page.selectOption("#use-camera", other.video[0]);
  await until("the other camera is sent", 3000, async () => (await used("video")) === other.video[0] || used("video"));
  assert.equal(await page.$eval(".self video", (v) => v.srcObject.getVideoTracks()[0].getSettings().deviceId), other.video[0]);
  const encoded = await frames();
  await until("its picture goes out", 5000, async () => (await frames()) > encoded || frames());
  assert.equal(offers(), before, "nothing is negotiated for it");
  assert.equal(await text(end, "p[role=alert]"), "");
  await end.leave();
  await stop("Dora");
});

test("the link that is copied opens the meeting's page, on a phone's screen too", async () => {
  const { page, context } = ends.get("Alice");
  await context.grantPermissions(["microphone", "camera", "clipboard-read", "clipboard-write"]);
  await page.setViewportSize({ width: 390, height: 844 });
  await ends.get("Alice").open();
  await page.waitForFunction(() => document.querySelector("#preview")?.srcObject?.getTracks().length === 2);
  await screenshot(ends.get("Alice"), "join-phone");
  for (const account of [false, true]) {
    await page.setChecked("#account", account);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  }
  for (const id of ["preview", "name", "meeting", "microphone", "camera", "user", "password", "join"]) {
    const box = await page.locator(`#${id}`).boundingBox();
    assert.ok(box && box.x >= 0 && box.x + box.width <= 390, `${id} is as wide as the screen at most: ${JSON.stringify(box)}`);
  }
  await ends.get("Alice").join();
  await page.click("#people");
  await page.click("#invite");
  await until("the page says that the link is copied", 3000, async () => /copied/.test(await text(ends.get("Alice"), "[role=status]")));
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(link, `${proxy.url}?meeting=standup`);
  await ends.get("Alice").leave();
  await page.evaluate(() => localStorage.clear());
  await page.goto(link);
  assert.equal(await page.inputValue("#meeting"), "standup");
  await nothingLeft();
});

test("https needs one exception for the self-signed certificate", async () => {
  const end = await open("Careful", { certificates: "check", url: lab.info.web });
  await assert.rejects(end.open(), /ERR_CERT/);
  await end.page.click("#details-button");
  await end.page.click("#proceed-link");
  await end.page.waitForSelector("#join");
  await end.join();
  assert.equal(await end.page.evaluate(() => location.protocol), "https:");
  await end.leave();
  await stop("Careful");
});

test("localhost needs no exception, and the server's end ends the page's meeting", async (t) => {
  await stop("Alice");
  const end = await open("Alice", { certificates: "check", url: proxy.url });
  await end.open();
  await end.join();
  const other = await open("Bob", { browser: end.browser });
  await other.join();
  await other.speak(true);
  await drop(end);
  const received = end.received.length;
  assert.equal(await lab.stop(), 0);
  await end.page.waitForSelector("#join", { timeout: 10_000 });
  assert.ok(end.received.slice(received).some((m) => /^BYE /.test(m)), "the BYE came over the new connection");
  const said = await text(end, "#problem");
  t.diagnostic(said);
  assert.match(said, /The meeting .*ended/);
});
