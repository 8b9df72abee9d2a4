"""The web: sites, an HTTP/1.1 server that has them, and a browser that visits them.

    site      which pages there are, of what objects (seeded; sizes as measured on the web)
    http      messages to bytes and back, without I/O
    server    answers for sites, in the clear and over TLS; logins and session cookies
    browser   loads pages over parallel persistent connections that the caller provides
    tls       certificates made on the fly

`python -m traffic.web server|client` runs either end.  A use case that decides by itself which
bytes go over which connection writes a program around `browser.Browser`.
"""
