// The editor's page: the portrait at a moment, the controls of the face, and their keyframes over the sound.

import { FRAME, Model, round } from "/page/model.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 250;
const EASES = ["smooth", "linear", "step", "spring"];
const EVENT_NAMES = { blink: "blink", "wink.left": "wink left", "wink.right": "wink right", look: "look" };

const project = await request("GET", "/api/project");
const model = new Model(project.timeline, project.controls);
const last = (project.frames - 1) * FRAME;

let time = 0;
let tab = project.groups[0];
let chosen = null; // {layer, name, index}: the selected keyframe
let dragging = false;

// Talking to the server

async function send(method, path, body) {
  const answer = await fetch(path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: body === undefined ? {} : { "content-type": "application/json" },
  });
  if (!answer.ok) throw new Error((await answer.json()).error.text);
  return answer;
}

async function request(method, path, body) {
  return (await send(method, path, body)).json();
}

function say(text, wrong = false) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  $("message").textContent = whole && !/[.!?]$/.test(whole) ? `${whole}.` : whole;
  $("message").toggleAttribute("data-wrong", wrong);
}

/** Run an action of the user; its error becomes the message. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

// The preview: one request at a time, always for the newest state

let asked = null; // when the newest change was made
let drawing = false;
let failed = ""; // what the preview said last, if it could not be drawn

function show() {
  asked ??= performance.now();
  if (!drawing) draw();
}

async function draw() {
  drawing = true;
  while (asked !== null) {
    const since = asked;
    asked = null;
    try {
      const shown = await send("POST", "/api/frame", { frame: Math.round(time / FRAME), timeline: model.timeline });
      const before = $("picture").src;
      $("picture").src = URL.createObjectURL(await shown.blob());
      await $("picture").decode();
      URL.revokeObjectURL(before);
      placePoints(JSON.parse(shown.headers.get("x-points")));
      $("latency").textContent = `${Math.round(performance.now() - since)} ms`;
      if (failed && $("message").textContent === failed) say("");
      failed = "";
    } catch (error) {
      say(error.message, true);
      failed = $("message").textContent;
    }
  }
  drawing = false;
  document.body.dataset.ready = "true";
}

// Time

function seek(seconds, fromSound = false) {
  time = round(Math.min(Math.max(seconds, 0), last), 3);
  if (!fromSound) $("sound").currentTime = time;
  $("clock").textContent = `${time.toFixed(2)} s`;
  $("head").style.left = `${(time / project.seconds) * 100}%`;
  $("ruler").setAttribute("aria-valuenow", time.toFixed(2));
  $("ruler").setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
  updateControls();
  show();
}

function play(on) {
  $("play").setAttribute("aria-pressed", String(on));
  $("play").textContent = on ? "Pause" : "Play";
  if (!on) {
    $("sound").pause();
    seek(Math.round(time / FRAME) * FRAME);
    return;
  }
  if (time >= last - FRAME) seek(0);
  $("sound").play().catch(() => play(false));
  requestAnimationFrame(follow);
}

function follow() {
  if ($("play").getAttribute("aria-pressed") !== "true") return;
  const heard = $("sound").currentTime;
  if ($("sound").ended || heard >= last) {
    play(false);
    return;
  }
  if (Math.floor(heard / FRAME) !== Math.round(time / FRAME)) seek(Math.floor(heard / FRAME) * FRAME, true);
  requestAnimationFrame(follow);
}

// Points on the face

function placePoints(points) {
  $("points").hidden = !$("show-points").checked;
  for (const button of $("points").children) {
    const [x, y] = points[Number(button.dataset.index)];
    button.style.left = `${100 * x}%`;
    button.style.top = `${100 * y}%`;
    button.toggleAttribute("data-left", x > 0.6);
  }
}

function makePoints() {
  for (const [index, name] of project.keypoints.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.index = index;
    button.setAttribute("aria-label", name.replaceAll("_", " "));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const same = $("search").value === `${name}.`;
      $("search").value = same ? "" : `${name}.`;
      listControls();
    });
    $("points").append(button);
  }
}

/** Show the face alone, or the whole picture. */
function zoom(on) {
  const [left, top, width, height] = project.face;
  const scale = on ? Math.min(1 / width, 1 / height) : 1;
  const shift = (start, size) => Math.min(0, Math.max(1 - scale, 0.5 - scale * (start + size / 2)));
  const move = on ? [shift(left, width), shift(top, height)] : [0, 0];
  $("view").style.transform = `translate(${100 * move[0]}%, ${100 * move[1]}%) scale(${scale})`;
  $("view").style.setProperty("--point", String(1 / scale));
}

