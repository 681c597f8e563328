// The page: sends what the user does to the server, and shows the server's messages.

import { Refused, Socket, WebRtc, answer, testConnection, whyNotAllowed, whyNotHere } from "/page/connection.js";

const $ = (id) => document.getElementById(id);
const GAZE = 12;
const RETRY_MS = [500, 2000, 5000];
const HIDDEN_MS = 60000;
const NOT_A_FAILURE = ["busy", "no_portrait", "token", "bad_message"];
const query = new URLSearchParams(location.search);
for (const name of [...query.keys()]) if (!["transport", "drawing"].includes(name)) query.delete(name);
const forced = query.get("transport");
const drawing = query.get("drawing") ?? "auto"; // "here" or "server" allow one way alone

let connection = null;
let portrait = "default";
let microphone = null;
let mode = "off";
let loud = false;
let spoken = false;
let retries = 0;
let opening = 0;
let rested = true;
let info = { ice_servers: [] }; // of the server

history.replaceState(null, "", location.pathname + (`${query}` && `?${query}`));

function clientId() {
  let id = sessionStorage.getItem("client");
  if (!id) {
    id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("client", id);
  }
  return id;
}

function status(state, text) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").dataset.state = state;
}

/** A message of the server as a sentence. */
function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) || !whole ? whole : `${whole}.`;
}

function note(id, text, wrong = false) {
  $(id).textContent = wrong ? sentence(text) : text;
  $(id).toggleAttribute("data-wrong", wrong);
}

function notice(text) {
  $("notice-text").textContent = sentence(text);
  $("notice").hidden = !text;
}

// Connecting

async function connect() {
  const turn = ++opening;
  connection?.close();
  connection = null;
  rested = false;
  status("waiting", "Connecting");
  notice("");
  const start = {
    client: clientId(), portrait, latency: $("latency").value, emotion: feeling(),
    style: $("style").value, still: matchMedia("(prefers-reduced-motion: reduce)").matches,
  };
  let failure = null;
  for (const Way of ways()) {
    if (turn !== opening) return;
    const attempt = new Way($("video"), $("canvas"), heard, () => attempt === connection && lost(),
      { info, drawing, drawn, whyNot: whyNot() });
    try {
      await attempt.open(start);
    } catch (error) {
      attempt.close();
      failure = error;
      if (error instanceof Refused && NOT_A_FAILURE.includes(error.code)) break;
      continue;
    }
    if (turn !== opening) return attempt.close();
    connection = attempt;
    document.body.dataset.transport = Way.name;
    retries = 0;
    setSound(loud);
    look(0);
    enable(true);
    status("live", "Live");
    if (mode !== "off") await setMicrophone(mode);
    return;
  }
  if (turn !== opening) return;
  if (failure instanceof Refused && failure.code === "no_portrait" && portrait !== "default") {
    portrait = "default";
    showPortrait();
    note("portrait-note", failure.message, true);
    return connect();
  }
  enable(false);
  status("wrong", "Not connected");
  notice(failure instanceof Refused ? failure.message : "The server cannot be reached. Is it still running?");
}

function ways() {
  if (forced === "websocket" || drawing === "here" || !window.RTCPeerConnection) return [Socket];
  if (forced === "webrtc") return [WebRtc];
  return whyNot() ? [WebRtc, Socket] : [Socket, WebRtc];
}

/** Why the face is not drawn here; "" if it is. */
function whyNot() {
  if (drawing === "server") return "this page was asked for so";
  return whyNotHere() || whyNotAllowed(info, portrait) || (forced === "webrtc" ? "WebRTC carries pictures alone" : "");
}

function drawn({ where, why }) {
  document.body.dataset.drawn = where;
  $("drawn").textContent = where === "here" ? "Drawn here, by your browser." : `Drawn by the server: ${why.replace(/[.!?]?$/, ".")}`;
}

function lost() {
  connection = null;
  enable(false);
  status("wrong", "Connection lost");
  if (retries < RETRY_MS.length) setTimeout(connect, RETRY_MS[retries++]);
  else notice("The connection was lost.");
}

function enable(on) {
  $("say-button").disabled = !on || $("voice").options.length === 0;
  $("interrupt").disabled = !on;
  $("recording").disabled = !on;
}

// Messages of the server

function heard(message) {
  switch (message.type) {
    case "ready":
      $("screen").style.aspectRatio = `${message.width} / ${message.height}`;
      $("delay-algorithmic").textContent = message.algorithmic_ms;
      $("recorded").hidden = !message.recording;
      break;
    case "latency":
      $("delay-algorithmic").textContent = message.algorithmic_ms;
      $("delay-compute").textContent = message.compute_ms;
      $("delay-playout").textContent = message.playout_ms;
      status("speaking", "Speaking");
      spoken = true;
      break;
    case "segment_end":
      status("live", "Live");
      spoken = false;
      $("message").textContent = `Said ${message.pts_seconds.toFixed(1)} s.`;
      break;
    case "interrupted":
      status("live", "Live");
      spoken = false;
      $("message").textContent = message.played_ms
        ? `Interrupted after ${(message.played_ms / 1000).toFixed(1)} s.` : "Nothing was being said.";
      break;
    case "closed":
      retries = RETRY_MS.length;
      notice(message.code === "replaced" ? "This conversation goes on in another window." : message.text);
      break;
    case "error":
      $("message").textContent = sentence(message.text);
      if (message.code === "bad_sound") note("recording-note", message.text, true);
      break;
  }
}

