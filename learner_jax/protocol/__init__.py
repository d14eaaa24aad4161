"""The wire protocol without I/O: messages, transfers and the two machines. No socket, clock, disk or jax."""
