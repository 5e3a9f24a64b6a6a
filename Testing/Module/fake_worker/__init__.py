"""A worker for the module tests: speaks the protocol, needs only numpy, can misbehave. See `__main__`."""
