import assert from "node:assert/strict";
import { test } from "node:test";

import { Player } from "../player.js";

const RATE = 24000, FRAME = RATE / 25;

/** A player on the page's clock, which `at(ms)` sets, and the indices of the frames that it has shown. */
function playing() {
  globalThis.requestAnimationFrame = () => 0;
  globalThis.cancelAnimationFrame = () => {};
  const shown = [], player = new Player(RATE, (frame) => shown.push(frame.index));
  let index = 0;
  const add = (kind, epoch = 0, count = 1) => {
    for (let i = 0; i < count; ++i) player.add({ kind, epoch, index: index++, sound: new Int16Array(FRAME) });
  };
  return { player, shown, add, at: (ms) => player.tick(ms) };
}

test("each frame is shown once, when its sound begins", () => {
  const { shown, add, at } = playing();
  at(0);
  add("idle", 0, 3);
  for (let ms = 8; ms <= 120; ms += 8) at(ms);
  assert.deepEqual(shown, [0, 1, 2]);
});

test("the first frame after an interrupt is shown when it comes, and not again", () => {
  const { player, shown, add, at } = playing();
  at(0);
  add("speech", 0, 6);
  for (let ms = 8; ms <= 64; ms += 8) at(ms);
  assert.deepEqual(shown, [0, 1]);
  player.interrupt();
  add("speech", 0); // on its way when the server heard of it
  assert.deepEqual(shown, [0, 1]);
  add("transition", 1);
  assert.deepEqual(shown, [0, 1, 7]); // before the clock moves on
  player.interrupted(1);
  add("idle", 1);
  assert.deepEqual(shown, [0, 1, 7]); // the next one waits for its time again
  for (let ms = 72; ms <= 160; ms += 8) at(ms);
  assert.deepEqual(shown, [0, 1, 7, 8]);
});

test("frames that were to be shown before it go first", () => {
  const { player, shown, add, at } = playing();
  at(0);
  add("idle", 0, 2);
  player.interrupt();
  add("idle", 1);
  assert.deepEqual(shown, []);
  for (let ms = 8; ms <= 120; ms += 8) at(ms);
  assert.deepEqual(shown, [0, 1, 2]);
});
