// Connections to one address are shared by two servers; nothing else passes.
define($VIP 10.2.0.100);

lb :: LoadBalancer(10.2.0.1, 10.2.0.2, MODE rr);

FromDevice(eth0) -> IPFilter(allow tcp and dst host $VIP) -> lb -> ToDevice(eth1);
FromDevice(eth1) -> [1] lb [1] -> back :: Counter -> ToDevice(eth0);
