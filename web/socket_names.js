// Sockets in the user's language. Frontends from 1.35 to 1.49, and perhaps others, write an input's English display
// name where a person's own name for the socket goes, and so hide the translation from locales/. Without a translation
// the name is the id and the English stays; a name that a person gave comes with the workflow, after this.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "adaattnstyletransfer.SocketNames",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AdaAttN_")) return;
    for (const input of node.inputs ?? []) {
      if (!input.widget && input.localized_name && input.localized_name !== input.name) input.label = undefined;
    }
  },
});
