// The audio thread's part of the microphone: mono PCM16 in pieces, at the rate of its context.
"use strict";

const SAMPLES = 960; // 40 ms at 24 kHz: 25 messages a second, and no delay that a talker notices.

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(SAMPLES);
    this.filled = 0;
  }

  process([channels]) {
    for (const sample of channels[0] ?? []) {
      this.piece[this.filled++] = Math.round(Math.max(-1, Math.min(1, sample)) * 32767);
      if (this.filled === SAMPLES) {
        this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
        this.piece = new Int16Array(SAMPLES);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
