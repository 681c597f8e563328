// A portrait as the server gives it out: fetched once, kept by its hash, unpacked (docs/blob.md).

const MAGIC = "DITTOPAK";
const VERSION = 1;
const HEADER_BYTES = 32;
const ENTRY_BYTES = 48;
const LARGEST_NUMBERS = 32 << 20; // bytes of the section `numbers`, inflated
const CACHE = "ditto-1";
const KEPT = 24; // files in the cache; of more, the oldest go

/** The bytes at a URL, from the browser's cache where they are. Throws unless they have the hash. */
export async function fetchFile({ url, sha256 }, headers = {}) {
  const cache = await globalThis.caches?.open(CACHE).catch(() => null);
  const kept = await cache?.match(url);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (await matches(bytes, sha256)) return bytes;
    await cache.delete(url);
  }
  const response = await fetch(url, { headers });
  if (!response.ok) {
    const said = await response.json().catch(() => null);
    throw new Error(said?.error?.text ?? `the server refused ${new URL(url).pathname} (${response.status})`);
  }
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (!(await matches(bytes, sha256))) throw new Error(`expected ${new URL(url).pathname} as it was announced, got other bytes`);
  if (cache) {
    await cache.put(url, new Response(bytes.slice())).catch(() => {});
    const keys = await cache.keys();
    await Promise.all(keys.slice(0, Math.max(0, keys.length - KEPT)).map((key) => cache.delete(key)));
  }
  return bytes;
}

/** Whether bytes have a hash. Browsers compute one for https pages and for this machine's own only. */
async function matches(bytes, sha256) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

/** The sections of a packed portrait, by name. Throws if it is none, or damaged. */
export function sectionsOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), text = new TextDecoder();
  if (bytes.length < HEADER_BYTES || text.decode(bytes.subarray(0, 8)) !== MAGIC) {
    throw new Error("expected a packed portrait, got other bytes");
  }
  const version = view.getUint32(8, true), count = view.getUint32(12, true), size = Number(view.getBigUint64(16, true));
  if (version !== VERSION) throw new Error(`expected a packed portrait of version ${VERSION}, got ${version}; reload the page`);
  if (size !== bytes.length || HEADER_BYTES + count * ENTRY_BYTES > size) throw new Error("expected a whole packed portrait, got a part");
  const sections = {};
  for (let i = 0; i < count; ++i) {
    const at = HEADER_BYTES + i * ENTRY_BYTES;
    const name = text.decode(bytes.subarray(at, at + 24)).replace(/\0+$/, "");
    const length = view.getUint32(at + 28, true), offset = Number(view.getBigUint64(at + 40, true));
    if (offset + length > size) throw new Error(`expected the section ${name} inside of the packed portrait; it is damaged`);
    sections[name] = bytes.subarray(offset, offset + length);
  }
  return sections;
}

/** What the core's `unpack` takes of a packed portrait: [numbers, picture, crop, plate]. */
export async function unpackPortrait(bytes) {
  const sections = sectionsOf(bytes);
  for (const name of ["numbers", "picture", "crop", "plate"]) {
    if (!sections[name]) throw new Error(`expected a packed portrait with the section ${name}, got one without`);
  }
  const { numbers, picture, crop, plate } = sections;
  return Promise.all([inflate(numbers), ...[picture, crop, plate].map(decode)]);
}

/** Inflates zlib, up to `LARGEST_NUMBERS`. */
async function inflate(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
    if (length > LARGEST_NUMBERS) {
      await reader.cancel();
      throw new Error(`expected numbers of up to ${LARGEST_NUMBERS} bytes, got more; the packed portrait is damaged`);
    }
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** JPEG or PNG as ImageData. */
async function decode(bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, context.canvas.width, context.canvas.height);
}
