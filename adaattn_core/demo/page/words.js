// What the page says. Every line about a problem says what came and what to do.

export const STAGES = {
  style: "Looking at the painting",
  content: "Looking at the photo",
  attention: "Finding where each point of the photo looks",
  decoder: "Laying the strokes",
};

export const STROKES = ["fine", "small", "medium", "broad"];

/** What went wrong in the worker, in one line. */
export function explained({ word, message }, { width, height }) {
  if (word === "memory") {
    return `There is not enough memory for ${width} x ${height} pixels. Choose a smaller size, or close other pages.`;
  }
  if (word === "download") {
    return `A part of this page could not be loaded: ${message}. Check the connection, and press Paint again.`;
  }
  return `Painting has failed: ${message}. Press Paint to try again.`;
}

/** What computes. */
export function engineLine({ backend, threads, why }) {
  if (backend === "webgpu") return "Paints on the graphics card (WebGPU).";
  const count = threads === 1 ? "one thread" : `${threads} threads`;
  return `Paints on the processor with ${count}${why ? `: ${why}` : ""}.`;
}

/** What was done to a picture on its way. */
export function sizeLine(name, picture, reduced) {
  const came = `${name}: ${picture.width} x ${picture.height} pixels`;
  const parts = [];
  if (reduced.width !== picture.width || reduced.height !== picture.height) {
    parts.push(`reduced to ${reduced.width} x ${reduced.height}`);
  }
  if (picture.isTransparent) parts.push("transparent parts are shown on white");
  return `${[came, ...parts].join(", ")}.`;
}
