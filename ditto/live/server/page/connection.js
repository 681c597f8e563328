// Two connections to the server, WebRTC and WebSocket, with the same methods. docs/serve.md describes the messages.

import { Refused, connect, whyNotAllowed, whyNotHere } from "/client/index.js";

export { Refused, whyNotAllowed, whyNotHere };

const CONNECT_MS = 6000;
const GATHER_MS = 1500;
const GATHER_FAR_MS = 5000; // with STUN and TURN servers
const ALIVE_MS = 2000;
const TEST_MS = 12000; // browsers give up a STUN or TURN server after about ten seconds
const BUFFER_MS = 80; // browsers buffer sound this long; pictures wait as long, or lips would be early at first

/** A response of the server as JSON; throws Refused with its error. */
export async function answer(response) {
  let said;
  try {
    said = await response.json();
  } catch {
    throw new Refused("unreadable", `The server answered in a way this page does not understand (${response.status}).`);
  }
  if (!response.ok) throw new Refused(said.error?.code, said.error?.text ?? `The server refused (${response.status}).`);
  return said;
}

export class WebRtc {
  constructor(video, canvas, heard, ended, { info, drawn, whyNot }) {
    Object.assign(this, { video, heard, ended, iceServers: info.ice_servers, drawn, whyNot });
    canvas.hidden = true;
  }

  async open(start) {
    const pc = this.pc = new RTCPeerConnection({ iceServers: this.iceServers });
    this.microphoneSender = pc.addTransceiver("audio", { direction: "sendrecv" }).sender;
    pc.addTransceiver("video", { direction: "recvonly" });
    this.channel = pc.createDataChannel("control");
    this.channel.onmessage = (event) => this.closed || this.heard(JSON.parse(event.data));
    this.channel.onclose = () => this.over();
    const media = new MediaStream();
    pc.ontrack = ({ track, receiver }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = BUFFER_MS;
      media.addTrack(track);
    };
    await pc.setLocalDescription();
    await gathered(pc, this.iceServers.length ? GATHER_FAR_MS : GATHER_MS);
    const said = await answer(await fetch("/api/webrtc", {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...start, sdp: pc.localDescription.sdp }),
    }));
    await pc.setRemoteDescription({ type: "answer", sdp: said.sdp });
    await connected(pc, this.channel);
    pc.onconnectionstatechange = () => {
      if (["failed", "closed", "disconnected"].includes(pc.connectionState)) this.over();
    };
    this.alive = setInterval(() => this.send({ type: "alive" }), ALIVE_MS);
    this.video.srcObject = media;
    this.video.hidden = false;
    this.video.play().catch(() => {});
    this.heard(said);
    this.drawn({ where: "server", why: this.whyNot });
  }

  send(message) {
    if (this.channel?.readyState === "open") this.channel.send(JSON.stringify(message));
  }

  async microphone(mode, stream) {
    await this.microphoneSender.replaceTrack(mode === "off" ? null : stream.getAudioTracks()[0]);
    this.send({ type: "microphone", mode });
  }

  /** Whether sound is on now: browsers stop a video that is unmuted before the user clicks. */
  async sound(on) {
    this.video.muted = !on;
    try {
      await this.video.play();
    } catch {
      this.video.muted = true;
      this.video.play().catch(() => {});
    }
    return !this.video.muted;
  }

  async delay() {
    let round = null, kept = 0;
    for (const item of (await this.pc.getStats()).values()) {
      if (item.type === "candidate-pair" && item.nominated && item.currentRoundTripTime !== undefined) {
        round = 1000 * item.currentRoundTripTime;
      }
      if (item.type === "inbound-rtp" && item.kind === "video" && item.jitterBufferEmittedCount) {
        const [delay, count] = this.before ?? [0, 0];
        const frames = item.jitterBufferEmittedCount - count;
        if (frames > 0) kept = 1000 * (item.jitterBufferDelay - delay) / frames;
        this.before = [item.jitterBufferDelay, item.jitterBufferEmittedCount];
      }
    }
    return round === null ? null : Math.round(round + kept);
  }

  over() {
    if (this.closed) return;
    this.close();
    this.ended();
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.alive);
    this.send({ type: "close" });
    this.pc?.close();
    this.video.hidden = true;
    this.video.srcObject = null;
  }
}

function gathered(pc, wait) {
  return new Promise((done) => {
    if (pc.iceGatheringState === "complete") return done();
    pc.addEventListener("icegatheringstatechange", () => pc.iceGatheringState === "complete" && done());
    setTimeout(done, wait);
  });
}

