"""ComfyUI's entry point to the AdaAttN node pack. Importing it does nothing, so that pytest may collect the folder."""
