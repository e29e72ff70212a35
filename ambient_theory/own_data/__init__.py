"""Own data fitted by atoms seen through noise of known size: `ambient fit-gmm`."""
