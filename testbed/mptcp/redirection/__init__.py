"""Live Multipath TCP connections moved onto another path by a box between their ends."""
