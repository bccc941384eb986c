"""Bytes to structs and back: frames, envelopes, the handshake. No input or output."""
