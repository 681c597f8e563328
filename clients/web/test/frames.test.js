import assert from "node:assert/strict";
import { test } from "node:test";

import { MOTION_SIZE, Seam, halfToNumber, parseFrame } from "../frames.js";

function message({ kind = 1, picture = 4, sound = [1, -2, 3], payload = new Uint8Array(140) } = {}) {
  const data = new ArrayBuffer(28 + 2 * sound.length + payload.length), view = new DataView(data);
  [1, kind, picture, 0].forEach((byte, i) => view.setUint8(i, byte));
  view.setUint32(4, 70000, true);
  view.setUint32(8, 2, true);
  view.setInt32(12, -1, true);
  view.setUint32(16, 2 * sound.length, true);
  view.setFloat64(20, 2800, true);
  sound.forEach((sample, i) => view.setInt16(28 + 2 * i, sample, true));
  new Uint8Array(data, 28 + 2 * sound.length).set(payload);
  return data;
}

test("a frame of motion is read", () => {
  const payload = new Uint8Array(140);
  new DataView(payload.buffer).setUint16(0, 0x3c00, true); // 1
  new DataView(payload.buffer).setUint16(138, 0xc100, true); // -2.5
  const frame = parseFrame(message({ payload }));
  assert.deepEqual({ ...frame, sound: [...frame.sound], motion: null }, {
    kind: "speech", picture: 4, index: 70000, epoch: 2, speechIndex: -1, sound: [1, -2, 3], motion: null, image: null,
  });
  assert.equal(frame.motion.length, MOTION_SIZE);
  assert.deepEqual([frame.motion[0], frame.motion[1], frame.motion[69]], [1, 0, -2.5]);
});

test("a frame of JPEG is read", () => {
  const frame = parseFrame(message({ kind: 0, picture: 1, payload: new Uint8Array([255, 216, 9]) }));
  assert.equal(frame.kind, "idle");
  assert.deepEqual([...new Uint8Array(frame.image)], [255, 216, 9]);
  assert.equal(frame.motion, null);
});

test("damaged frames are refused", () => {
  const good = message();
  assert.throws(() => parseFrame(good.slice(0, 20)), /expected a frame/);
  assert.throws(() => parseFrame(good.slice(0, 30)), /expected a whole frame/);
  assert.throws(() => parseFrame(good.slice(0, -2)), /expected 140 bytes of motion, got 138/);
  assert.throws(() => parseFrame(message({ kind: 7 })), /damaged/);
  const other = message();
  new DataView(other).setUint8(0, 2);
  assert.throws(() => parseFrame(other), /expected a frame/);
});

test("half floats have the values of IEEE 754", () => {
  const cases = [[0x0000, 0], [0x3c00, 1], [0xbc00, -1], [0x7bff, 65504], [0x0001, 2 ** -24], [0x0400, 2 ** -14], [0x3555, 0.333251953125]];
  for (const [bits, value] of cases) assert.equal(halfToNumber(bits), value);
  assert.equal(halfToNumber(0xfc00), -Infinity);
  assert.ok(Number.isNaN(halfToNumber(0x7e00)));
});

test("after a cut the motion goes over without a jump, and then is what came", () => {
  const seam = new Seam(), zeros = new Float32Array(MOTION_SIZE), ones = new Float32Array(MOTION_SIZE).fill(1);
  seam.cut(); // before anything was shown: nothing to go over from
  assert.deepEqual(seam.next(zeros), zeros);
  seam.cut();
  const steps = Array.from({ length: 7 }, () => seam.next(ones)[0]);
  assert.equal(steps[6], 1);
  [0, ...steps].reduce((before, value) => {
    assert.ok(value >= before && value - before < 0.3, steps.join(" "));
    return value;
  });
});
