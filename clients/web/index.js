// A talking head of a ditto server in a canvas. The page draws the face itself where the server gives the portrait out and the
// browser is fast enough; otherwise the server sends pictures. README.md has an example, index.d.ts the types.

import { hasSimd } from "./core.js";
import { Picture, Seam, parseFrame } from "./frames.js";
import { makeLabel } from "./label.js";
import { Player } from "./player.js";

const CONNECT_MS = 6000;
const CLOSE_MS = 2000;
const AUDIO_RATE = 24000;
const MEASURED_FRAMES = 20; // the first ones, which say how fast this browser draws
const SLOW_MS = 20; // a frame: half of its 40 ms
const REFUSALS = ["motion_refused", "motion_unsupported"];

/** The server, or the connection to it, refused. `code` is the server's, or "no_path" or "closed". */
export class Refused extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

let slow = ""; // that drawing was, in this page

/** Why this browser cannot draw faces; "" if it can. */
export function whyNotHere() {
  if (slow) return slow;
  if (!hasSimd()) return "this browser has no WebAssembly SIMD";
  if (typeof OffscreenCanvas === "undefined" || !HTMLCanvasElement.prototype.transferControlToOffscreen) {
    return "this browser has no OffscreenCanvas";
  }
  if (typeof DecompressionStream === "undefined") return "this browser has no DecompressionStream";
  return "";
}

/** Why the server will not have this portrait drawn here; "" if it will. `info`: of GET /api/info. */
export function whyNotAllowed(info, portrait = "default") {
  if (!info.client_drawing || info.client_drawing === "none") return "the server gives no portraits out";
  if (info.client_drawing === "uploaded" && portrait === "default") return "the server does not give this portrait out";
  if (!info.core) return "the server has no core for browsers (make wasm)";
  return "";
}

/** Opens a session and shows it in a canvas. */
export async function connect(canvas, options = {}) {
  const face = new Face(canvas, options);
  try {
    await face.open();
  } catch (error) {
    face.close();
    throw error;
  }
  return face;
}

export class Face {
  #options;
  #server;
  #start;
  #socket = null;
  #player = null;
  #screen = null; // draws frames: {show(frame), close()}
  #controls = {};
  #microphone = null;
  #capture = null;
  #loud = false;
  #jumps = 0;
  #seam = new Seam();
  #closed = false;
  #counts;

  constructor(canvas, options) {
    this.canvas = canvas;
    this.drawing = { where: "server", why: "" };
    this.#options = { drawing: "auto", label: true, slowMilliseconds: SLOW_MS, ...options };
    this.#server = new URL(options.server ?? location.origin);
    this.#start = { audio_rate: AUDIO_RATE, ...options.start };
    this.#counts = { shown: 0, soundBytes: 0, pictureBytes: 0, milliseconds: [] };
  }

  async open() {
    const { drawing } = this.#options;
    const why = drawing === "server" ? "asked for" : whyNotHere() || whyNotAllowed(await this.#info(), this.#start.portrait);
    if (why && drawing === "here") throw new Refused("not_here", `The face cannot be drawn here: ${why}.`);
    await this.#connect(why ? "jpeg" : "motion", why);
  }

  // What a program says

  /** Sends a message of docs/serve.md. */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (message.type === "interrupt") this.#interrupt();
    if (message.type === "control") {
      const { timeline, on_top, ...kept } = message; // a timeline would begin again
      Object.assign(this.#controls, kept);
    }
    this.#socket.send(JSON.stringify(message));
  }

  say(text, voice = "en") {
    this.send({ type: "say", text, voice });
  }

  /** Speech of the portrait: Int16Array at `start.rate` samples a second. */
  push(samples) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(samples);
  }

  flush() {
    this.send({ type: "flush" });
  }

  interrupt() {
    this.send({ type: "interrupt" });
  }

  control(changes) {
    this.send({ type: "control", ...changes });
  }

  /** Turns the sound on or off. Browsers ask for a click before. */
  async sound(on) {
    this.#loud = on;
    return this.#player ? this.#player.sound(on) : on;
  }

  /** What a microphone (MediaStream) is for: "off", "repeat" or "listen". */
  async microphone(mode, stream = null) {
    this.#microphone = mode === "off" ? null : { mode, stream };
    this.#capture?.close().catch(() => {});
    this.#capture = null;
    if (mode === "off") return this.send({ type: "speak" });
    // A context of its own: the sound's has the server's rate, and not every browser takes a microphone at that.
    const audio = this.#capture = new AudioContext({ sampleRate: 48000 });
    await audio.audioWorklet.addModule(new URL("./capture.js", import.meta.url));
    const node = new AudioWorkletNode(audio, "capture");
    audio.createMediaStreamSource(stream).connect(node);
    this.send({ type: mode, rate: audio.sampleRate });
    node.port.onmessage = ({ data }) => this.#capture === audio && this.push(data);
  }

