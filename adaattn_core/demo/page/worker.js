// All computing of the page, so that the page itself stays responsive: runs the four graphs of export/staged.py in ONNX
// Runtime, and keeps what the next picture can use again. Each message has a number; what answers it has the same one.
import { viewData } from "./attention.js";
import { clamped, keepColor, masked, mixed, pixelsOf, planesOf, withContent } from "./pixels.js";

const RUNTIME = new URL("./runtime/", import.meta.url).href;
const MODELS = new URL("./models/", import.meta.url).href;
const STAGES = ["encoder", "style", "content", "decoder"];

/** An error with a word for what the page says about it. */
class Failure extends Error {
  constructor(word, detail) {
    super(detail);
    this.word = word;
  }
}

// The runtime

let ort;
let sessions;
let backend;

/** Loads the runtime and the graphs. wanted: "auto", "webgpu" or "wasm". Returns what will compute, and why. */
async function start({ wanted, threads }) {
  const refused = wanted === "wasm" ? "" : await missingGpu(wanted);
  const models = await Promise.all(STAGES.map(download));
  let why = refused;
  if (wanted !== "wasm" && !refused) {
    try {
      await open("webgpu", 1, models);
    } catch (error) {
      why = `WebGPU failed: ${reason(error)}`;
    }
  }
  if (!backend) await open("wasm", threads, models);
  return { backend, threads: backend === "wasm" ? threads : 1, why };
}

/** Why this browser has no useful WebGPU; "" if it has. */
async function missingGpu(wanted) {
  if (!navigator.gpu) return "this browser has no WebGPU";
  try {
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) return "this browser has WebGPU, but no graphics card for it";
    const isEmulated = adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter;
    return isEmulated && wanted !== "webgpu" ? "this browser only emulates WebGPU, which is slower" : "";
  } catch (error) {
    return `WebGPU failed: ${reason(error)}`;
  }
}

async function download(stage) {
  try {
    const answer = await fetch(`${MODELS}${stage}.onnx`);
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    return new Uint8Array(await answer.arrayBuffer());
  } catch (error) {
    throw new Failure("download", `models/${stage}.onnx (${reason(error)})`);
  }
}

async function open(kind, threads, models) {
  try {
    ort = await import(`${RUNTIME}ort.${kind}.min.mjs`);
  } catch (error) {
    throw new Failure("download", `runtime/ort.${kind}.min.mjs (${reason(error)})`);
  }
  ort.env.wasm.wasmPaths = RUNTIME;
  ort.env.wasm.numThreads = threads;
  const options = { executionProviders: [kind], logSeverityLevel: 3 }; // warnings are for those who write runtimes
  const opened = {};
  for (const [index, stage] of STAGES.entries()) {
    opened[stage] = await ort.InferenceSession.create(models[index], options);
  }
  sessions = opened;
  backend = kind;
}

const reason = (error) => String(error?.message ?? error).split("\n")[0];

/** Runs a graph on values by name, each [data, shape]; returns its outputs alike. */
async function run(stage, values) {
  const feeds = {};
  for (const name of sessions[stage].inputNames) feeds[name] = new ort.Tensor("float32", ...values[name]);
  const outputs = await sessions[stage].run(feeds);
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, [tensor.data, tensor.dims]]));
}

// Painting

const kept = new Map();

/** The last result under a name, if it was made for the same key. */
async function keep(name, key, make) {
  if (kept.get(name)?.key !== key) {
    kept.delete(name); // its memory is free before the next one is made
    kept.set(name, { key, value: await make() });
  }
  return kept.get(name).value;
}

/** A picture {key, width, height, pixels} as the input of a graph. */
const imageOf = ({ width, height, pixels }) => [planesOf(pixels), [1, 3, height, width]];

async function encoded(picture) {
  return run("encoder", { picture: imageOf(picture) });
}

/** Keys and values of a style. */
function styleValues(style, report) {
  return keep("style", style.key, async () => {
    report("style");
    return run("style", await encoded(style));
  });
}

/** What the content graph hands out, by name. */
async function attended({ content, style }, report) {
  const values = await styleValues(style, report);
  return keep("attended", `${content.key} ${style.key}`, async () => {
    const features = await keep("features", content.key, () => {
      report("content");
      return encoded(content);
    });
    report("attention");
    return run("content", { ...features, ...values });
  });
}

async function decoded(content, deep, skip) {
  const { pixels } = await run("decoder", { deep, skip, picture: imageOf(content) });
  return pixels[0];
}

/** Planes at a strength, everywhere and in the style's colours. */
async function painted(job, report) {
  const { content, style, strength } = job;
  const own = planesOf(content.pixels);
  if (strength === 0) return own;
  const values = await attended(job, report);
  return keep("painted", `${content.key} ${style.key} ${strength}`, async () => {
    report("decoder");
    const at = (part) => {
      const [data, shape] = values[`fused_${part}`];
      return [strength === 1 ? data : mixed(values[`own_${part}`][0], data, strength), shape];
    };
    const planes = await decoded(content, at("deep"), at("skip"));
    if (strength === 1) return clamped(planes);
    const unchanged = await keep("unchanged", content.key, () => decoded(content, values.own_deep, values.own_skip));
    return clamped(withContent(planes, own, unchanged, strength));
  });
}

/** job: {content, style, strength, keepColor, mask}; mask is null, or 0 to 255 for each pixel. */
async function paint(job, report) {
  const started = performance.now();
  const own = planesOf(job.content.pixels);
  let planes = await painted(job, report);
  if (job.keepColor) planes = keepColor(planes, own);
  if (job.mask) planes = masked(planes, own, job.mask);
  const { width, height } = job.content;
  return { pixels: pixelsOf(planes), width, height, seconds: (performance.now() - started) / 1000 };
}

/** The data of the attention viewer. */
async function attend({ content, style, levels }, report) {
  const outputs = { ...(await styleValues(style, report)), ...(await attended({ content, style }, report)) };
  const values = Object.fromEntries(Object.entries(outputs).map(([name, [data]]) => [name, data]));
  const about = ({ width, height, title }) => ({ width, height, title });
  return viewData(about(content), about(style), levels, values);
}

// Messages

const TASKS = { start, paint, attend };
let last = Promise.resolve();

self.onmessage = ({ data }) => {
  last = last.then(() => answer(data)); // one after the other
};

async function answer({ number, task, values }) {
  try {
    const report = (stage) => self.postMessage({ number, stage });
    self.postMessage({ number, result: await TASKS[task](values, report) });
  } catch (error) {
    const word = error.word ?? (isMemory(error) ? "memory" : "runtime");
    self.postMessage({ number, failure: { word, detail: reason(error), backend } });
  }
}

/** Whether an error says that there is not enough memory; runtimes and browsers say it in many ways. */
function isMemory(error) {
  if (typeof error === "number") return true; // a C++ exception that the runtime could not turn into words
  return /memory|alloc|out of bounds|Array buffer/i.test(reason(error));
}
