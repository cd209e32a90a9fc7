"""One folder for each engine, behind one small protocol."""