  /** What has been shown so far. */
  statistics() {
    const { milliseconds, ...counts } = this.#counts;
    return { ...this.#player?.counts, ...counts, milliseconds: median(milliseconds) };
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.send({ type: "close" });
    this.#socket?.close();
    this.#leave();
    this.#capture?.close().catch(() => {});
  }

  // The connection

  async #info() {
    if (this.#options.info) return this.#options.info;
    const response = await fetch(new URL("/api/info", this.#server), { headers: this.#headers() });
    if (!response.ok) throw new Refused("refused", `The server refused (${response.status}).`);
    return response.json();
  }

  #headers() {
    return this.#options.token ? { authorization: `Bearer ${this.#options.token}` } : {};
  }

  /** Opens a socket and begins a session whose pictures come as `video`. */
  async #connect(video, why) {
    const url = new URL("/api/live", this.#server);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#options.token) url.searchParams.set("token", this.#options.token);
    const socket = this.#socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const start = (kind) => socket.send(JSON.stringify({ type: "start", ...this.#start, video: kind }));
    const ready = await new Promise((done, failed) => {
      const timer = setTimeout(() => failed(new Refused("no_path", "The server does not answer.")), CONNECT_MS);
      const end = (result, value) => { clearTimeout(timer); result(value); };
      socket.onopen = () => start(video);
      socket.onclose = () => end(failed, new Refused("closed", "The connection was closed."));
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "ready") return end(done, message);
        if (message.type !== "error") return;
        if (video === "motion" && REFUSALS.includes(message.code) && this.#options.drawing !== "here") {
          [video, why] = ["jpeg", message.text];
          start(video);
        } else {
          end(failed, new Refused(message.code, message.text));
        }
      };
    });
    await this.#begin(socket, ready, why);
  }

  async #begin(socket, ready, why) {
    this.#start.client = ready.client;
    const waiting = []; // what comes while the portrait is opened
    socket.onmessage = ({ data }) => waiting.push(data);
    let ended = false;
    socket.onclose = () => (ended = true);
    if (ready.video === "motion") {
      try {
        this.#screen = await this.#openWorker(ready);
      } catch (error) {
        if (this.#options.drawing === "here") throw new Refused("not_here", `The face cannot be drawn here: ${error.message}.`);
        return this.#reconnect(socket, error.message);
      }
      this.drawing = { where: "here", why: "" };
    } else {
      this.#screen = this.#openPictures(ready);
      this.drawing = { where: "server", why };
    }
    if (ended) throw new Refused("closed", "The connection was closed.");
    if (this.#closed) return this.#leave();
    this.#player = new Player(ready.audio_rate, (frame, late) => this.#show(frame, late));
    if (this.#loud) await this.#player.sound(true);
    socket.onmessage = ({ data }) => socket === this.#socket && this.#heard(data);
    socket.onclose = () => socket === this.#socket && this.#over();
    this.#options.ondrawing?.(this.drawing);
    this.#options.onmessage?.(ready);
    for (const data of waiting.filter((data) => typeof data === "string")) this.#heard(data);
    for (const data of waiting.filter((data) => typeof data !== "string").slice(-2)) this.#heard(data);
  }

  #heard(data) {
    if (this.#closed) return;
    if (typeof data !== "string") {
      const frame = parseFrame(data);
      this.#counts.soundBytes += frame.sound.byteLength;
      this.#counts.pictureBytes += data.byteLength - frame.sound.byteLength;
      return this.#player.add(frame);
    }
    const message = JSON.parse(data);
    if (message.type === "interrupted") this.#player.interrupted(message.epoch);
    this.#options.onmessage?.(message);
  }

  #interrupt() {
    this.#player?.interrupt();
    this.#screen?.drop();
    this.#seam.cut();
  }

  #show(frame, late) {
    if (frame.picture === Picture.none) return;
    if (this.#player.counts.jumps !== this.#jumps) {
      this.#jumps = this.#player.counts.jumps;
      this.#seam.cut();
    }
    this.#screen.show(frame, frame.motion && this.#seam.next(frame.motion), late);
  }

