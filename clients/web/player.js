// Plays frames: their sound through an AudioWorklet, and each picture when its sound is heard. The worklet's samples are the
// clock; where no sound is on, the page's own clock is.

import { PlayQueue } from "./queue.js";

const SCRIPT_SAMPLES = 1024;
const MOST_FRAMES = 100; // kept, of a page that is hidden and draws nothing

export class Player {
  /** Where the pictures go: `show(frame, late)` is called with the newest frame that is due, `late` ms after it was. */
  constructor(rate, show) {
    this.rate = rate;
    this.show = show;
    this.counts = { due: 0, leftOut: 0, dry: 0, jumps: 0 };
    this.audio = this.volume = this.opening = null;
    this.loud = false;
    this.sink = null; // plays the sound: {post(message), close()}; null: the page's clock counts
    this.silent = new PlayQueue(rate);
    this.since = null; // of the page's clock: {start, samples}
    this.frames = new Map(); // by id, in order: those that have not begun
    this.begun = []; // {frame, time}: not shown yet; time in seconds of the clock
    this.id = 0;
    this.epoch = 0;
    this.interrupts = 0; // that the server has not answered
    this.stopping = false; // the next frame without speech is shown as soon as it comes
    this.tick = this.tick.bind(this);
    this.request = requestAnimationFrame(this.tick);
  }

  /** Appends a frame of `parseFrame`. */
  add(frame) {
    const entry = { id: this.id++, kind: frame.kind, epoch: frame.epoch, samples: frame.sound };
    if (frame.kind === "speech" && frame.epoch < this.epoch) return;
    const now = this.stopping && !this.frames.size && !this.begun.length;
    this.stopping = false;
    this.frames.set(entry.id, { frame, entry, shown: now });
    if (this.frames.size > MOST_FRAMES) this.frames.delete(this.frames.keys().next().value);
    if (this.sink) this.sink.post(entry);
    else this.silent.add(entry);
    if (now) this.show(frame, 0);
  }

  /**
   * Drops speech that has not been heard, and all that comes until the server answers with `interrupted`. The frame that
   * comes after it is shown at once: it has no sound to wait for.
   */
  interrupt() {
    this.interrupts += 1;
    this.drop(Infinity);
    this.begun = this.begun.filter(({ frame }) => frame.kind !== "speech");
    this.stopping = true;
  }

  /** The server has answered: speech of this epoch is new. */
  interrupted(epoch) {
    this.interrupts = Math.max(0, this.interrupts - 1);
    if (this.interrupts === 0) this.drop(epoch);
  }

  drop(epoch) {
    this.epoch = epoch;
    for (const [id, { frame }] of this.frames) if (frame.kind === "speech" && frame.epoch < epoch) this.frames.delete(id);
    if (this.sink) this.sink.post({ drop: epoch });
    else this.silent.drop(epoch);
  }

  /** Turns the sound on or off; whether it is on now (browsers ask for a click first). */
  async sound(on) {
    this.loud = on;
    if (on) {
      try {
        await (this.opening ??= this.openAudio());
      } catch { // no sound here: the page's clock goes on
        this.opening = null;
        return false;
      }
      this.audio.resume().catch(() => {});
    }
    if (this.volume) this.volume.gain.value = this.loud ? 1 : 0;
    return on;
  }

  async openAudio() {
    const audio = this.audio = new AudioContext({ sampleRate: this.rate, latencyHint: "interactive" });
    this.volume = new GainNode(audio, { gain: this.loud ? 1 : 0 });
    this.volume.connect(audio.destination);
    const sink = audio.audioWorklet ? await worklet(audio, this) : script(audio, this);
    if (this.closed) return;
    sink.node.connect(this.volume);
    const choose = () => this.play(audio.state === "running" ? sink : null);
    audio.onstatechange = choose;
    choose();
  }

  /** From now on, the sink's clock counts, or without one the page's. What has not begun goes over to it. */
  play(sink) {
    if (sink === this.sink) return;
    if (this.sink) this.sink.post({ clear: true });
    else this.silent.clear();
    this.sink = sink;
    this.since = null;
    this.begun = this.begun.slice(-1).map(({ frame }) => ({ frame, time: -Infinity }));
    for (const { entry } of this.frames.values()) {
      if (sink) sink.post(entry);
      else this.silent.add(entry);
    }
    if (sink) sink.post({ drop: this.epoch });
    else this.silent.drop(this.epoch);
  }

  /** A frame begins to be played at `time`; frames before it that have not begun never will. */
  begins(id, time, { dry, jumps }) {
    const found = this.frames.get(id);
    for (const earlier of this.frames.keys()) {
      if (earlier > id) break;
      this.frames.delete(earlier);
    }
    Object.assign(this.counts, { dry, jumps });
    if (!found) return;
    this.counts.due += 1;
    if (found.shown) return;
    this.begun.push({ frame: found.frame, time });
    if (this.begun.length > MOST_FRAMES) this.begun.shift();
  }

  /** Seconds of the clock that are heard now. */
  now() {
    if (!this.sink) return this.since ? this.since.samples / this.rate : 0;
    return this.audio.currentTime - (this.audio.outputLatency ?? this.audio.baseLatency ?? 0);
  }

  tick(ms) {
    if (this.closed) return;
    this.request = requestAnimationFrame(this.tick);
    if (!this.sink) this.pullSilently(ms);
    const now = this.now();
    let due = null;
    while (this.begun.length && this.begun[0].time <= now) {
      if (due) this.counts.leftOut += 1;
      due = this.begun.shift();
    }
    if (due) this.show(due.frame, Number.isFinite(due.time) ? 1000 * (now - due.time) : 0);
  }

  /** As much of the queue as time has passed: the page's own clock. */
  pullSilently(ms) {
    this.since ??= { start: ms, samples: 0 };
    const passed = Math.floor((ms - this.since.start) * this.rate / 1000) - this.since.samples;
    if (passed <= 0) return;
    for (const { id, at } of this.silent.pull(passed)) this.begins(id, (this.since.samples + at) / this.rate, this.silent);
    this.since.samples += passed;
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    cancelAnimationFrame(this.request);
    this.sink = null;
    this.audio?.close().catch(() => {});
  }
}

async function worklet(audio, player) {
  await audio.audioWorklet.addModule(new URL("./ring.js", import.meta.url));
  const node = new AudioWorkletNode(audio, "ditto-ring", { numberOfInputs: 0, outputChannelCount: [1] });
  const sink = { node, post: (message) => node.port.postMessage(message) };
  node.port.onmessage = ({ data }) => player.sink === sink && player.begins(data.id, data.time, data);
  return sink;
}

/** Where a page has no AudioWorklet (http from another machine): the same queue, pulled by the page. */
function script(audio, player) {
  const node = audio.createScriptProcessor(SCRIPT_SAMPLES, 1, 1), queue = new PlayQueue(audio.sampleRate);
  const post = (message) => {
    if (message.drop !== undefined) queue.drop(message.drop);
    else if (message.clear) queue.clear();
    else queue.add(message);
  };
  node.onaudioprocess = ({ outputBuffer, playbackTime }) => {
    const out = outputBuffer.getChannelData(0);
    for (const { id, at } of queue.pull(out.length, out)) player.begins(id, playbackTime + at / audio.sampleRate, queue);
  };
  return { node, post };
}
