"""For those who run clusters: the command line, the demo, and the light client that tools connect with."""
