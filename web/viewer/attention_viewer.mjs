// The attention viewer: content and style side by side; a point of one shows what belongs to it in the other. The same
// in ComfyUI's node and in the page that `adaattn attention` writes.
import { MEAN, brightness, centerOf, indexAt, strongest } from "./attention_data.mjs";
import { Pane, element } from "./attention_pane.mjs";
import { STYLE } from "./attention_style.mjs";

export const PIN_COLORS = ["#e69f00", "#56b4e9", "#00b386", "#f0e442", "#e2661a", "#cc79a7"]; // after Okabe and Ito
const POINT_COLOR = "#ffffff";
const OUTLINED = 8;
const OUTLINED_PINS = 3;
const FAR = 5; // rectangles that the arrow keys move with Shift
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class AttentionViewer {
  /**
   * words: an entry of attention_words.mjs. on.pick(x, y): a point was pinned; on.change(): what `saved` returns has
   * changed; on.run: what the button of a message does, without it there is none.
   */
  constructor(words, on = {}) {
    this.words = words;
    this.on = on;
    this.side = "content";
    this.index = { content: 0, style: 0 };
    this.pins = [];
    this.showsEntropy = false;
    this.element = element("div", { class: "adaattn-viewer" });
    this.element.viewer = this;
    this.#build(this.element.attachShadow({ mode: "open" }));
    this.say("empty");
  }

  #build(shadow) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    shadow.adoptedStyleSheets = [sheet];
    const pane = (side) => new Pane(side, {
      hover: (x, y) => this.#move(side, indexAt(this.view[side], x, y)),
      leave: () => this.#rest(),
      pick: (x, y) => this.#pick(side, indexAt(this.view[side], x, y)),
      key: (event) => this.#key(side, event),
    });
    this.panes = { content: pane("content"), style: pane("style") };
    this.tabs = element("div", { class: "tabs", role: "group", "aria-label": this.words.level });
    this.chips = element("div", { class: "chips" });
    this.legend = element("span", { class: "legend", hidden: "" });
    this.entropyButton = element("button", { type: "button", "aria-pressed": "false", class: "entropy" });
    this.entropyButton.addEventListener("click", () => this.toggleEntropy());
    this.status = element("p", { class: "status" });
    this.live = element("p", { class: "live", role: "status" });
    this.message = element("div", { class: "message" });
    const bar = element("div", { class: "bar" }, this.tabs, this.entropyButton, this.legend);
    const panes = element("div", { class: "panes" }, this.panes.content.frame, this.panes.style.frame);
    this.body = element("div", { class: "body" }, bar, this.status, this.chips, panes, this.live);
    shadow.append(this.body, this.message);
  }

  /** In place of the pictures: one of the words, and the button that mends it. */
  say(word) {
    this.state = word;
    this.message.replaceChildren(element("p", {}, this.words[word]));
    if (this.on.run && word !== "loading") {
      const button = element("button", { type: "button" }, this.words.run);
      button.addEventListener("click", () => this.on.run());
      this.message.append(button);
    }
    this.body.hidden = true;
    this.message.hidden = false;
  }

  /** Show a View. saved: what `saved` returned for an earlier one of the same node. */
  show(view, { tab, pins = [] } = {}) {
    this.view = view;
    this.tab = view.tabs.includes(tab) ? tab : view.tabs[0];
    this.pins = pins.slice(-PIN_COLORS.length);
    for (const side of ["content", "style"]) {
      this.panes[side].show(view[side]);
      this.index[side] = Math.min(this.index[side], view[side].rows * view[side].columns - 1);
    }
    this.state = "shown";
    this.body.hidden = false;
    this.message.hidden = true;
    this.setWords(this.words);
  }

  /** Another language. */
  setWords(words) {
    this.words = words;
    if (this.state !== "shown") return this.say(this.state);
    for (const side of ["content", "style"]) {
      const { title } = this.view[side];
      const label = title ? `${words[side]}: ${title}.` : `${words[side]}.`;
      this.panes[side].root.setAttribute("aria-label", `${label} ${words[`${side}Keys`]}`);
    }
    this.entropyButton.textContent = words.entropy;
    this.entropyButton.title = words.entropyHelp;
    this.#drawTabs();
    this.#drawChips();
    this.#draw();
  }

  /** What is worth keeping of this view: the tab and the pinned points, x and y from 0 to 1. */
  get saved() {
    return { tab: this.tab, pins: this.pins };
  }

  /** Weights that are shown now: of the point over the style, or of the place of the style over the content. */
  get weights() {
    const index = this.index[this.side];
    return this.side === "content" ? this.view.where(this.tab, index) : this.view.use(this.tab, index);
  }

  /** Let the point rest at a place of the content. */
  setPoint(x, y) {
    if (this.state === "shown") this.#move("content", indexAt(this.view.content, x, y));
  }

  selectTab(tab) {
    this.tab = tab;
    this.#drawTabs();
    this.#draw();
    this.on.change?.();
  }

  toggleEntropy() {
    this.showsEntropy = !this.showsEntropy;
    this.entropyButton.setAttribute("aria-pressed", this.showsEntropy);
    this.#draw();
  }

  /** Let go of the data. */
  clear() {
    this.view = undefined;
    this.state = "empty";
    for (const pane of Object.values(this.panes)) pane.clear();
  }

  // Points

  #move(side, index) {
    if (side === this.side && index === this.index[side]) return;
    this.side = side;
    this.index[side] = index;
    this.#draw();
  }

  /** The pointer has left: back to the point of the content, the last pinned one if there is one. */
  #rest() {
    if (this.state !== "shown") return;
    const last = this.pins.at(-1);
    this.#move("content", last ? indexAt(this.view.content, last.x, last.y) : this.index.content);
  }

  #pick(side, index) {
    this.#move(side, index);
    if (side !== "content") return;
    const { x, y } = centerOf(this.view.content, index);
    const known = this.pins.filter((pin) => indexAt(this.view.content, pin.x, pin.y) !== index);
    const taken = new Set(known.map((pin) => pin.color));
    const color = PIN_COLORS.findIndex((_, number) => !taken.has(number));
    if (color < 0) known.shift();
    this.pins = [...known, { x, y, color: color < 0 ? this.pins[0].color : color }];
    this.#pinsChanged();
    this.on.pick?.(x, y);
  }

  #unpin(pin) {
    this.pins = this.pins.filter((other) => other !== pin);
    this.#pinsChanged();
  }

  #pinsChanged() {
    this.#drawChips();
    this.#draw();
    this.live.textContent = this.status.textContent;
    this.on.change?.();
  }

  /** True if the key is one of the viewer's. */
  #key(side, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const { rows, columns } = this.view[side];
    if (event.key in ARROWS) {
      const far = event.shiftKey ? FAR : 1;
      const clamp = (value, count) => Math.min(Math.max(value, 0), count - 1);
      const column = clamp((this.index[side] % columns) + far * ARROWS[event.key][0], columns);
      const row = clamp(Math.floor(this.index[side] / columns) + far * ARROWS[event.key][1], rows);
      this.#move(side, row * columns + column);
      this.live.textContent = this.status.textContent;
    } else if (event.key === "Enter" || event.key === " ") {
      this.#pick(side, this.index[side]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (this.pins.length) this.#unpin(this.pins.at(-1));
    } else {
      return false;
    }
    return true;
  }

  // What is on the page

  #nameOf(tab) {
    const word = this.words[tab];
    return tab === MEAN ? word : `${word} ${tab}`;
  }

  #drawTabs() {
    const focused = [...this.tabs.children].indexOf(this.tabs.getRootNode().activeElement);
    this.tabs.replaceChildren(...this.view.tabs.map((tab) => {
      const button = element("button", { type: "button", "aria-pressed": tab === this.tab, "data-tab": tab });
      button.textContent = this.#nameOf(tab);
      button.addEventListener("click", () => this.selectTab(tab));
      return button;
    }));
    this.tabs.children[focused]?.focus();
  }

  #drawChips() {
    if (!this.pins.length) return this.chips.replaceChildren(this.words.hint);
    this.chips.replaceChildren(...this.pins.map((pin) => {
      const number = String(pin.color + 1);
      const button = element("button", { type: "button", class: "chip" }, `${number} \u00d7`);
      button.setAttribute("aria-label", fill(this.words.unpin, { n: number }));
      button.title = button.getAttribute("aria-label");
      button.style.setProperty("--pin", PIN_COLORS[pin.color]);
      button.addEventListener("click", () => this.#unpin(pin));
      return button;
    }));
  }

  #draw() {
    if (this.state !== "shown") return;
    const { content, style } = this.panes;
    const { weights } = this;
    const [source, target] = this.side === "content" ? [content, style] : [style, content];
    content.erase();
    style.erase();
    source.bare();
    target.dim(brightness(weights));
    this.#drawEntropy();
    this.#drawPins();
    target.outline(strongest(weights, OUTLINED), POINT_COLOR);
    if (this.side === "style") style.outline([this.index.style], POINT_COLOR);
    else this.#drawPoint(centerOf(this.view.content, this.index.content), POINT_COLOR);
    this.status.textContent = this.#sentence(weights);
  }

  #drawPoint({ x, y }, color, number) {
    for (const level of this.view.levelsOf(this.tab)) this.panes.content.field(x, y, level, color);
    this.panes.content.point(x, y, color, number);
  }

  #drawPins() {
    for (const pin of this.pins) {
      const color = PIN_COLORS[pin.color];
      this.panes.content.point(pin.x, pin.y, color, String(pin.color + 1));
      const weights = this.view.where(this.tab, indexAt(this.view.content, pin.x, pin.y));
      this.panes.style.outline(strongest(weights, OUTLINED_PINS), color);
    }
  }

  #drawEntropy() {
    this.legend.hidden = !this.showsEntropy;
    this.legend.classList.toggle("off", this.side !== "content"); // it keeps its room: nothing moves under the pointer
    if (!this.showsEntropy || this.side !== "content") return;
    const values = this.view.entropy(this.tab);
    const low = values.reduce((a, b) => Math.min(a, b));
    const high = values.reduce((a, b) => Math.max(a, b));
    this.panes.content.tint(values, low, high);
    const end = (word, value) => element("span", {}, `${word} ${value.toFixed(2)}`);
    this.legend.replaceChildren(
      end(this.words.sharp, low), element("span", { class: "scale" }), end(this.words.flat, high),
    );
  }

  /** What the pictures show, in words. */
  #sentence(weights) {
    const { view, side } = this;
    const other = side === "content" ? "style" : "content";
    const [best] = strongest(weights, 1);
    const place = (name, index) => {
      const { x, y } = centerOf(view[name], index);
      return `${Math.round(100 * x)}, ${Math.round(100 * y)} %`;
    };
    const sentence = fill(side === "content" ? this.words.looks : this.words.used, {
      level: this.#nameOf(this.tab),
      from: place(side, this.index[side]),
      to: best === undefined ? "" : place(other, best),
      share: (100 * (weights[best] ?? 0)).toPrecision(2),
      entropy: view.entropy(this.tab)[this.index.content].toFixed(2),
    });
    const notes = [sentence];
    if (view.batch > 1) notes.push(fill(this.words.first, { n: view.batch }));
    return notes.join(" ");
  }
}

/** A text with its {names} replaced. */
function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
