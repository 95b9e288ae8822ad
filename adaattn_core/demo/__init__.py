"""A page that paints in the browser: its static files, the graphs, and a server for this machine.

The files in `page` are plain JavaScript modules without a build step. `site` puts everything together, `web_runtime`
fetches ONNX Runtime for the web, `server` shows the page.
"""
