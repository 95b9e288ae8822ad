// Options of a choice in the user's language: the page takes names and tooltips from locales/, and leaves options as
// they are. What is saved and sent is the value all the same. Pages that know no labels show the value.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let words = {}; // language -> { nodeDefs: { node: { inputs: { name: { options: { value: label } } } } } }

function label(node, input, value) {
  const language = app.extensionManager.setting.get("Comfy.Locale");
  return words[language]?.nodeDefs?.[node]?.inputs?.[input]?.options?.[value] ?? value ?? "";
}

app.registerExtension({
  name: "adaattnstyletransfer.OptionLabels",
  async setup() {
    const answer = await api.fetchApi("/i18n");
    if (answer.ok) words = await answer.json();
    app.canvas?.setDirty(true, true);
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AdaAttN_")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.type !== "combo") continue;
      widget.options.getOptionLabel = (value) => label(node.comfyClass, widget.name, value);
    }
  },
});
