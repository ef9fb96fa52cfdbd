// A client for a digital human, after the steps of NavTalk's documentation: one WebSocket carries
// the conversation and the signaling, the face and the voice come over WebRTC.
//
// Which server: this page's own. A fragment names another: #server=wss://HOST&name=AVATAR, or
// avatarId=ID. A fragment is not sent to any server. A licence is typed into the page and kept in
// memory only; the emulator's example licence needs no typing.
"use strict";

const MessageType = Object.freeze({
  CONNECTED_SUCCESS: "conversation.connected.success",
  CONNECTED_WARNING: "conversation.connected.warning",
  CONNECTED_FAIL: "conversation.connected.fail",
  CONNECTED_CLOSE: "conversation.connected.close",
  INSUFFICIENT_BALANCE: "conversation.connected.insufficient_balance",
  CONNECTION_LIMIT_EXCEEDED: "conversation.connected.connection_limit_exceeded",
  GPU_FULL: "conversation.connected.gpu_full",
  BACKEND_ERROR: "conversation.connected.backend_error",
  WEB_RTC_OFFER: "webrtc.signaling.offer",
  WEB_RTC_ANSWER: "webrtc.signaling.answer",
  WEB_RTC_ICE_CANDIDATE: "webrtc.signaling.iceCandidate",
  SESSION_CREATED: "realtime.session.created",
  SESSION_UPDATED: "realtime.session.updated",
  SPEECH_STARTED: "realtime.input_audio_buffer.speech_started",
  SPEECH_STOPPED: "realtime.input_audio_buffer.speech_stopped",
  USER_TRANSCRIPT: "realtime.conversation.item.input_audio_transcription.completed",
  RESPONSE_DELTA: "realtime.response.audio_transcript.delta",
  RESPONSE_TRANSCRIPT: "realtime.response.audio_transcript.done",
  RESPONSE_AUDIO_DONE: "realtime.response.audio.done",
  FUNCTION_CALL: "realtime.response.function_call_arguments.done",
  ERROR: "error",
  RESPONSE_ERROR: "realtime.response.error",
  INPUT_FUNCTION_CALL: "realtime.input_function_call",
  INPUT_AUDIO_APPEND: "realtime.input_audio_buffer.append",
  ITEM_CREATE: "conversation.item.create",
  RESPONSE_CREATE: "response.create",
});

const EXAMPLE_LICENSE = "sk_navtalk_EXAMPLE"; // The emulator's; it opens nothing elsewhere.
const SESSION_PATH = "/wss/v2/realtime-chat";
const AVATARS_PATH = "/api/open/v1/avatar/list";
const SAMPLE_RATE = 24000;
const MAX_UNSENT_BYTES = 1 << 20; // About 15 s of audio; what a stuck socket makes worse is dropped.
const MAX_CANDIDATES = 64; // Held back until they can be used; a peer that sends more is broken.
const MAX_LINES = 200; // Of the log and of the events; the oldest give way.
const MAX_REPLAYED = 20; // Texts of the user that a new session is told of.
const RETRY_SECONDS = [0.5, 1, 2, 4, 8]; // Waits before each new session; then it is up to people.
const AUDIBLE = 0.01; // Level above which the human is speaking; silence after Opus is below.
const LEVEL_MS = 100;
const PAUSE_MS = 700; // A shorter silence is one between words.

// What the human may ask of this page.
const functions = {
  local_time: {
    description: "The date and time where the user is.",
    parameters: { type: "object", properties: {}, additionalProperties: false },
    run: () => ({ time: new Date().toString() }),
  },
};

const view = Object.fromEntries(
  [
    "call", "caption-human", "caption-user", "captions", "character-video", "entry", "events",
    "frame", "hang-up", "hint", "license", "log", "microphone", "notice", "picture",
    "portrait", "send", "stage", "state", "text", "write",
  ].map((id) => [id, document.getElementById(id)]),
);

const endpoint = readEndpoint();
const said = []; // The user's texts, for the next session: a new socket remembers nothing.
let session = null; // The one Session that is shown; news of an older one means nothing.
let attempts = 0;
let retry = 0;
let dropped = 0;

// ---- where to connect