// The controls

function makeTabs() {
  for (const group of project.groups) {
    const button = document.createElement("button");
    button.type = "button";
    button.role = "tab";
    button.id = `tab-${group}`;
    button.textContent = group;
    button.addEventListener("click", () => {
      tab = group;
      $("search").value = "";
      listControls();
    });
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const groups = project.groups;
      const next = groups[(groups.indexOf(group) + step + groups.length) % groups.length];
      $(`tab-${next}`).click();
      $(`tab-${next}`).focus();
    });
    $("tabs").append(button);
  }
}

function listControls() {
  const wanted = $("search").value.trim().toLowerCase();
  const names = Object.keys(project.controls).filter((name) =>
    wanted ? name.toLowerCase().includes(wanted) : project.controls[name].group === tab,
  );
  $("controls").replaceChildren(...names.map(controlRow));
  if (!names.length) {
    const none = document.createElement("p");
    none.className = "none";
    none.textContent = `No control has “${$("search").value}” in its name.`;
    $("controls").append(none);
  }
  for (const button of $("tabs").children) {
    const selected = !wanted && button.textContent === tab;
    button.setAttribute("aria-selected", String(selected));
    button.tabIndex = selected || (wanted && button.textContent === tab) ? 0 : -1;
  }
  for (const button of $("points").children) {
    const name = project.keypoints[Number(button.dataset.index)];
    button.setAttribute("aria-pressed", String(wanted === `${name}.`));
  }
  updateControls();
}

function controlRow(name) {
  const about = project.controls[name];
  const row = document.createElement("div");
  row.className = "control";
  row.dataset.name = name;
  const label = document.createElement("label");
  label.textContent = name;
  label.htmlFor = `slider-${name}`;
  label.title = name;
  const slider = document.createElement("input");
  slider.type = "range";
  slider.id = `slider-${name}`;
  const number = document.createElement("input");
  number.type = "number";
  number.setAttribute("aria-label", `${name}, ${about.unit}`);
  slider.step = number.step = String(about.step);
  slider.addEventListener("pointerdown", () => model.begin());
  for (const end of ["change", "pointerup", "pointercancel"]) slider.addEventListener(end, () => model.end());
  slider.addEventListener("input", () => model.set(name, Number(slider.value), time));
  number.addEventListener("change", () => model.set(name, Number(number.value), time));
  const key = document.createElement("button");
  key.type = "button";
  key.textContent = "◆";
  key.title = "Keyframe here";
  key.addEventListener("click", () => model.toggleKey(name, time));
  const reset = document.createElement("button");
  reset.type = "button";
  reset.textContent = "↺";
  reset.title = "As generated";
  reset.setAttribute("aria-label", `${name} as generated`);
  reset.addEventListener("click", () => model.clear(name));
  const what = document.createElement("p");
  what.className = "what";
  what.textContent = [about.minus && `−: ${about.minus}`, `+: ${about.plus}`, about.unit].filter(Boolean).join(" · ");
  row.append(label, slider, number, key, reset, what);
  return row;
}

function updateControls() {
  for (const row of $("controls").querySelectorAll(".control")) {
    const name = row.dataset.name;
    const { low, high, neutral } = model.range(name);
    const about = project.controls[name];
    const multiplies = model.layers[model.layer].mode === "multiply";
    const value = model.at(name, time);
    const [slider, number] = row.querySelectorAll("input");
    slider.min = String(multiplies ? low : Math.min(about.slider[0], value));
    slider.max = String(multiplies ? high : Math.max(about.slider[1], value));
    number.min = String(low);
    number.max = String(high);
    slider.value = String(value);
    if (document.activeElement !== number) number.value = String(round(value, 4));
    const here = model.keyAt(name, time) >= 0;
    const [key, reset] = row.querySelectorAll("button");
    key.setAttribute("aria-pressed", String(here));
    key.setAttribute("aria-label", `${here ? "remove" : "add"} the keyframe of ${name} here`);
    reset.disabled = model.values(name) === undefined;
    row.toggleAttribute("data-set", model.values(name) !== undefined && (value !== neutral || here));
  }
  const used = new Set();
  for (const layer of model.layers) for (const name of Object.keys(layer.controls)) used.add(project.controls[name]?.group);
  for (const button of $("tabs").children) button.toggleAttribute("data-used", used.has(button.textContent));
}

// The lanes: one for each control with a value, one for events

