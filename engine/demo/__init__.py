"""`headgate demo`: three regions' models share this machine's CPUs, and the CPUs move with the load."""
