"""A player of live streams: what decides is apart from what touches the network and the screen.

    playlist, mpegts, adaptation, frames, session   bytes and times in, decisions out; no I/O
    connection      one persistent HTTP connection
    h264            decoding, by OpenH264
    font, canvas    drawing on memory
    display         a guest's display
    screen          what the viewer sees
    outlet          where the reports go
    program         the loop around all of them

It runs in small guests: it imports nothing that takes long to load, of the rest of the project
only what `traffic.live.archive` packs, and never blocks.
"""
