// What comes over the WebSocket of `ditto serve`, as binary messages (docs/serve.md): a frame each.

export const FPS = 25;
export const MOTION_SIZE = 70;
export const Picture = Object.freeze({ none: 0, jpeg: 1, motion: 4 });

const KINDS = ["idle", "speech", "transition"];
const HEADER_BYTES = 28;
const FRAME = 1;

/** A binary message as a frame. Throws if it is none. */
export function parseFrame(data) {
  const view = new DataView(data);
  if (data.byteLength < HEADER_BYTES || view.getUint8(0) !== FRAME) throw new Error("expected a frame, got another message");
  const kind = KINDS[view.getUint8(1)], picture = view.getUint8(2), soundBytes = view.getUint32(16, true);
  const payloadAt = HEADER_BYTES + soundBytes;
  if (kind === undefined || soundBytes % 2 || payloadAt > data.byteLength) throw new Error("expected a whole frame, got a damaged one");
  return {
    kind, picture,
    index: view.getUint32(4, true),
    epoch: view.getUint32(8, true),
    speechIndex: view.getInt32(12, true),
    sound: new Int16Array(data.slice(HEADER_BYTES, payloadAt)),
    motion: picture === Picture.motion ? parseMotion(data, payloadAt) : null,
    image: picture === Picture.jpeg ? data.slice(payloadAt) : null,
  };
}

/** 70 float16 as float32. */
function parseMotion(data, at) {
  if (data.byteLength !== at + 2 * MOTION_SIZE) {
    throw new Error(`expected ${2 * MOTION_SIZE} bytes of motion, got ${data.byteLength - at}`);
  }
  const view = new DataView(data, at);
  return Float32Array.from({ length: MOTION_SIZE }, (_, i) => halfToNumber(view.getUint16(2 * i, true)));
}

/** An IEEE 754 binary16; not every browser has Float16Array. */
export function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const SEAM_FRAMES = 5;

/**
 * Takes the jump out of a motion. After an interrupt, frames that the server sent are never shown, so what it sends next does
 * not follow on from what is shown: the difference fades out over some frames.
 */
export class Seam {
  #shown = null;
  #offset = null;
  #left = 0;

  /** The next motion does not follow on from the last. */
  cut() {
    this.#offset = null;
    this.#left = this.#shown ? SEAM_FRAMES : 0;
  }

  /** The motion to show. */
  next(motion) {
    if (this.#left > 0) {
      const shown = this.#shown;
      this.#offset ??= motion.map((value, i) => shown[i] - value);
      const u = this.#left-- / (SEAM_FRAMES + 1), weight = u * u * (3 - 2 * u);
      motion = motion.map((value, i) => value + weight * this.#offset[i]);
    }
    this.#shown = motion;
    return motion;
  }
}
