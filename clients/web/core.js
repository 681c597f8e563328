// The renderer core of ditto as WebAssembly (csrc/core/wasm/wasm.cpp): a portrait and 70 numbers become a picture.

import { MOTION_SIZE } from "./frames.js";

// A module of 39 bytes with one instruction of SIMD: browsers without it refuse the whole.
const SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];

/** Whether this browser runs the core. */
export function hasSimd() {
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(SIMD));
}

const EBADF = 8;
const WASI = { fd_close: () => EBADF, fd_seek: () => EBADF, fd_write: () => EBADF }; // the core has no files

/** One face in one instance of the core. */
export class Core {
  #wasm;
  #motion;
  #pixels = null;

  /** Compiles the bytes of core.wasm. */
  static async load(bytes) {
    const { instance } = await WebAssembly.instantiate(bytes, { wasi_snapshot_preview1: WASI });
    return new Core(instance.exports);
  }

  constructor(exports) {
    this.#wasm = exports;
    exports._initialize();
    this.#motion = exports.alloc(4 * MOTION_SIZE);
  }

  /** Opens a blob (docs/blob.md). Throws with the core's reason. */
  open(blob) {
    this.#with([blob], ([at]) => this.#expect(this.#wasm.open(at, blob.byteLength)));
  }

  /** Opens a packed portrait: the model, the inflated numbers, and pictures as ImageData. Throws with the core's reason. */
  unpack(model, numbers, picture, crop, plate) {
    const images = [picture, crop, plate];
    this.#with([model, numbers, ...images.map((image) => image.data)], ([m, n, ...at]) => {
      const sized = images.flatMap((image, i) => [at[i], image.height, image.width]);
      this.#expect(this.#wasm.unpack(m, model.byteLength, n, numbers.byteLength, ...sized));
    });
  }

  get width() {
    return this.#wasm.width();
  }

  get height() {
    return this.#wasm.height();
  }

  /** Draws a motion (Float32Array of 70). The picture, RGBA, is the core's own memory: valid until the next call. */
  draw(motion) {
    new Float32Array(this.#wasm.memory.buffer, this.#motion, MOTION_SIZE).set(motion);
    this.#expect(this.#wasm.draw(this.#motion));
    const { buffer } = this.#wasm.memory;
    if (this.#pixels?.buffer !== buffer) {
      this.#pixels = new Uint8ClampedArray(buffer, this.#wasm.picture(), 4 * this.width * this.height);
    }
    return this.#pixels;
  }

  #expect(good) {
    if (good) return;
    const said = new Uint8Array(this.#wasm.memory.buffer, this.#wasm.error(), this.#wasm.error_bytes());
    throw new Error(new TextDecoder().decode(said));
  }

  /** Calls `work` with copies of the arrays in the core's memory. */
  #with(arrays, work) {
    const copies = [];
    try {
      for (const array of arrays) {
        const at = this.#wasm.alloc(Math.max(array.byteLength, 1));
        if (!at) throw new Error("expected memory for a portrait, got none; close other pages");
        copies.push(at);
        new Uint8Array(this.#wasm.memory.buffer, at, array.byteLength)
          .set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      }
      work(copies);
      this.#pixels = null;
    } finally {
      for (const at of copies) this.#wasm.release(at);
    }
  }
}
