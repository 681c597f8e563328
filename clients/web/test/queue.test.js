import assert from "node:assert/strict";
import { test } from "node:test";

import { PlayQueue } from "../queue.js";

const RATE = 24000, FRAME = RATE / 25;

let next = 0;
function frame(kind, epoch = 0, value = 1000) {
  return { id: next++, kind, epoch, samples: new Int16Array(FRAME).fill(kind === "speech" ? value : 0) };
}

function fill(queue, count, kind, epoch) {
  const frames = Array.from({ length: count }, () => frame(kind, epoch));
  for (const one of frames) queue.add(one);
  return frames.map((one) => one.id);
}

function ids(begun) {
  return begun.map((one) => one.id);
}

test("frames begin with their own first sample", () => {
  const queue = new PlayQueue(RATE);
  const [a, b, c, d] = fill(queue, 4, "speech");
  const out = new Float32Array(128);
  const places = [];
  for (let done = 0; done < 4 * FRAME; done += 128) {
    for (const { id, at } of queue.pull(128, out)) places.push([id, done + at]);
    assert.ok(out.every((sample) => sample === Math.fround(1000 / 32768)));
  }
  assert.deepEqual(places, [[a, 0], [b, FRAME], [c, 2 * FRAME], [d, 3 * FRAME]]);
});

test("idle frames wait for nothing, speech waits for 120 ms of it", () => {
  const queue = new PlayQueue(RATE);
  const [idle] = fill(queue, 1, "idle");
  assert.deepEqual(ids(queue.pull(FRAME)), [idle]);
  const first = fill(queue, 2, "speech");
  const out = new Float32Array(FRAME).fill(1);
  assert.deepEqual(queue.pull(FRAME, out), []);
  assert.ok(out.every((sample) => sample === 0));
  fill(queue, 1, "speech");
  assert.deepEqual(ids(queue.pull(FRAME)), [first[0]]);
  assert.deepEqual(ids(queue.pull(FRAME)), [first[1]]); // and does not stop again
});

test("an utterance shorter than the buffer is said after 120 ms", () => {
  const queue = new PlayQueue(RATE);
  const [only] = fill(queue, 1, "speech");
  let waited = 0;
  while (!queue.pull(128).length) waited += 128;
  assert.ok(waited >= 0.12 * RATE && waited < 0.13 * RATE, String(waited));
  assert.ok(only >= 0);
});

test("speech that runs dry is counted, and waits again", () => {
  const queue = new PlayQueue(RATE);
  fill(queue, 3, "speech");
  queue.pull(4 * FRAME);
  assert.equal(queue.dry, 1);
  fill(queue, 2, "speech");
  assert.deepEqual(queue.pull(FRAME), []);
});

test("what is too much is left out of idle frames alone", () => {
  const queue = new PlayQueue(RATE);
  const kept = fill(queue, 10, "speech"); // 400 ms
  const left = fill(queue, 5, "idle");
  const spoken = fill(queue, 1, "speech");
  const played = [];
  for (let i = 0; i < 20; ++i) played.push(...ids(queue.pull(FRAME)));
  assert.deepEqual(played, [...kept, ...spoken]);
  assert.ok(left.every((id) => !played.includes(id)));
  assert.equal(queue.jumps, 0);
});

test("a page that slept goes on with the newest, at its usual pace", () => {
  const queue = new PlayQueue(RATE);
  const all = fill(queue, 100, "speech"); // four seconds
  const begun = ids(queue.pull(FRAME));
  assert.equal(begun.length, 1);
  assert.ok(queue.jumps >= 1);
  const rest = [...begun];
  for (let i = 0; i < 60; ++i) {
    const pulled = ids(queue.pull(FRAME));
    assert.ok(pulled.length <= 1);
    rest.push(...pulled);
  }
  assert.equal(rest.at(-1), all.at(-1));
  assert.ok(rest.length * 40 <= 2000); // of four seconds, what is left is near the end
});

test("an interrupt drops unheard speech, and what comes late of it", () => {
  const queue = new PlayQueue(RATE);
  fill(queue, 5, "speech", 3);
  queue.pull(128);
  queue.drop(Infinity);
  const out = new Float32Array(FRAME);
  assert.deepEqual(queue.pull(FRAME, out), []);
  const loud = out.findLastIndex((sample) => sample !== 0);
  assert.ok(loud < 0.005 * RATE, `sound until sample ${loud}`); // faded out, no click
  assert.ok(Math.abs(out[0]) < 1000 / 32768 && Math.abs(out[loud]) < 20 / 32768);
  assert.equal(queue.dry, 0);
  fill(queue, 3, "speech", 3);
  assert.deepEqual(queue.pull(4 * FRAME), []);
  const [after] = fill(queue, 1, "transition", 4); // not held up by the buffer
  assert.deepEqual(ids(queue.pull(FRAME)), [after]);
  queue.drop(4); // the server's answer: the next utterance is number 4
  const [said] = fill(queue, 3, "speech", 4);
  assert.deepEqual(ids(queue.pull(128)), [said]);
});

test("an interrupt between two frames is no lack of sound, and the next speech waits for its buffer", () => {
  const queue = new PlayQueue(RATE);
  fill(queue, 4, "speech", 0);
  queue.pull(FRAME);
  queue.drop(Infinity);
  queue.pull(FRAME);
  assert.equal(queue.dry, 0);
  queue.drop(1);
  fill(queue, 2, "speech", 1);
  assert.deepEqual(queue.pull(128), []);
  queue.drop(Infinity); // while it waits
  queue.drop(2);
  const [said] = fill(queue, 1, "speech", 2);
  let waited = 0;
  for (let begun = []; !begun.length; begun = ids(queue.pull(128))) waited += 128;
  assert.ok(waited >= 0.12 * RATE, String(waited));
  assert.ok(said > 0);
});

test("sound is played as it came, whatever the size of the pulls", () => {
  const whole = new Int16Array(10 * FRAME).map((_, i) => Math.round(20000 * Math.sin(i / 9)));
  for (const size of [1, 128, 333, 4096]) {
    const queue = new PlayQueue(RATE), heard = [];
    for (let i = 0; i < 10; ++i) queue.add({ id: i, kind: "speech", epoch: 0, samples: whole.slice(i * FRAME, (i + 1) * FRAME) });
    while (heard.length < whole.length) {
      const out = new Float32Array(size);
      queue.pull(size, out);
      heard.push(...out);
    }
    assert.ok(whole.every((sample, i) => heard[i] === Math.fround(sample / 32768)), `pulls of ${size}`);
  }
});
