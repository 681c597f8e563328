// DITTO_CORE: core.wasm. DITTO_CORE_CASE: a folder with a portrait as portrait.blob, and packed, with model.pack and its pictures
// decoded as NAME.rgba; motions.f32 (frames of 70), and what the native core drew of them: blob.rgb and packed.rgb.
// tests/test_client_core.py makes it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inflateSync } from "node:zlib";

import { Core, hasSimd } from "../core.js";
import { sectionsOf } from "../portrait.js";

const { DITTO_CORE: wasm, DITTO_CORE_CASE: folder } = process.env;
const skip = wasm && folder ? false : "DITTO_CORE and DITTO_CORE_CASE are not set";
const bytes = (name) => new Uint8Array(readFileSync(`${folder}/${name}`));

test("this engine has SIMD", () => assert.equal(hasSimd(), true));

/** Draws all motions; bytes that differ by one level from those of the native core, a frame. More than one level fails. */
function compare(core, expected) {
  const motions = new Float32Array(bytes("motions.f32").buffer);
  const pixels = core.width * core.height, frames = motions.length / 70;
  assert.equal(expected.length, 3 * pixels * frames);
  let differ = 0;
  for (let n = 0; n < frames; ++n) {
    const drawn = core.draw(motions.subarray(70 * n, 70 * n + 70));
    for (let i = 0; i < pixels; ++i) {
      assert.equal(drawn[4 * i + 3], 255);
      for (let c = 0; c < 3; ++c) {
        const off = Math.abs(drawn[4 * i + c] - expected[3 * (n * pixels + i) + c]);
        assert.ok(off <= 1, `frame ${n}, pixel ${i}: ${off} levels`);
        differ += off;
      }
    }
  }
  assert.ok(differ / frames <= 100, `${differ / frames} bytes a frame differ`);
  return `${differ / frames} a frame of ${3 * pixels}`;
}

test("the core draws a blob as the native one does, within one level", { skip }, async () => {
  const core = await Core.load(readFileSync(wasm));
  core.open(bytes("portrait.blob"));
  console.log(`bytes that differ by 1: ${compare(core, bytes("blob.rgb"))}`);
});

test("the core draws a packed portrait as the native one does, within one level", { skip }, async () => {
  const core = await Core.load(readFileSync(wasm)), sections = sectionsOf(bytes("packed")), size = JSON.parse(readFileSync(`${folder}/sizes`));
  const numbers = inflateSync(sections.numbers), pictures = ["picture", "crop", "plate"].map(
    (name) => ({ data: bytes(`${name}.rgba`), height: size[name][0], width: size[name][1] }));
  core.unpack(bytes("model.pack"), numbers, ...pictures);
  console.log(`of a packed portrait: ${compare(core, bytes("packed.rgb"))}`);
  assert.throws(() => core.unpack(bytes("model.pack"), numbers.subarray(0, 500), ...pictures), /expected/);
  assert.throws(() => core.unpack(numbers, numbers, ...pictures), /expected/);
});

test("damaged blobs and motions are refused with a reason, and the core goes on", { skip }, async () => {
  const core = await Core.load(readFileSync(wasm)), blob = bytes("portrait.blob");
  assert.throws(() => core.draw(new Float32Array(70)), /got none; open one first/);
  assert.throws(() => core.open(blob.subarray(0, 1000)), /expected/);
  const other = blob.slice();
  other[8] = 99;
  assert.throws(() => core.open(other), /version/);
  core.open(blob);
  assert.throws(() => core.draw(new Float32Array(70).fill(NaN)), /expected finite numbers/);
  assert.equal(core.draw(new Float32Array(70)).length, 4 * core.width * core.height);
});
