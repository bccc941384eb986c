"""What touches the network: transports, links, peers, and the secrets they prove themselves with."""
