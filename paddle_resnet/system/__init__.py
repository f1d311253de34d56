"""The machine and its operating system: processor, cores, threads, standard streams, and what differs by platform."""