function share(seconds) {
  return `${(100 * seconds) / project.seconds}%`;
}

function height(name, value, layer) {
  const { low, high, neutral } = model.range(name, layer);
  const values = model.values(name, layer).map((key) => key[1]);
  const reach = Math.max(...values.map((x) => Math.abs(x - neutral)), (high - low) / 40);
  return 50 - 28 * Math.max(-1, Math.min(1, (value - neutral) / reach));
}

function listLanes() {
  const focused = document.activeElement?.dataset?.key;
  const lanes = [];
  if (model.timeline.events.length) lanes.push(eventLane());
  for (const [index, layer] of model.layers.entries())
    for (const name of Object.keys(layer.controls)) lanes.push(controlLane(index, name));
  $("tracks").replaceChildren(...lanes);
  if (focused) $("tracks").querySelector(`[data-key="${focused}"]`)?.focus();
  listHint();
}

function lane(title, selected) {
  const row = document.createElement("div");
  row.className = "lane";
  row.toggleAttribute("data-selected", selected);
  const name = document.createElement("span");
  name.className = "name";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = title;
  name.append(button);
  const strip = document.createElement("div");
  strip.className = "strip";
  row.append(name, strip);
  return { row, button, strip };
}

function controlLane(layer, name) {
  const title = model.layers.length > 1 ? `${model.layers[layer].name || layer + 1}: ${name}` : name;
  const { row, button, strip } = lane(title, layer === model.layer);
  row.dataset.lane = `${layer} ${name}`;
  button.title = "Show this control";
  button.addEventListener("click", () => {
    model.select(layer);
    reveal(name);
  });
  const values = model.values(name, layer);
  if (typeof values === "number") {
    const hold = document.createElement("span");
    hold.className = "hold";
    hold.textContent = `${values} throughout`;
    strip.append(hold);
    return row;
  }
  strip.append(curve(layer, name));
  for (const index of values.keys()) strip.append(keyButton(layer, name, index));
  return row;
}

function curve(layer, name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const keys = model.values(name, layer);
  const points = [[0, keys[0][1]], ...keys, [project.seconds, keys[keys.length - 1][1]]];
  path.setAttribute(
    "d",
    points.map(([t, value], i) => `${i ? "L" : "M"}${(100 * t) / project.seconds} ${height(name, value, layer)}`).join(""),
  );
  svg.append(path);
  return svg;
}

function keyButton(layer, name, index) {
  const [seconds, value] = model.values(name, layer)[index];
  const button = document.createElement("button");
  button.type = "button";
  button.className = "key";
  button.dataset.key = `${layer} ${name} ${index}`;
  const place = () => {
    const [at, to] = model.values(name, layer)[index];
    button.style.left = share(at);
    button.style.top = `${height(name, to, layer)}%`;
    button.setAttribute("aria-label", `${name}: ${to} at ${at.toFixed(2)} s`);
  };
  place();
  const same = chosen && chosen.layer === layer && chosen.name === name && chosen.index === index;
  button.setAttribute("aria-pressed", String(Boolean(same)));
  const choose = () => {
    chosen = { layer, name, index };
    model.select(layer);
    reveal(name);
    seek(model.values(name, layer)[index][0]);
  };
  button.addEventListener("click", choose);
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    const from = event.clientX;
    const width = button.parentElement.clientWidth;
    let moved = false;
    const move = (next) => {
      const by = next.clientX - from;
      if (!moved && Math.abs(by) < 3) return;
      if (!moved) {
        moved = dragging = true;
        model.begin();
      }
      const aim = seconds + (by / width) * project.seconds;
      seek(model.moveKey(layer, name, index, Math.round(aim / FRAME) * FRAME));
      place();
    };
    const stop = () => {
      button.removeEventListener("pointermove", move);
      if (!moved) return;
      dragging = false;
      chosen = { layer, name, index };
      model.end();
      button.addEventListener("click", (click) => click.stopImmediatePropagation(), { once: true, capture: true });
    };
    button.addEventListener("pointermove", move);
    button.addEventListener("pointerup", stop, { once: true });
    button.addEventListener("pointercancel", stop, { once: true });
  });
  button.addEventListener("keydown", (event) => {
    const { low, high } = model.range(name, layer);
    const [at, to] = model.values(name, layer)[index];
    const unit = (high - low) / (event.shiftKey ? 20 : 200);
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const step = (event.key === "ArrowLeft" ? -1 : 1) * FRAME * (event.shiftKey ? 10 : 1);
      seek(model.moveKey(layer, name, index, at + step));
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      model.moveKey(layer, name, index, at, to + (event.key === "ArrowUp" ? unit : -unit));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      chosen = null;
      model.removeKey(layer, name, index);
    } else return;
    event.preventDefault();
  });
  return button;
}