async function showDelay() {
  const delay = await connection?.delay().catch(() => null);
  $("delay-network").textContent = delay ?? "";
}

// Saying

function say(event) {
  event.preventDefault();
  unmute();
  const text = $("text").value.trim();
  if (!text) return $("text").focus();
  connection?.send({ type: "say", text, voice: $("voice").value });
}

function interrupt() {
  connection?.send({ type: "interrupt" });
}

async function play(file) {
  unmute();
  note("recording-note", `Sending ${file.name}`);
  try {
    await answer(await fetch(`/api/clients/${clientId()}/speech`, { method: "POST", body: file }));
    note("recording-note", `Saying ${file.name}`);
  } catch (error) {
    note("recording-note", textOf(error), true);
  }
}

function textOf(error) {
  return error instanceof Refused ? error.message : "The upload failed. Try again.";
}

function unmute() {
  if (!loud) setSound(true);
}

async function setSound(on) {
  loud = on;
  if (connection) loud = await connection.sound(on);
  showSound(loud);
}

function showSound(on) {
  $("sound").textContent = on ? "Sound on" : "Sound off";
  $("sound").setAttribute("aria-pressed", on);
}

// The microphone

const REFUSALS = {
  NotAllowedError: "The browser refused the microphone. Allow it for this page (beside the address), then choose again.",
  NotFoundError: "No microphone was found. Connect one, then choose again.",
  NotReadableError: "The microphone is in use by another program. Close that, then choose again.",
};

async function setMicrophone(chosen) {
  if (chosen !== "off" && !microphone) {
    if (!window.isSecureContext || !navigator.mediaDevices) {
      return noMicrophone("Browsers give a microphone only to https pages and to this machine’s own. " +
        "Open the page as localhost, or start the server with a certificate.");
    }
    try {
      microphone = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
      });
    } catch (error) {
      return noMicrophone(REFUSALS[error.name] ?? `The microphone cannot be used (${error.message}).`);
    }
  }
  mode = chosen;
  if (mode === "off") {
    microphone?.getTracks().forEach((track) => track.stop());
    microphone = null;
  }
  note("microphone-note", {
    off: "The microphone is off.", repeat: "Speak: it says what you say.", listen: "Speak: it looks and nods.",
  }[mode]);
  unmute();
  try {
    await connection?.microphone(mode, microphone);
  } catch (error) {
    noMicrophone(`The microphone cannot be used here (${error.message}).`);
  }
}

function noMicrophone(text) {
  document.querySelector("input[name=microphone][value=off]").checked = true;
  mode = "off";
  microphone?.getTracks().forEach((track) => track.stop());
  microphone = null;
  note("microphone-note", text, true);
}

// The portrait

let refusedFile = null;

async function upload(file, face = "") {
  $("largest").hidden = true;
  note("portrait-note", "Looking for the face");
  try {
    const added = await answer(await fetch(`/api/portraits${face}`, { method: "POST", body: file }));
    portrait = added.portrait;
    showPortrait();
    note("portrait-note", `${file.name}, ${added.width} × ${added.height}`);
    await connect();
  } catch (error) {
    refusedFile = file;
    $("largest").hidden = error.code !== "several_faces";
    note("portrait-note", textOf(error), true);
  }
}

function showPortrait() {
  for (const id of ["thumb", "poster"]) $(id).src = `/api/portraits/${portrait}`;
}

// Feeling and look

function feeling() {
  const weights = Object.fromEntries([...document.querySelectorAll("#emotions input")]
    .map((slider) => [slider.name, Number(slider.value) / 100]).filter(([, weight]) => weight > 0));
  const sum = Object.values(weights).reduce((all, weight) => all + weight, 0);
  if (sum > 1) for (const name in weights) weights[name] = Math.floor(1e4 * weights[name] / sum) / 1e4;
  return weights;
}

const gaze = [0, 0];

function look(seconds = 0.3) {
  const head = [Number($("pitch").value), -Number($("yaw").value), Number($("roll").value)]; // sliders: right is right
  connection?.send({ type: "control", emotion: feeling(), gaze, head, ramp_seconds: seconds });
}

function setGaze(right, down) {
  gaze[0] = Math.round(Math.max(-GAZE, Math.min(GAZE, right)));
  gaze[1] = Math.round(Math.max(-GAZE, Math.min(GAZE, down)));
  const dot = $("pad").firstElementChild;
  dot.style.left = `${50 + 38 * gaze[0] / GAZE}%`;
  dot.style.top = `${50 + 38 * gaze[1] / GAZE}%`;
  const parts = [];
  if (gaze[0]) parts.push(`${Math.abs(gaze[0])} degrees ${gaze[0] > 0 ? "right" : "left"}`);
  if (gaze[1]) parts.push(`${Math.abs(gaze[1])} degrees ${gaze[1] > 0 ? "down" : "up"}`);
  $("pad").setAttribute("aria-valuenow", gaze[0]);
  $("pad").setAttribute("aria-valuetext", parts.join(", ") || "straight ahead");
  look();
}

