"""What makes a switchable transformer fast: skipping, layouts without padding, the decoding cache, packed weights."""
