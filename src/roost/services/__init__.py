"""What users call: messages, members, partitions, keys and values."""
