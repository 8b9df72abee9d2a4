"""Traffic: programs that run as processes inside nodes and say what they measured.

    python -m traffic.bulk     bulk transfer over TCP or MPTCP, up, down or both
    python -m traffic.bursts   on/off sources with heavy-tailed periods
    python -m traffic.many     thousands of live connections with verified exchanges
    python -m traffic.cbr      constant bit rate over UDP: loss, one-way delay, jitter
    python -m traffic.web      an HTTP/1.1 server with sites, and a browser
    python -m traffic.video    a streamed video: segments, playout buffer, stalls
    python -m traffic.live.server, traffic.live.player
                               a live stream made by ffmpeg, and a player that decodes it

Each writes JSON lines on standard output (`traffic.emit`), stops cleanly on SIGTERM and when
its standard input, if a pipe, is closed (`traffic.program`), and leaves by exit status 0, 1
(the experiment failed: one line on standard error) or 2 (the arguments or the machine are wrong).
Which program runs where, and what its figures mean together, is the use case's business.
"""
