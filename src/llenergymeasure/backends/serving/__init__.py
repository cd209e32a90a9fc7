"""The engines' own servers, and the one client that drives all of them."""
