"""Where a micro-batch is learned. One way so far: in the driver."""
