// Plays the queue in the audio thread, and tells the page when each frame begins.

import { PlayQueue } from "./queue.js";

class Ring extends AudioWorkletProcessor {
  constructor() {
    super();
    const queue = this.queue = new PlayQueue(sampleRate);
    this.port.onmessage = ({ data }) => {
      if (data.drop !== undefined) queue.drop(data.drop);
      else if (data.clear) queue.clear();
      else queue.add(data);
    };
  }

  process(inputs, [[out]]) {
    for (const { id, at } of this.queue.pull(out.length, out)) {
      this.port.postMessage({ id, time: currentTime + at / sampleRate, dry: this.queue.dry, jumps: this.queue.jumps });
    }
    return true;
  }
}

registerProcessor("ditto-ring", Ring);
