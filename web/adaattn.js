// Colours for this pack's sockets and links, in the canvas renderer and in Nodes 2.0.
import { app } from "../../scripts/app.js";

const COLORS = {
  ADAATTN_ENCODER: "#b98406",
  ADAATTN_ATTENTION: "#ef05a1",
  ADAATTN_DECODER: "#7c45ff",
  ADAATTN_FEATURES: "#d7d8e9",
  ADAATTN_FUSED: "#8e5d3b",
  ADAATTN_REGIONS: "#0fff00",
};

// A palette that is loaded blanks the types it does not know, so the colours are set again whenever it may have been.
function colorSockets() {
  const { canvas } = app;
  for (const [type, color] of Object.entries(COLORS)) {
    document.documentElement.style.setProperty(`--color-datatype-${type}`, color); // Nodes 2.0
    if (!canvas) continue;
    canvas.default_connection_color_byType[type] = color;
    canvas.constructor.link_type_colors[type] = color;
  }
  canvas?.setDirty(true, true);
}

app.registerExtension({
  name: "adaattnstyletransfer.SocketColors",
  setup() {
    colorSockets();
    app.ui.settings.addEventListener("Comfy.ColorPalette.change", () => requestAnimationFrame(colorSockets));
  },
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("AdaAttN_")) colorSockets();
  },
  afterConfigureGraph: colorSockets,
});