function point(event) {
  if (event.type === "pointermove" && !event.buttons) return;
  const box = $("pad").getBoundingClientRect();
  $("pad").setPointerCapture?.(event.pointerId);
  setGaze(GAZE * (2.6 * (event.clientX - box.left) / box.width - 1.3),
    GAZE * (2.6 * (event.clientY - box.top) / box.height - 1.3));
}

function steer(event) {
  const steps = { ArrowLeft: [-2, 0], ArrowRight: [2, 0], ArrowUp: [0, -2], ArrowDown: [0, 2] };
  if (event.key in steps) setGaze(gaze[0] + steps[event.key][0], gaze[1] + steps[event.key][1]);
  else if (event.key === "Home") setGaze(0, 0);
  else return;
  event.preventDefault();
}

// Setting up

function dropping(id, take) {
  const zone = $(id), input = zone.querySelector("input");
  input.addEventListener("change", () => {
    if (input.files[0]) take(input.files[0]);
    input.value = "";
  });
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.dataset.over = ""; });
  zone.addEventListener("dragleave", () => delete zone.dataset.over);
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    delete zone.dataset.over;
    if (event.dataTransfer.files[0] && !input.disabled) take(event.dataTransfer.files[0]);
  });
}

async function test() {
  $("test").disabled = true;
  $("test-results").replaceChildren();
  const show = (text, works) => {
    const line = document.createElement("li");
    line.textContent = sentence(text);
    line.toggleAttribute("data-wrong", !works);
    $("test-results").append(line);
  };
  try {
    await testConnection(info.ice_servers, show);
  } catch (error) {
    show(`The test failed: ${error.message}`, false);
  }
  $("test").disabled = false;
}

async function setUp() {
  info = await answer(await fetch("/api/info"));
  for (const name of info.emotions.filter((emotion) => emotion !== "neutral")) {
    const label = document.createElement("label"), slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: 100, step: 5, value: 0, name, id: `emotion-${name}` });
    Object.assign(label, { textContent: name, htmlFor: slider.id });
    $("emotions").append(label, slider);
  }
  for (const option of [...$("latency").options]) if (!(option.value in info.latencies)) option.remove();
  for (const option of $("latency").options) option.text += ` (after ${info.latencies[option.value] / 1000} s of speech)`;
  const own = navigator.language.toLowerCase();
  for (const voice of info.voices) {
    $("voice").append(new Option(voice.name, voice.code));
  }
  const codes = info.voices.map((voice) => voice.code);
  $("voice").value = [own, own.split("-")[0], "en-us", "en", codes[0]].find((code) => codes.includes(code)) ?? "";
  if (!info.voices.length) {
    $("say-note").hidden = false;
    $("text").disabled = $("voice").disabled = true;
  }
}

$("say").addEventListener("submit", say);
$("text").addEventListener("keydown", (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && say(event));
$("interrupt").addEventListener("click", interrupt);
$("sound").addEventListener("click", () => setSound(!loud));
$("test").addEventListener("click", test);
$("reconnect").addEventListener("click", () => { retries = 0; connect(); });
$("latency").addEventListener("change", connect);
$("style").addEventListener("change", () => connection?.send({ type: "control", style: $("style").value }));
$("emotions").addEventListener("input", () => look());
for (const id of ["yaw", "pitch", "roll"]) $(id).addEventListener("input", () => look());
$("ahead").addEventListener("click", () => {
  for (const id of ["yaw", "pitch", "roll"]) $(id).value = 0;
  setGaze(0, 0);
});
$("pad").addEventListener("pointerdown", point);
$("pad").addEventListener("pointermove", point);
$("pad").addEventListener("keydown", steer);
$("largest").addEventListener("click", () => upload(refusedFile, "?face=largest"));
dropping("recording-drop", play);
dropping("portrait-drop", (file) => upload(file));
document.querySelectorAll("input[name=microphone]").forEach((choice) =>
  choice.addEventListener("change", () => setMicrophone(choice.value)));
document.addEventListener("keydown", (event) => event.key === "Escape" && connection && interrupt());
addEventListener("pagehide", () => connection?.close());
setInterval(showDelay, 1000);

// A page that has been hidden for a minute, and is not speaking or listening, closes its session to free it for others.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (!document.hidden) {
    if (rested) connect();
    return;
  }
  hiding = setTimeout(() => {
    if (!connection || spoken || mode !== "off") return;
    connection.close();
    connection = null;
    rested = true;
    status("waiting", "Resting");
  }, HIDDEN_MS);
});

try {
  await setUp();
  await connect();
} catch (error) {
  status("wrong", "Not connected");
  notice(textOf(error));
}
