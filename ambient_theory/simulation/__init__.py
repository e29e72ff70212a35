"""The sample-complexity simulator behind `ambient simulate-gmm`."""
