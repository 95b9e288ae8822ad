"""The ComfyUI nodes: thin adapters over adaattn_core. `extension` lists them; `bridge` alone knows ComfyUI's inside."""
