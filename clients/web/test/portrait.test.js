import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { afterEach, test } from "node:test";

import { fetchFile, sectionsOf } from "../portrait.js";

function packed(sections, version = 1) {
  const names = Object.keys(sections), head = 32 + 48 * names.length;
  const size = names.reduce((sum, name) => sum + sections[name].length, head);
  const bytes = new Uint8Array(size), view = new DataView(bytes.buffer), text = new TextEncoder();
  bytes.set(text.encode("DITTOPAK"));
  view.setUint32(8, version, true);
  view.setUint32(12, names.length, true);
  view.setBigUint64(16, BigInt(size), true);
  let at = head;
  names.forEach((name, i) => {
    bytes.set(text.encode(name), 32 + 48 * i);
    view.setUint32(32 + 48 * i + 28, sections[name].length, true);
    view.setBigUint64(32 + 48 * i + 40, BigInt(at), true);
    bytes.set(sections[name], at);
    at += sections[name].length;
  });
  return bytes;
}

test("the sections of a packed portrait have their names", () => {
  const found = sectionsOf(packed({ numbers: [1, 2, 3], picture: [9] }));
  assert.deepEqual(Object.fromEntries(Object.entries(found).map(([name, bytes]) => [name, [...bytes]])), { numbers: [1, 2, 3], picture: [9] });
});

test("other, old and damaged files are refused", () => {
  const good = packed({ numbers: [1, 2, 3] });
  assert.throws(() => sectionsOf(new Uint8Array(100)), /expected a packed portrait/);
  assert.throws(() => sectionsOf(packed({}, 2)), /of version 1, got 2/);
  assert.throws(() => sectionsOf(good.subarray(0, -1)), /got a part/);
  const outside = good.slice();
  new DataView(outside.buffer).setBigUint64(32 + 40, 2n ** 40n, true);
  assert.throws(() => sectionsOf(outside), /inside of the packed portrait/);
  const many = good.slice();
  new DataView(many.buffer).setUint32(12, 1e6, true);
  assert.throws(() => sectionsOf(many), /got a part/);
});

// A server and a browser's cache.
const kept = new Map(), body = new TextEncoder().encode("a portrait"), sha256 = createHash("sha256").update(body).digest("hex");
const file = { url: "http://server/api/portraits/1/appearance?sha256=1", sha256 };
let asked = 0, sent = body;
globalThis.caches = {
  open: async () => ({
    match: async (url) => kept.get(url)?.clone(),
    put: async (url, response) => void kept.set(url, response),
    delete: async (url) => kept.delete(url),
    keys: async () => [...kept.keys()],
  }),
};
globalThis.fetch = async () => {
  asked += 1;
  return sent ? new Response(sent) : Response.json({ error: { text: "no such portrait" } }, { status: 404 });
};
afterEach(() => {
  kept.clear();
  [asked, sent] = [0, body];
});

test("a portrait is fetched once", async () => {
  for (let i = 0; i < 3; ++i) assert.deepEqual(await fetchFile(file), body);
  assert.equal(asked, 1);
});

test("bytes that are not those announced are neither used nor kept", async () => {
  sent = body.slice(1);
  await assert.rejects(fetchFile(file), /as it was announced, got other bytes/);
  assert.equal(kept.size, 0);
  kept.set(file.url, new Response("damaged in the cache"));
  sent = body;
  assert.deepEqual(await fetchFile(file), body);
});

test("the server's reason for a refusal is told", async () => {
  sent = null;
  await assert.rejects(fetchFile(file), /no such portrait/);
});

test("the oldest files leave the cache", async () => {
  for (let i = 0; i < 40; ++i) await fetchFile({ url: `http://server/${i}`, sha256 });
  assert.ok(kept.size <= 24 && kept.has("http://server/39") && !kept.has("http://server/0"));
});
