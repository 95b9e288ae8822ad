// The attention viewer in the node AdaAttN Attention Map. The node names its data in what it sends after a run; the
// name, the pinned points and the tab are kept in the node's properties, and so in saved workflows.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { readView } from "./viewer/attention_data.mjs";
import { AttentionViewer } from "./viewer/attention_viewer.mjs";
import { wordsOf } from "./viewer/attention_words.mjs";

const KEPT = "adaattn_attention"; // the property of the node, and the name of its output for the page
const SMALLEST = [480, 330];
const VIEWER_HEIGHT = 300;

const words = () => wordsOf(app.extensionManager.setting.get("Comfy.Locale"));
const viewers = new Set();

class NodeViewer {
  constructor(node) {
    this.node = node;
    this.viewer = new AttentionViewer(words(), {
      pick: (x, y) => this.#writePoint({ x, y }),
      change: () => this.#keep(this.viewer.saved),
      run: () => app.queuePrompt(0, 1),
    });
    const { element } = this.viewer;
    element.style.minHeight = `${VIEWER_HEIGHT}px`;
    for (const kind of ["wheel", "pointerdown", "pointermove", "pointerup"]) {
      element.addEventListener(kind, passOn, { passive: false });
    }
    this.widget = node.addDOMWidget("viewer", "adaattn_attention_viewer", element, {
      serialize: false, // no value of a saved workflow moves
      hideOnZoom: false,
      getMinHeight: () => VIEWER_HEIGHT,
    });
    this.widget.serialize = false;
    for (const widget of this.#pointWidgets()) this.#follow(widget);
  }

  #pointWidgets() {
    return ["x", "y"].map((name) => this.node.widgets.find((widget) => widget.name === name));
  }

  /** Move the viewer's point with a widget. */
  #follow(widget) {
    const callback = widget.callback;
    widget.callback = (...values) => {
      const result = callback?.apply(widget, values);
      this.#showPoint();
      return result;
    };
  }

  #showPoint() {
    const [x, y] = this.#pointWidgets().map((widget) => Number(widget.value));
    if (Number.isFinite(x) && Number.isFinite(y)) this.viewer.setPoint(x, y);
  }

  /** Write a pinned point into x and y, except where they come over a wire. */
  #writePoint(point) {
    for (const widget of this.#pointWidgets()) {
      const input = this.node.inputs?.find((slot) => slot.widget?.name === widget.name);
      if (input?.link != null) continue;
      widget.value = Number(point[widget.name].toFixed(4));
      widget.callback?.(widget.value);
    }
    app.canvas?.setDirty(true, true);
  }

  #keep(values) {
    this.node.properties[KEPT] = { ...this.node.properties[KEPT], ...values };
  }

  /** What a run of the node gave. */
  take(output) {
    const [file] = output?.[KEPT] ?? [];
    if (!file) return;
    this.#keep({ file });
    this.restore();
  }

  /** Show what the node's properties name. */
  async restore() {
    const { file, tab, pins } = this.node.properties?.[KEPT] ?? {};
    if (!file) return;
    if (file.name !== this.shown) this.release();
    else if (this.viewer.state === "shown") return;
    this.shown = file.name;
    this.viewer.say("loading");
    this.fetching = new AbortController();
    const { signal } = this.fetching;
    const query = new URLSearchParams({ filename: file.name, subfolder: file.subfolder, type: file.type });
    try {
      const answer = await api.fetchApi(`/view?${query}`, { signal });
      if (!answer.ok) return this.#fail("missing");
      this.viewer.show(readView(await answer.arrayBuffer()), { tab, pins });
      this.#showPoint();
    } catch (error) {
      if (signal.aborted) return; // the node has gone, or shows another file by now
      this.#fail("broken");
      console.warn(`AdaAttN: the attention data ${file.name} cannot be read:`, error);
    }
  }

  #fail(word) {
    this.shown = undefined;
    this.viewer.say(word);
  }

  /** Let go of the data, and of a request for it. */
  release() {
    this.fetching?.abort();
    this.shown = undefined;
    this.viewer.clear();
  }
}

/** The wheel and the middle button belong to the canvas. */
function passOn(event) {
  const middle = event.button === 1 || (event.buttons & 4) !== 0;
  if (event.type !== "wheel" && !middle) return;
  event.preventDefault();
  event.stopPropagation();
  app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
}

/** Call `then` after a method of the node, which other extensions may have replaced. */
function after(node, method, then) {
  const original = node[method];
  node[method] = function (...values) {
    const result = original?.apply(this, values);
    then(...values);
    return result;
  };
}

app.registerExtension({
  name: "adaattnstyletransfer.AttentionViewer",
  setup() {
    app.ui.settings.addEventListener("Comfy.Locale.change", () => {
      for (const { viewer } of viewers) viewer.setWords(words());
    });
  },
  nodeCreated(node) {
    if (node.comfyClass !== "AdaAttN_AttentionMap" || !node.addDOMWidget) return;
    const viewer = new NodeViewer(node);
    node.setSize([Math.max(node.size[0], SMALLEST[0]), Math.max(node.size[1], SMALLEST[1])]);
    viewers.add(viewer);
    after(node, "onExecuted", (output) => viewer.take(output));
    after(node, "onConfigure", () => viewer.restore());
    after(node, "onAdded", () => {
      viewers.add(viewer);
      viewer.restore();
    });
    after(node, "onRemoved", () => {
      viewers.delete(viewer);
      viewer.release();
    });
  },
});
