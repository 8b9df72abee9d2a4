"""Multipath TCP from Python, in a node's namespace: what it does, and how it is told.

options, keys           the wire format (RFC 8684): parse, build, tokens, HMACs
sockets                 make sockets, connect, listen; counters of connections and subflows
configure               kernel settings, endpoints of a multihomed node, congestion control
path_manager, events    limits, endpoints, subflows created and destroyed; what happened
gate                    sensitive bytes over trusted paths only, inside one live connection
                        (`confinement` decides, `guard` is the packet filter's part)
programs                unmodified programs over MPTCP
"""
