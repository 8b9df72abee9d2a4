// Two devices, and a count of what passes in each direction.
FromDevice(eth0) -> there :: Counter -> ToDevice(eth1);
FromDevice(eth1) -> back :: Counter -> ToDevice(eth0);
