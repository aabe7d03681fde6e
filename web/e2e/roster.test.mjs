// What the page makes of the focus's documents. Needs no browser: elements are stood in for.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import ts from "typescript";

const source = readFileSync(new URL("../src/sip/roster.ts", import.meta.url), "utf8");
const { outputText } = ts.transpileModule(source, { compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } });
const { Roster } = await import(`data:text/javascript,${encodeURIComponent(outputText)}`);

const el = (localName, attributes = {}, ...content) => ({
  localName,
  children: content.filter((c) => typeof c !== "string"),
  textContent: content.filter((c) => typeof c === "string").join(""),
  getAttribute: (name) => attributes[name] ?? null,
});

let version = 0;
const document = (state, ...users) =>
  el("conference-info", { state, version: String(++version) }, el("users", { state }, ...users));
const user = (state, ...content) => el("user", { entity: "sip:alice@example.org", state }, ...content);
const endpoint = (entity, state, ...content) => el("endpoint", { entity, state }, ...content);
const audio = (id, src, status) =>
  el("media", { id, state: "full" }, el("type", {}, "audio"), el("src-id", {}, String(src)), el("status", {}, status));
const head = [el("display-text", {}, "Alice"), el("roles", {}, el("entry", {}, "host"))];

function begun() {
  const roster = new Roster();
  const phone = endpoint("sip:phone", "full", el("status", {}, "connected"), audio("0", 7, "recvonly"));
  assert.ok(roster.apply(document("full", user("full", ...head, phone))));
  return roster;
}

const alice = (roster) => roster.participants.get("sip:alice@example.org");

test("a partial user adds a device to those known", () => {
  const roster = begun();
  assert.ok(alice(roster).audioMuted);
  const web = endpoint("sip:web", "full", el("status", {}, "connected"), audio("0", 9, "sendrecv"));
  assert.ok(roster.apply(document("partial", user("partial", web))));
  assert.deepEqual(alice(roster).sources, [7, 9]);
  assert.equal(alice(roster).name, "Alice");
  assert.deepEqual(alice(roster).roles, ["host"]);
  assert.equal(alice(roster).audioMuted, false, "one of them sends");
  assert.equal(roster.bySource(7), roster.bySource(9));
});

test("a device that is deleted takes its sources with it, and the others keep theirs", () => {
  const roster = begun();
  roster.apply(document("partial", user("partial", endpoint("sip:web", "full", audio("0", 9, "sendrecv")))));
  roster.apply(document("partial", user("partial", endpoint("sip:phone", "deleted"))));
  assert.deepEqual(alice(roster).sources, [9]);
});

test("a full user replaces all devices, and a deleted one is gone with them", () => {
  const roster = begun();
  roster.apply(document("partial", user("full", ...head, endpoint("sip:web", "full", audio("0", 9, "sendrecv")))));
  assert.deepEqual(alice(roster).sources, [9]);
  roster.apply(document("partial", user("deleted")));
  assert.equal(alice(roster), undefined);
  roster.apply(document("partial", user("partial", endpoint("sip:tab", "full", audio("0", 11, "sendrecv")))));
  assert.deepEqual(alice(roster).sources, [11]);
});

test("a partial device keeps the streams it does not name", () => {
  const roster = begun();
  roster.apply(document("partial", user("partial", endpoint("sip:phone", "partial", audio("1", 8, "sendrecv")))));
  assert.deepEqual(alice(roster).sources, [7, 8]);
  assert.equal(alice(roster).status, "connected");
  roster.apply(document("partial", user("partial", endpoint("sip:phone", "partial", el("media", { id: "0", state: "deleted" })))));
  assert.deepEqual(alice(roster).sources, [8]);
});
