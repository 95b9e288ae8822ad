"""Services around the work: devices, memory, threads, prefetching, signals, progress, distributed processes.

For other packages: every public function and class of the modules.
"""
