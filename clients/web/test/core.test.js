// DITTO_CORE: core.wasm. DITTO_CORE_CASE: a folder with portrait.blob, motions.f32 (frames of 70) and pictures.rgb, which the
// native core drew of them. tests/test_client_core.py makes it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Core, hasSimd } from "../core.js";

const { DITTO_CORE: wasm, DITTO_CORE_CASE: folder } = process.env;
const skip = wasm && folder ? false : "DITTO_CORE and DITTO_CORE_CASE are not set";
const bytes = (name) => new Uint8Array(readFileSync(`${folder}/${name}`));

test("this engine has SIMD", () => assert.equal(hasSimd(), true));

test("the core draws what the native one draws, within one level", { skip }, async () => {
  const core = await Core.load(readFileSync(wasm));
  core.open(bytes("portrait.blob"));
  const motions = new Float32Array(bytes("motions.f32").buffer), expected = bytes("pictures.rgb");
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
  console.log(`bytes that differ by 1: ${differ / frames} a frame of ${3 * pixels}`);
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
