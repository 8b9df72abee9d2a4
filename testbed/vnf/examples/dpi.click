// Connections in which a text is seen are told apart, and share what they are given.
dpi :: StringMatcher("BitTorrent protocol", "\<16 03 01>", IGNORE_CASE true);
define($RATE 2Mbps);

FromDevice(eth0) -> dpi;
dpi [0] -> p2p :: Counter -> RateLimiter($RATE) -> ToDevice(eth1);
dpi [1] -> tls :: Counter -> ToDevice(eth1);
dpi [2] -> rest :: Counter -> ToDevice(eth1);
FromDevice(eth1) -> ToDevice(eth0);
