"""The attention viewer: the data that it shows in one file, and a page of its own for use outside ComfyUI.

The scripts of the viewer are the .mjs files of this folder; ComfyUI's page loads the same ones from web/viewer.
"""
