// The frames that are still to be played. Its samples are the clock: whoever plays pulls samples, and learns which frames begin
// in them. So a picture is shown with its own sound, whatever the network does.

const BUFFER_SECONDS = 0.12; // of sound that is there when speech begins; what networks jitter by
const SPARE_SECONDS = 0.06; // more than the buffer by this: idle frames are left out
const LATE_SECONDS = 2; // more than this is there: go on with the newest
const FADE_SECONDS = 0.005; // of speech that is cut, or it would click

/**
 * Speech begins when `BUFFER_SECONDS` are there, or have passed; frames without speech are played as they come. If too much is
 * there (this clock is slower than the server's, or the network caught up), idle frames are left out; nothing is ever played
 * faster than it was spoken. A page that slept goes on with the newest.
 */
export class PlayQueue {
  #frames = []; // {id, epoch, kind, samples}
  #at = 0; // sample of the first frame that is played next
  #queued = 0; // samples
  #epoch = 0; // speech of earlier ones is dropped
  #speaking = false; // the frame before was speech
  #waited = 0;
  #begun = false; // the first frame's id has been given out

  constructor(rate) {
    this.buffer = Math.round(BUFFER_SECONDS * rate);
    this.spare = Math.round(SPARE_SECONDS * rate);
    this.late = Math.round(LATE_SECONDS * rate);
    this.fade = Math.round(FADE_SECONDS * rate);
    this.jumps = 0; // how often it went on with the newest
    this.dry = 0; // how often speech had to wait for the network
  }

  /** Appends a frame; samples: Int16Array. */
  add(frame) {
    const speech = frame.kind === "speech";
    if (speech && frame.epoch < this.#epoch) return;
    if (frame.kind === "idle" && this.#queued > this.buffer + this.spare) return;
    this.#frames.push(frame);
    this.#queued += frame.samples.length;
    if (this.#queued <= this.late) return;
    this.jumps += 1;
    while (this.#queued > this.buffer && this.#frames.length > 1) this.#leave();
  }

  /** Drops speech of epochs before this one, now and when it comes later. */
  drop(epoch) {
    this.#epoch = epoch;
    const stale = (frame) => frame.kind === "speech" && frame.epoch < epoch;
    if (this.#frames.some(stale)) {
      this.#speaking = false;
      this.#waited = 0;
    }
    const playing = this.#begun ? this.#frames.shift() : null;
    this.#frames = this.#frames.filter((frame) => !stale(frame));
    if (playing && stale(playing)) {
      const end = Math.min(playing.samples.length, this.#at + this.fade), count = end - this.#at;
      const samples = playing.samples.slice(0, end).map((s, i) => (i < this.#at ? s : s * (1 - (i - this.#at + 1) / count)));
      this.#frames.unshift({ ...playing, kind: "transition", samples });
    } else if (playing) {
      this.#frames.unshift(playing);
    }
    this.#queued = this.#frames.reduce((sum, frame) => sum + frame.samples.length, 0) - this.#at;
  }

  /** All of it goes. */
  clear() {
    this.#frames = [];
    this.#queued = this.#at = this.#waited = 0;
    this.#begun = this.#speaking = false;
  }

  /**
   * Plays `count` samples, into `out` (Float32Array) if it is given; silence where there is nothing to play.
   * Returns the frames that begin: [{id, at}], `at` the sample of `out`.
   */
  pull(count, out = null) {
    const begun = [];
    let done = 0;
    while (done < count && this.#frames.length) {
      const [frame] = this.#frames;
      if (!this.#begun) {
        if (this.#holds(frame, count - done)) break;
        begun.push({ id: frame.id, at: done });
        this.#begun = true;
      }
      const part = Math.min(count - done, frame.samples.length - this.#at);
      if (out) for (let i = 0; i < part; ++i) out[done + i] = frame.samples[this.#at + i] / 32768;
      done += part;
      this.#at += part;
      this.#queued -= part;
      if (this.#at === frame.samples.length) {
        this.#speaking = frame.kind === "speech";
        this.#next();
      }
    }
    if (done < count) {
      if (out) out.fill(0, done);
      if (this.#speaking && !this.#frames.length) {
        this.#speaking = false;
        this.dry += 1;
      }
    }
    return begun;
  }

  /** Whether speech that is about to begin waits for more of it. */
  #holds(frame, samples) {
    if (frame.kind !== "speech" || this.#speaking || this.#queued >= this.buffer || this.#waited >= this.buffer) {
      this.#waited = 0;
      return false;
    }
    this.#waited += samples;
    return true;
  }

  #leave() {
    this.#queued -= this.#frames[0].samples.length - this.#at;
    this.#next();
  }

  #next() {
    this.#frames.shift();
    this.#at = 0;
    this.#begun = false;
  }
}