function connected(pc, channel) {
  return new Promise((done, failed) => {
    const timer = setTimeout(() => failed(new Refused("no_path", "WebRTC found no way to the server.")), CONNECT_MS);
    channel.onopen = () => { clearTimeout(timer); done(); };
    pc.onconnectionstatechange = () => {
      if (pc.connectionState !== "failed") return;
      clearTimeout(timer);
      failed(new Refused("no_path", "WebRTC found no way to the server."));
    };
  });
}

/** Tests each STUN and TURN server, and the way to this one; tells `show(text, works)` of every step. */
export async function testConnection(iceServers, show) {
  if (!window.RTCPeerConnection) return show("This browser has no WebRTC. The WebSocket works without it.", false);
  for (const server of iceServers) await testIceServer(server, show);
  await testServer(iceServers, show);
}

/** Gathers candidates with one STUN or TURN server alone. */
async function testIceServer(server, show) {
  const relay = !server.urls.startsWith("stun:");
  const pc = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: relay ? "relay" : "all" });
  let found = null, refused = null;
  pc.onicecandidate = ({ candidate }) => {
    if (candidate?.type === (relay ? "relay" : "srflx")) found = candidate;
  };
  pc.onicecandidateerror = (error) => {
    if (!refused || error.errorCode < 700) refused = error;
  };
  pc.createDataChannel("test");
  await pc.setLocalDescription();
  const until = performance.now() + TEST_MS;
  while (!found && !(refused && refused.errorCode < 700) && pc.iceGatheringState !== "complete" && performance.now() < until) {
    await new Promise((done) => setTimeout(done, 50));
  }
  pc.close();
  if (found) return show(relay ? `${server.urls} relays.` : `${server.urls} answers: UDP gets out of this network.`, true);
  const code = refused?.errorCode;
  if (code === 401 || code === 403) return show(`${server.urls} refuses the name or the password (${code}).`, false);
  if (code && code < 700) return show(`${server.urls} refuses: ${refused.errorText} (${code}).`, false);
  show(`${server.urls} does not answer: a firewall stops UDP, or nothing is there.`, false);
}

/** Opens a data channel to this server, as a conversation would, without one. */
async function testServer(iceServers, show) {
  const pc = new RTCPeerConnection({ iceServers });
  try {
    const channel = pc.createDataChannel("test");
    await pc.setLocalDescription();
    await gathered(pc, iceServers.length ? GATHER_FAR_MS : GATHER_MS);
    const own = new Set([...pc.localDescription.sdp.matchAll(/ typ (\w+)/g)].map((match) => match[1]));
    if (!own.size) return show("This browser offers no address for WebRTC: a setting or an extension forbids it.", false);
    const said = await answer(await fetch("/api/reachability", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ sdp: pc.localDescription.sdp }),
    }));
    await pc.setRemoteDescription({ type: "answer", sdp: said.sdp });
    await connected(pc, channel);
    show(`WebRTC reaches the server: ${await wayOf(pc)}.`, true);
  } catch (error) {
    const relayed = iceServers.some((server) => !server.urls.startsWith("stun:"));
    show(error.code !== "no_path" ? `The server did not answer the test: ${error.message}`
      : `WebRTC does not reach the server: UDP between here and there is stopped. ${relayed
        ? "The TURN server did not help either." : "A TURN server would help (ditto serve --ice-server)."} `
        + "The WebSocket works without UDP.", false);
  } finally {
    pc.close();
  }
}

/** How the two sides of a connection reach each other, in words. */
async function wayOf(pc) {
  const items = [...(await pc.getStats()).values()];
  const pair = items.find((item) => item.type === "candidate-pair" && item.nominated && item.state === "succeeded");
  const types = items.filter((item) => item.id === pair?.localCandidateId || item.id === pair?.remoteCandidateId)
    .map((item) => item.candidateType);
  return types.includes("relay") ? "through the TURN server" : "directly";
}

/** The WebSocket: the face is drawn here where server and browser allow it, or comes as pictures. */
export class Socket {
  constructor(video, canvas, heard, ended, { info, drawing, drawn }) {
    Object.assign(this, { canvas, heard, ended, info, drawing, drawn });
    video.hidden = true;
  }

  async open(start) {
    this.face = await connect(this.canvas, {
      start, info: this.info, drawing: this.drawing,
      onmessage: (message) => this.closed || this.heard(message),
      ondrawing: (drawing) => this.closed || this.drawn(drawing),
      onend: () => this.over(),
    });
    this.face.canvas.hidden = this.closed ?? false;
  }

  send(message) {
    this.face.send(message);
  }

  microphone(mode, stream) {
    return this.face.microphone(mode, stream);
  }

  sound(on) {
    return this.face.sound(on);
  }

  async delay() {
    return null;
  }

  over() {
    if (this.closed) return;
    this.close();
    this.ended();
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.face?.close();
    (this.face?.canvas ?? this.canvas).hidden = true;
  }
}
