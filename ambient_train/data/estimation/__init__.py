"""What the pixels say of the noise in them, measured: its level with an interval, its spectrum, gain and read noise."""
