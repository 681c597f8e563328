import assert from "node:assert/strict";
import { test } from "node:test";

// What an AudioWorklet gives its modules.
const sent = [];
let Ring;
Object.assign(globalThis, {
  sampleRate: 24000, currentTime: 0,
  AudioWorkletProcessor: class {
    port = { postMessage: (message) => sent.push(message) };
  },
  registerProcessor: (name, made) => (Ring = made),
});
await import("../ring.js");

test("the sample count is the clock: frame n begins 40 n ms after the first, and is told once", () => {
  const ring = new Ring();
  const say = (data) => ring.port.onmessage({ data });
  for (let id = 0; id < 25; ++id) say({ id, kind: "speech", epoch: 0, samples: new Int16Array(960) });
  globalThis.currentTime = 3;
  const out = new Float32Array(128);
  for (let block = 0; block < 188; ++block) {
    assert.equal(ring.process([], [[out]]), true);
    globalThis.currentTime += 128 / 24000;
  }
  assert.deepEqual(sent.map((one) => one.id), Array.from({ length: 25 }, (_, id) => id));
  for (const { id, time } of sent) {
    assert.ok(Math.abs(time - 3 - id / 25) < 1e-9);
    assert.equal(Math.floor(25 * (time + 0.02 - 3)), id); // the frame that is due while it is heard
  }
  sent.length = 0;
  say({ id: 25, kind: "speech", epoch: 0, samples: new Int16Array(960) });
  say({ drop: Infinity });
  ring.process([], [[out]]);
  assert.deepEqual(sent, []);
});
