// What leaves by eth1 is shaped; voice goes first.
define($RATE 10Mbps);

voice :: IPClassifier(udp dst port 5004, -);
sched :: PrioSched;

FromDevice(eth0) -> voice;
voice [0] -> urgent :: Queue(50) -> [0] sched;
voice [1] -> rest :: Queue(200) -> [1] sched;
sched -> shaper :: BandwidthShaper($RATE) -> ToDevice(eth1);
FromDevice(eth1) -> ToDevice(eth0);