  /** Draws motion in a worker; throws if it cannot. */
  async #openWorker(ready) {
    const canvas = this.#freshCanvas(), offscreen = canvas.transferControlToOffscreen();
    const worker = new Worker(new URL("./drawer.js", import.meta.url), { type: "module" });
    const files = Object.fromEntries(["core", "model", "appearance"].map((name) => {
      if (!ready[name]) throw new Error(`the server sent no ${name}`);
      return [name, { ...ready[name], url: new URL(ready[name].url, this.#server).href }];
    }));
    let waiting = null, drawing = null;
    const next = () => {
      drawing = waiting;
      waiting = null;
      if (drawing) worker.postMessage({ motion: drawing.motion });
    };
    try {
      await new Promise((done, failed) => {
        worker.onerror = (event) => failed(new Error(event.message || "the worker did not start"));
        worker.onmessage = ({ data }) => (data.error ? failed(new Error(data.error)) : done());
        worker.postMessage({ canvas: offscreen, files, headers: this.#headers(), labelled: this.#options.label }, [offscreen]);
      });
    } catch (error) {
      worker.terminate();
      throw error;
    }
    worker.onerror = (event) => this.#fallBack(event.message);
    worker.onmessage = ({ data }) => {
      if (data.error) return this.#fallBack(data.error);
      this.#shown(drawing.frame, drawing.late, data.milliseconds);
      next();
    };
    return {
      show: (frame, motion, late) => {
        if (waiting) this.#player.counts.leftOut += 1;
        waiting = { frame, motion, late };
        if (!drawing) next();
      },
      drop: () => (waiting = null),
      close: () => worker.terminate(),
    };
  }

  /** Shows pictures that the server drew. */
  #openPictures({ width, height }) {
    const canvas = this.#freshCanvas(), context = canvas.getContext("2d", { alpha: false });
    Object.assign(canvas, { width, height });
    const makeCanvas = (w, h) => Object.assign(document.createElement("canvas"), { width: w, height: h });
    const label = this.#options.label ? makeLabel(width, height, makeCanvas) : null;
    let waiting = null, busy = false;
    const next = async () => {
      busy = true;
      while (waiting) {
        const { frame, late } = waiting, began = performance.now();
        waiting = null;
        const bitmap = await createImageBitmap(new Blob([frame.image], { type: "image/jpeg" })).catch(() => null);
        if (!bitmap) continue;
        context.drawImage(bitmap, 0, 0);
        if (label) context.drawImage(label.image, label.x, label.y);
        bitmap.close();
        this.#shown(frame, late, performance.now() - began);
      }
      busy = false;
    };
    return {
      show: (frame, _, late) => {
        if (waiting) this.#player.counts.leftOut += 1;
        waiting = { frame, late };
        if (!busy) next();
      },
      drop: () => (waiting = null),
      close: () => {},
    };
  }

  #shown(frame, late, milliseconds) {
    if (this.#closed) return;
    const counts = this.#counts;
    counts.shown += 1;
    if (counts.milliseconds.length < MEASURED_FRAMES) counts.milliseconds.push(milliseconds);
    else counts.milliseconds[counts.shown % MEASURED_FRAMES] = milliseconds;
    this.#options.onshown?.({ index: frame.index, epoch: frame.epoch, kind: frame.kind, speechIndex: frame.speechIndex, late, milliseconds });
    const { slowMilliseconds } = this.#options;
    if (this.drawing.where !== "here" || this.#options.drawing === "here" || counts.shown !== MEASURED_FRAMES) return;
    const took = median(counts.milliseconds);
    if (took <= slowMilliseconds) return;
    slow = `drawing takes ${took.toFixed(0)} ms a frame here, more than ${slowMilliseconds}`;
    this.#fallBack(slow);
  }

  /** A canvas in place of the last: what a canvas shows is chosen once. */
  #freshCanvas() {
    const fresh = this.canvas.cloneNode();
    this.canvas.replaceWith(fresh);
    this.canvas = fresh;
    return fresh;
  }

  // From drawing here to pictures of the server

  #fallBack(why) {
    if (this.#closed || this.drawing.where !== "here") return;
    this.drawing = { where: "server", why };
    if (this.#options.drawing === "here") return this.#over();
    this.#reconnect(this.#socket, why).catch(() => this.#over());
  }

  async #reconnect(socket, why) {
    this.#leave();
    const closed = new Promise((done) => {
      socket.onclose = done;
      setTimeout(done, CLOSE_MS);
    });
    socket.onmessage = null;
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "close" }));
    await closed;
    if (this.#closed) return;
    await this.#connect("jpeg", why);
    if (Object.keys(this.#controls).length) this.send({ ...this.#controls });
    if (this.#microphone) await this.microphone(this.#microphone.mode, this.#microphone.stream);
  }

  #leave() {
    this.#screen?.close();
    this.#player?.close();
    this.#screen = this.#player = null;
    this.#counts.milliseconds = [];
  }

  #over() {
    if (this.#closed) return;
    this.close();
    this.#options.onend?.();
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}
