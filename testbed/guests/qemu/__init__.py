"""The QEMU back end: KVM where a guest boots on it, translation (TCG) elsewhere."""
