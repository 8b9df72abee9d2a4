"""The userspace engine: one worker process that carries all frames of its namespace.

loss, queues, pipe    one direction of a link as a machine without input or output
lane                  a pipe with its socket: when each frame really left
worker                the process: receive, offer, wait, send; its control socket
engine                what the network's process sees of it
"""
