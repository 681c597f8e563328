// A worker: opens a portrait in the core and draws its frames on the page's canvas.

import { Core } from "./core.js";
import { makeLabel } from "./label.js";
import { fetchFile, unpackPortrait } from "./portrait.js";

let core, context, image, label;

async function open({ canvas, files, headers, labelled }) {
  const [wasm, model, packed] = await Promise.all(
    [files.core, files.model, files.appearance].map((file) => fetchFile(file, headers)));
  core = await Core.load(wasm);
  core.unpack(model, ...(await unpackPortrait(packed)));
  const { width, height } = core;
  Object.assign(canvas, { width, height });
  context = canvas.getContext("2d", { alpha: false });
  image = new ImageData(width, height);
  label = labelled ? makeLabel(width, height, (w, h) => new OffscreenCanvas(w, h)) : null;
  return { ready: true, width, height };
}

function draw({ motion }) {
  const began = performance.now();
  image.data.set(core.draw(motion));
  context.putImageData(image, 0, 0);
  if (label) context.drawImage(label.image, label.x, label.y);
  return { drawn: true, milliseconds: performance.now() - began };
}

onmessage = async ({ data }) => {
  try {
    postMessage(data.canvas ? await open(data) : draw(data));
  } catch (error) {
    postMessage({ error: error.message });
  }
};
