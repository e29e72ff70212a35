"""From records to groups of comparable cells, and the cells as arrays."""
