"""Live video: a stream that ffmpeg makes while it is served, and a player for hosts and guests.

    ladder   the stream's bitrates, and ffmpeg's command line
    stream   the newest segments and their playlists (HLS, RFC 8216)
    server   the program that serves them over TCP or MPTCP
    player   the program that plays them: fetches, decodes, draws, and tells how it goes
    archive  the player in one file, for a guest that has nothing but Python and two libraries

`python -m traffic.live.server` and `python -m traffic.live.player` run either end in a node.
"""