function eventLane() {
  const { row, button, strip } = lane("events", false);
  button.disabled = true;
  for (const [index, event] of model.timeline.events.entries()) {
    const mark = document.createElement("button");
    mark.type = "button";
    mark.className = "key event";
    mark.style.left = share(event.at);
    mark.style.top = "50%";
    mark.dataset.key = `event ${index}`;
    mark.title = `${EVENT_NAMES[event.kind]} at ${event.at.toFixed(2)} s; Delete removes it`;
    mark.setAttribute("aria-label", mark.title);
    mark.addEventListener("click", () => seek(event.at));
    mark.addEventListener("keydown", (pressed) => {
      if (pressed.key === "Delete" || pressed.key === "Backspace") model.removeEvent(index);
    });
    strip.append(mark);
  }
  return row;
}

/** Below the lanes: what the selected keyframe is, or how to begin. */
function listHint() {
  const values = chosen && model.layers[chosen.layer] && model.values(chosen.name, chosen.layer);
  const key = Array.isArray(values) ? values[chosen.index] : undefined;
  $("selected")?.remove();
  $("hint").hidden = key !== undefined;
  if (key === undefined) return;
  const box = document.createElement("div");
  box.id = "selected";
  box.className = "selected-key";
  const text = document.createElement("span");
  text.textContent = `${chosen.name}: ${key[1]} at ${key[0].toFixed(2)} s, comes`;
  const ease = document.createElement("select");
  ease.setAttribute("aria-label", "How the value comes to this keyframe");
  for (const name of EASES) ease.add(new Option(name, name, false, name === (key[2] ?? "smooth")));
  ease.addEventListener("change", () => model.setEase(chosen.layer, chosen.name, chosen.index, ease.value));
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "Remove";
  remove.addEventListener("click", () => {
    const { layer, name, index } = chosen;
    chosen = null;
    model.removeKey(layer, name, index);
  });
  box.append(text, ease, remove);
  $("hint").after(box);
}

function reveal(name) {
  const row = () => $("controls").querySelector(`[data-name="${name}"]`);
  if (!row()) {
    tab = project.controls[name].group;
    $("search").value = "";
    listControls();
  }
  row()?.scrollIntoView({ block: "nearest" });
}

// The layers

function listLayers() {
  const layer = model.layers[model.layer];
  const names = model.layers.map((one, index) => one.name || `layer ${index + 1}`);
  $("layer").replaceChildren(...names.map((name, i) => new Option(name, String(i), false, i === model.layer)));
  if (document.activeElement !== $("layer-name")) $("layer-name").value = layer.name ?? "";
  $("mode").value = layer.mode ?? "add";
  $("start").value = layer.start ?? "";
  $("end").value = layer.end ?? "";
  $("remove-layer").disabled = model.layers.length === 1 && !Object.keys(layer.controls).length;
}

$("layer").addEventListener("change", () => model.select(Number($("layer").value)));
$("layer-name").addEventListener("change", () => model.setLayer(model.layer, { name: $("layer-name").value.trim() }));
$("mode").addEventListener("change", () => {
  const mode = $("mode").value;
  if (Object.keys(model.layers[model.layer].controls).length) {
    say("a layer with controls keeps what it does; add a new layer", true);
    listLayers();
    return;
  }
  model.setLayer(model.layer, { mode: mode === "add" ? null : mode });
});
for (const name of ["start", "end"])
  $(name).addEventListener("change", () => {
    const given = $(name).value;
    model.setLayer(model.layer, { [name]: given === "" ? null : Number(given) });
  });
$("add-layer").addEventListener("click", () => model.addLayer());
$("remove-layer").addEventListener("click", () => {
  chosen = null;
  model.removeLayer(model.layer);
});
for (const [id, kind] of [["blink", "blink"], ["wink-left", "wink.left"], ["wink-right", "wink.right"]])
  $(id).addEventListener("click", () => model.addEvent({ kind, at: round(time, 3) }));

// The sound

