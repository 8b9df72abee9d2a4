"""Who is wired to whom: Mininet topologies, one module each.

    mobile        a phone with WiFi and LTE, access point, eNodeB, the Internet, servers
    devices       a phone behind WiFi and a tablet behind LTE that carry machines, and a server
    star          hosts around one bridge (several, where there are more than it has ports)
    tree          routers in a tree, hosts at its leaves
    dumbbell      senders and receivers on the two sides of a bottleneck
    fat_tree      the k-ary data-centre network
    random_graph  routers wired at random, hosts on each
    two_isps      a client and a server site, each behind two providers

Each has a `topos` dictionary, so that `testbed topo FILE.py` (and Mininet's `mn --custom`) finds
it.  Rates are in Mb/s, delays are one way ("10ms"), losses in percent, as in Mininet.
"""
