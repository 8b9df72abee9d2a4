// A stateful firewall with source translation: connections begin inside, and of TCP by a SYN only.
define($PUBLIC 10.2.0.100);

fw  :: IPFilter(allow established or related,
                allow new,
                deny all);
nat :: IPRewriter(pattern $PUBLIC 1024-65535 - - 0 1, drop);

FromDevice(eth0) -> CheckIPHeader(14) -> out :: Counter -> fw -> nat -> ToDevice(eth1);
FromDevice(eth1) -> [1] nat [1] -> in :: Counter -> ToDevice(eth0);
