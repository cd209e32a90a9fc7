"""One module a sensor, all behind the protocol in base."""
