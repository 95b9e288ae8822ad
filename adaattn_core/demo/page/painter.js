// The worker as a promise: start, paint, look where attention goes, and cancel at any moment.

/** A computation that was stopped because something else is wanted. */
export class Cancelled extends Error {}

/** What went wrong in the worker: a word, and a detail in the runtime's words. */
export class PaintingError extends Error {
  constructor({ word, detail, backend }) {
    super(detail);
    Object.assign(this, { word, backend });
  }
}

/** Threads for the processor: all of up to four cores, half of more, since phones have slow ones among them. */
export function threadCount(cores, isIsolated) {
  if (!isIsolated) return 1;
  return cores <= 4 ? Math.max(cores, 1) : Math.min(Math.max(4, Math.ceil(cores / 2)), 8);
}

export class Painter {
  /** wanted: "auto", "webgpu" or "wasm". on.stage(name): a stage begins; on.ready({backend, threads, why}). */
  constructor(wanted, on) {
    this.wanted = wanted;
    this.on = on;
    this.number = 0;
    this.waiting = new Map();
  }

  /** Loads runtime and graphs, unless they are there or on their way. */
  start() {
    this.started ??= this.#begin();
    return this.started;
  }

  async #begin() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#hear(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.#fail({ word: "download", detail: event.message || "worker.js" });
    };
    const threads = threadCount(navigator.hardwareConcurrency || 1, globalThis.crossOriginIsolated);
    const engine = await this.#ask("start", { wanted: this.wanted, threads });
    this.on.ready({ ...engine, why: this.why ?? engine.why });
  }

  /** job: see `paint` of worker.js. Where the graphics card fails, the processor takes over. */
  async paint(job) {
    try {
      await this.start();
      return await this.#ask("paint", job);
    } catch (error) {
      if (error.backend !== "webgpu") throw error;
      this.wanted = "wasm";
      this.why = `WebGPU failed: ${error.message}`;
      return this.paint(job);
    }
  }

  /** The data of the attention viewer for a content and a style. */
  async attend(content, style, levels) {
    await this.start();
    return this.#ask("attend", { content, style, levels });
  }

  /** Ends the worker, whatever it computes; the next call starts another. */
  cancel() {
    this.worker?.terminate();
    this.#stop(new Cancelled("cancelled"));
  }

  #ask(task, values) {
    const number = this.number++;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ number, task, values });
    });
  }

  #hear({ number, stage, result, failure }) {
    if (stage) return this.on.stage(stage);
    if (failure) return this.#fail(failure);
    this.waiting.get(number)?.resolve(result);
    this.waiting.delete(number);
  }

  /** After an error the runtime is in no known state: a new worker takes its place. */
  #fail(failure) {
    this.worker.terminate();
    this.#stop(new PaintingError(failure));
  }

  #stop(error) {
    this.worker = this.started = undefined;
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}