function readEndpoint() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const own = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}`;
  const server = fragment.get("server");
  return {
    url: URL.canParse(server ?? own) ? new URL(server ?? own) : null,
    own: server === null,
    name: fragment.get("name"),
    avatarId: fragment.get("avatarId"),
    license: server === null ? EXAMPLE_LICENSE : null,
  };
}

function socketUrl() {
  const url = new URL(endpoint.url);
  if (url.pathname === "/") url.pathname = SESSION_PATH;
  url.searchParams.set("license", endpoint.license);
  if (endpoint.avatarId) url.searchParams.set("avatarId", endpoint.avatarId);
  else url.searchParams.set("name", endpoint.name);
  return url;
}

// As NavTalk's own clients do: without an avatar there is nobody to call.
async function lookUp() {
  const named = endpoint.name || endpoint.avatarId;
  if (!/^wss?:$/.test(endpoint.url?.protocol) || !(endpoint.own || named)) {
    view.call.hidden = true;
    return tell("The address of this page needs #server=wss://HOST&name=AVATAR");
  }
  if (endpoint.license === null) return askForLicense();
  if (!named) {
    const reply = await fetch(AVATARS_PATH, { headers: { license: endpoint.license } });
    const { code, message, data } = await reply.json();
    if (code === 401) return askForLicense();
    if (code !== 200 || !data[0]) return tell(`No avatar: ${message}`);
    const [avatar] = data;
    endpoint.avatarId = avatar.id;
    view.portrait.src = new URL(avatar.thumbnailUrl, location).pathname;
    view.portrait.alt = avatar.name;
    view.portrait.hidden = false;
  }
  view.entry.hidden = true;
  view.call.hidden = false;
  return undefined;
}

function askForLicense() {
  view.entry.firstElementChild.textContent = `A licence for ${endpoint.url.host}`;
  view.call.hidden = true;
  view.entry.hidden = false;
}

// ---- one session: one socket, one peer connection at a time

class Session {
  constructor() {
    this.peer = null;
    this.ready = false; // After session.updated: audio and text are welcome.
    this.refusal = null;
    this.lines = new Map(); // What the human says, by response.
    this.configuration = { iceServers: [{ urls: "stun:stun.l.google.com:19302" }] }; // Seed step 2.
    this.remoteCandidates = []; // Came before the description that they belong to.
    this.localCandidates = null; // Held back while a description of ours is made; null: sent.
    this.signaling = Promise.resolve(); // Descriptions and candidates, one after another.
    this.socket = new WebSocket(socketUrl());
    this.socket.onopen = () => this.opened();
    this.socket.onmessage = (event) => this.received(event.data);
    this.socket.onclose = (event) => this.closed(event);
    this.heardAt = -Infinity;
    this.meter = setInterval(() => this.listen(), LEVEL_MS);
  }

  opened() {
    const tools = Object.entries(functions).map(([name, { description, parameters }]) => ({
      type: "function", name, description, parameters,
    }));
    this.send({ type: MessageType.INPUT_FUNCTION_CALL, data: { content: JSON.stringify(tools) } });
  }

  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(message));
    record(">", message.type);
  }

  received(text) {
    if (typeof text !== "string") return; // There are no binary frames in this protocol.
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      record("!", "not JSON");
      return;
    }
    record("<", message.type);
    this.handle(message);
  }

  // Seed step 1: one handler for all that the socket brings.
  handle(message) {
    const data = message.data ?? {};
    switch (message.type) {
      case MessageType.CONNECTED_SUCCESS:
        if (Array.isArray(data.iceServers) && data.iceServers.length > 0) {
          this.configuration.iceServers = data.iceServers;
        }
        break;
      case MessageType.CONNECTED_WARNING:
        tell(textOf(message));
        break;
      case MessageType.CONNECTED_FAIL:
      case MessageType.INSUFFICIENT_BALANCE:
      case MessageType.CONNECTION_LIMIT_EXCEEDED:
      case MessageType.GPU_FULL:
      case MessageType.BACKEND_ERROR:
      case MessageType.CONNECTED_CLOSE:
        this.refusal = textOf(message) || message.type;
        break;
      case MessageType.WEB_RTC_OFFER:
        this.inTurn(() => this.handleOffer(description(data.sdp, "offer")));
        break;
      case MessageType.WEB_RTC_ANSWER:
        this.inTurn(() => this.handleAnswer(description(data.sdp, "answer")));
        break;
      case MessageType.WEB_RTC_ICE_CANDIDATE:
        this.inTurn(() => this.handleIceCandidate(data.candidate));
        break;
      case MessageType.SESSION_CREATED:
        for (const text of said) this.send(userMessage(text));
        break;
      case MessageType.SESSION_UPDATED:
        this.ready = true;
        show();
        break;
      case MessageType.SPEECH_STARTED:
        setActivity("listening");
        break;
      case MessageType.SPEECH_STOPPED:
        setActivity("thinking");
        break;
      case MessageType.USER_TRANSCRIPT:
        remember(textOf(message));
        addLine("user", null, textOf(message));
        break;
      case MessageType.RESPONSE_DELTA:
        setActivity(null);
        addLine("human", responseId(data), textOf(message), true);
        break;
      case MessageType.RESPONSE_TRANSCRIPT:
        setActivity(null);
        addLine("human", responseId(data), textOf(message));
        break;
      case MessageType.RESPONSE_AUDIO_DONE:
        setActivity(null);
        break;
      case MessageType.FUNCTION_CALL:
        this.callFunction(message);
        break;
      case MessageType.ERROR:
      case MessageType.RESPONSE_ERROR:
        setActivity(null);
        tell(textOf(message));
        break;
      default: // Servers say more than a client knows.
        break;
    }
  }

  inTurn(step) {
    this.signaling = this.signaling.then(step).catch((error) => record("!", String(error)));
  }

  sendDescription(type) {
    const { localDescription } = this.peer;
    this.send({ type, data: { sdp: { type: localDescription.type, sdp: localDescription.sdp } } });
    const held = this.localCandidates ?? [];
    this.localCandidates = null;
    held.forEach((candidate) => this.sendCandidate(candidate));
  }

  sendCandidate(candidate) {
    this.send({ type: MessageType.WEB_RTC_ICE_CANDIDATE, data: { candidate } });
  }

  // Seed step 2: an offer comes, an answer goes.
  async handleOffer(offer) {
    if (this.peer === null || !sameTransport(this.peer.remoteDescription, offer)) {
      this.openPeer();
    }
    const { peer } = this;
    this.localCandidates ??= [];
    await peer.setRemoteDescription(offer);
    await this.releaseCandidates();
    await peer.setLocalDescription(await peer.createAnswer());
    this.sendDescription(MessageType.WEB_RTC_ANSWER);
  }

  async handleAnswer(answer) {
    if (this.peer?.signalingState !== "have-local-offer") return; // Its offer was given up.
    await this.peer.setRemoteDescription(answer);
    await this.releaseCandidates();
  }

  // Seed step 3, with the candidates that come early kept.
  async handleIceCandidate(candidate) {
    if (!candidate?.candidate) return; // An end-of-candidates mark.
    if (this.peer?.remoteDescription) await this.peer.addIceCandidate(candidate);
    else if (this.remoteCandidates.length < MAX_CANDIDATES) this.remoteCandidates.push(candidate);
  }

  async releaseCandidates() {
    for (const candidate of this.remoteCandidates.splice(0)) {
      await this.peer.addIceCandidate(candidate);
    }
  }

  openPeer() {
    this.closePeer();
    const peer = new RTCPeerConnection(this.configuration);
    this.peer = peer;
    // Seed step 4: there before any track can come.
    peer.ontrack = ({ streams: [stream] }) => {
      const video = view["character-video"];
      if (!stream || video.srcObject === stream) return;
      video.srcObject = stream;
      video.play().catch((error) => record("!", `play: ${error.name}`));
    };
    peer.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate || peer !== this.peer) return;
      if (this.localCandidates === null) this.sendCandidate(candidate);
      else this.localCandidates.push(candidate);
    };
    peer.oniceconnectionstatechange = () => {
      if (peer !== this.peer) return;
      record("=", `ICE ${peer.iceConnectionState}`);
      // No server is known to survive an ICE restart: a new session is the way back.
      if (peer.iceConnectionState === "failed") this.socket.close();
      if (this.flowing) attempts = 0;
      show();
    };
    peer.onnegotiationneeded = () => this.inTurn(() => this.negotiate(peer));
  }

  // Seed step 5: we offer.
  async negotiate(peer) {
    if (peer !== this.peer || peer.signalingState !== "stable") return; // It will be asked again.
    this.localCandidates ??= [];
    await peer.setLocalDescription(await peer.createOffer());
    this.sendDescription(MessageType.WEB_RTC_OFFER);
  }

  // Whether pictures are sent to us. The peer connection then wishes to negotiate.
  setPicture(wanted) {
    for (const transceiver of this.peer?.getTransceivers() ?? []) {
      if (transceiver.receiver.track.kind === "video") {
        transceiver.direction = wanted ? "recvonly" : "inactive";
      }
    }
  }

  callFunction({ data = {}, raw_data: raw = {} }) {
    const name = data.function_name ?? data.name ?? raw.name;
    const call = data.call_id ?? raw.call_id;
    const known = Object.hasOwn(functions, name);
    const output = known ? functions[name].run() : { error: `there is no function ${name}` };
    addLine("function", null, known ? `${name}()` : `${name}(): unknown`);
    this.send({
      type: MessageType.ITEM_CREATE,
      item: { type: "function_call_output", call_id: call, output: JSON.stringify(output) },
    });
    this.send({ type: MessageType.RESPONSE_CREATE });
  }

  say(text) {
    this.send(userMessage(text));
    this.send({ type: MessageType.RESPONSE_CREATE });
  }

  append(pcm) {
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > MAX_UNSENT_BYTES) {
      dropped += 1;
      record("!", `audio not sent: ${dropped}`);
      return;
    }
    this.send({ type: MessageType.INPUT_AUDIO_APPEND, data: { audio: base64(pcm) } });
  }

  // Nothing on the socket says when the human's voice ends: its loudness does.
  listen() {
    const heard = (this.peer?.getReceivers() ?? [])
      .filter((receiver) => receiver.track.kind === "audio")
      .flatMap((receiver) => receiver.getSynchronizationSources());
    const now = performance.now();
    if (heard.some((source) => (source.audioLevel ?? 0) > AUDIBLE)) this.heardAt = now;
    setSpeaking(now - this.heardAt < PAUSE_MS);
  }

  get flowing() {
    return ["connected", "completed"].includes(this.peer?.iceConnectionState);
  }

  closePeer() {
    this.peer?.close();
    this.peer = null;
    this.localCandidates = null;
  }

  close() {
    this.socket.onmessage = null;
    this.socket.onclose = null;
    this.socket.close(1000);
    this.stop();
  }

  stop() {
    clearInterval(this.meter);
    this.closePeer();
    view["character-video"].srcObject = null;
    this.ready = false;
    setSpeaking(false);
    setActivity(null);
  }

  closed({ code, reason }) {
    record("x", `${code} ${reason}`.trim());
    this.stop();
    session = null;
    const refusal = this.refusal ?? (reason === "Insufficient points" ? reason : null);
    if (refusal !== null) {
      tell(refusal);
      if (/licen[cs]e/i.test(refusal)) askForLicense();
    } else if (attempts < RETRY_SECONDS.length) {
      retry = setTimeout(connect, RETRY_SECONDS[attempts] * 1000);
      attempts += 1;
    } else {
      attempts = 0;
      tell("The server cannot be reached.");
    }
    show();
  }
}

// One ICE transport keeps its username fragment; an offer with another one is a new transport.
function sameTransport(applied, offer) {
  const fragment = (each) => /^a=ice-ufrag:(\S+)/m.exec(each?.sdp ?? "")?.[1];
  return fragment(applied) !== undefined && fragment(applied) === fragment(offer);
}

function description(sdp, type) {
  return typeof sdp === "string" ? { type, sdp } : sdp;
}

function userMessage(text) {
  const item = { type: "message", role: "user", content: [{ type: "input_text", text }] };
  return { type: MessageType.ITEM_CREATE, item };
}

// Servers have several spellings.
function textOf({ data = {}, message, error, transcript, delta }) {
  const found = [data.content, data.transcript, data.delta, data.message, error?.message,
    transcript, delta, message];
  return found.find((text) => typeof text === "string" && text !== "") ?? "";
}

function responseId(data) {
  return data.id ?? data.response_id ?? data.responseId ?? "";
}

function base64(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer)));
}

function remember(text) {
  said.push(text);
  said.splice(0, said.length - MAX_REPLAYED);
}

// ---- the microphone

const microphone = {
  stream: null,
  context: null,

  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true },
    });
    this.context = new AudioContext({ sampleRate: SAMPLE_RATE });
    await this.context.audioWorklet.addModule("microphone.js");
    const node = new AudioWorkletNode(this.context, "microphone", {
      numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit",
    });
    node.port.onmessage = ({ data }) => {
      session?.append(data);
      showLevel(new Int16Array(data));
    };
    this.context.createMediaStreamSource(this.stream).connect(node);
  },

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.stream = null;
    this.context = null;
    view.microphone.style.removeProperty("--level");
  },
};

async function toggleMicrophone() {
  view.microphone.disabled = true;
  const on = microphone.stream === null;
  try {
    if (on) await microphone.start();
    else microphone.stop();
    tell("");
  } catch (error) {
    microphone.stop();
    tell(`No microphone (${error.name}). Writing works.`);
  }
  view.microphone.disabled = false;
  show();
}

function showLevel(samples) {
  const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  view.microphone.style.setProperty("--level", (peak / 32768).toFixed(2));
}

// ---- what is seen

let activity = null; // "listening", "thinking", or null
let speaking = false;

function setActivity(now) {
  if (activity === now) return;
  activity = now;
  show();
}

function setSpeaking(now) {
  if (speaking === now) return;
  speaking = now;
  show();
}

function stateNow() {
  if (session === null) return retry ? ["connecting", "Reconnecting"] : ["idle", "Not connected"];
  if (!session.ready || !session.peer) return ["connecting", "Connecting"];
  if (!session.flowing) return ["connecting", "Waiting for picture and voice"];
  if (activity === "listening") return ["listening", "Listening"];
  if (speaking) return ["speaking", "Speaking"];
  if (activity === "thinking") return ["thinking", "Thinking"];
  return ["connected", "Connected"];
}

function show() {
  const [state, text] = stateNow();
  if (view.state.textContent !== text) view.state.textContent = text;
  view.state.dataset.state = state;
  view.frame.dataset.state = state;
  const running = session !== null || retry !== 0;
  const ready = session?.ready ?? false;
  view.call.hidden = running || !view.entry.hidden;
  view["hang-up"].disabled = !running;
  view.text.disabled = !ready;
  view.send.disabled = !ready;
  view.picture.disabled = !session?.flowing;
  view.microphone.disabled = !running || !navigator.mediaDevices;
  view.microphone.title = navigator.mediaDevices
    ? "" : "A browser gives the microphone to https and to this machine's own pages only";
  view.microphone.setAttribute("aria-pressed", String(microphone.stream !== null));
}

function tell(text) {
  view.notice.textContent = text;
  view.notice.hidden = text === "";
}

// A line of the conversation, and a caption over the picture. `more`: a piece of a longer text.
function addLine(speaker, response, text, more = false) {
  const near = view.log.scrollHeight - view.log.scrollTop - view.log.clientHeight < 40;
  let line = response === null ? null : session.lines.get(response);
  if (!line) {
    line = document.createElement("li");
    line.className = speaker;
    view.log.append(line);
    if (response !== null) session.lines.set(response, line);
    if (view.log.childElementCount > MAX_LINES) view.log.firstElementChild.remove();
  }
  if (more) line.append(text);
  else line.textContent = text;
  view.hint.hidden = true;
  if (near) view.log.scrollTop = view.log.scrollHeight;
  const caption = view[`caption-${speaker}`];
  if (caption) showCaption(caption, line.textContent);
}

function showCaption(caption, text) {
  if (caption === view["caption-user"]) view["caption-human"].hidden = true;
  caption.textContent = text;
  caption.hidden = text === "";
  view.captions.hidden = false;
  caption.scrollTop = caption.scrollHeight;
}

let lastEvent = null; // The newest event, which may happen again.

// Types and times only: what is in a message is private, a licence and descriptions among it.
function record(direction, type) {
  const text = `${direction} ${String(type).slice(0, 200)}`;
  if (lastEvent?.text === text) {
    lastEvent.times += 1;
    lastEvent.line.textContent = `${text} × ${lastEvent.times}`;
    return;
  }
  const line = document.createElement("li");
  line.textContent = text;
  view.events.prepend(line);
  if (view.events.childElementCount > MAX_LINES) view.events.lastElementChild.remove();
  lastEvent = { text, line, times: 1 };
}

// ---- what people do

function connect() {
  retry = 0;
  tell("");
  try {
    session = new Session();
  } catch (error) {
    session = null;
    tell(`Cannot connect: ${error.message}`);
  }
  show();
}

function hangUp() {
  clearTimeout(retry);
  retry = 0;
  attempts = 0;
  microphone.stop();
  session?.close();
  session = null;
  view.captions.hidden = true;
  view.picture.setAttribute("aria-pressed", "true");
  show();
}

function togglePicture() {
  const wanted = view.picture.getAttribute("aria-pressed") !== "true";
  view.picture.setAttribute("aria-pressed", String(wanted));
  view["character-video"].classList.toggle("off", !wanted);
  session?.setPicture(wanted);
}

view.call.onclick = connect;
view["hang-up"].onclick = hangUp;
view.microphone.onclick = toggleMicrophone;
view.picture.onclick = togglePicture;
view.write.onsubmit = (event) => {
  event.preventDefault();
  const text = view.text.value.trim();
  if (text === "" || !session?.ready) return;
  session.say(text);
  remember(text);
  addLine("user", null, text);
  setActivity("thinking");
  view.text.value = "";
};
view.entry.onsubmit = (event) => {
  event.preventDefault();
  endpoint.license = view.license.value;
  view.license.value = "";
  lookUp().catch((error) => tell(`No avatar: ${error.message}`));
};
addEventListener("pagehide", hangUp);

show();
lookUp().catch((error) => tell(`No avatar: ${error.message}`));
