"""roost: live state across processes and machines, by name."""
