"""The ComfyUI nodes: thin adapters over adaattn_core. `extension` lists them; only `bridge` imports ComfyUI itself."""