function drawWave() {
  const canvas = $("wave");
  const scale = devicePixelRatio || 1;
  const [width, tall] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  canvas.width = width;
  canvas.height = tall;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.body);
  context.fillStyle = style.getPropertyValue("--soft");
  const bars = project.peaks.length;
  for (let i = 0; i < bars; i++) {
    const size = Math.max(1, project.peaks[i] * tall * 0.6);
    context.fillRect((i * width) / bars, (tall - size) / 2 + tall * 0.08, Math.max(1, width / bars - 0.5), size);
  }
  context.font = `${11 * scale}px system-ui, sans-serif`;
  const seconds = [0.2, 0.5, 1, 2, 5, 10, 30, 60, 300].find((step) => (width / project.seconds) * step > 60 * scale) ?? 600;
  for (let at = 0; at < project.seconds; at += seconds) {
    const x = (at / project.seconds) * width;
    context.fillRect(x, 0, 1, 5 * scale);
    context.fillText(`${round(at, 1)} s`, x + 4 * scale, 11 * scale);
  }
}

$("ruler").addEventListener("pointerdown", (event) => {
  const box = $("ruler").getBoundingClientRect();
  $("ruler").setPointerCapture(event.pointerId);
  const to = (one) => seek(Math.round((((one.clientX - box.left) / box.width) * project.seconds) / FRAME) * FRAME);
  if ($("play").getAttribute("aria-pressed") === "true") play(false);
  to(event);
  $("ruler").addEventListener("pointermove", to);
  $("ruler").addEventListener("pointerup", () => $("ruler").removeEventListener("pointermove", to), { once: true });
});
$("ruler").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -25, PageUp: 25 }[event.key];
  const to = { Home: 0, End: last }[event.key] ?? (step === undefined ? undefined : time + step * FRAME);
  if (to === undefined) return;
  event.preventDefault();
  seek(to);
});

// Files

async function save() {
  const text = model.text;
  const saved = await request("PUT", "/api/timeline", { timeline: model.timeline });
  model.markSaved(text);
  say(`saved ${saved.file}`);
}

async function open(file) {
  const found = await request("POST", "/api/parse", { name: file.name, text: await file.text() });
  chosen = null;
  model.load(found.timeline);
  say(`opened ${file.name}; Save writes it to ${project.file}`);
}

async function exportAs(format) {
  $("export").disabled = true;
  try {
    let job = await request("POST", "/api/exports", { format, timeline: model.timeline });
    while (job.state === "running") {
      say(job.total ? `exporting: ${job.done} of ${job.total} frames` : "exporting");
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      job = await request("GET", `/api/exports/${job.id}`);
    }
    if (job.state === "failed") throw new Error(job.error);
    const link = document.createElement("a");
    link.href = `/api/exports/${job.id}/file`;
    link.download = job.name;
    link.click();
    say(`exported ${job.name}`);
  } finally {
    $("export").disabled = false;
  }
}

$("save").addEventListener("click", () => attempt(save));
$("open").addEventListener("change", () => {
  const [file] = $("open").files;
  if (file) attempt(() => open(file));
  $("open").value = "";
});
$("export").addEventListener("click", () => attempt(() => exportAs($("format").value)));
$("undo").addEventListener("click", () => model.undo());
$("redo").addEventListener("click", () => model.redo());
$("play").addEventListener("click", () => play($("play").getAttribute("aria-pressed") !== "true"));
$("show-points").addEventListener("change", () => ($("points").hidden = !$("show-points").checked));
$("zoom").addEventListener("change", () => zoom($("zoom").checked));
$("search").addEventListener("input", listControls);

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  const letter = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && letter === "s") attempt(save);
  else if ((event.ctrlKey || event.metaKey) && letter === "z" && !typing) (event.shiftKey ? model.redo() : model.undo());
  else if (event.key === " " && !event.target.matches("input, select, textarea, button")) $("play").click();
  else return;
  event.preventDefault();
});
addEventListener("beforeunload", (event) => {
  if (!model.isSaved) event.preventDefault();
});
addEventListener("resize", drawWave);

model.addEventListener("change", () => {
  $("undo").disabled = !model.canUndo;
  $("redo").disabled = !model.canRedo;
  $("file").toggleAttribute("data-changed", !model.isSaved);
  updateControls();
  if (!dragging) {
    listLayers();
    listLanes();
  }
  show();
});

for (const format of project.formats) $("format").add(new Option(format.label, format.name));
$("file").textContent = project.file;
$("ruler").setAttribute("aria-valuemax", project.seconds.toFixed(2));
[$("picture").width, $("picture").height] = project.size;
makeTabs();
makePoints();
zoom($("zoom").checked);
listLayers();
listControls();
listLanes();
drawWave();
seek(0);
