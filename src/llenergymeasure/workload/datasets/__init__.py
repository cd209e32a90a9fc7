"""Where prompts come from: made here, local files, data sets on the hub."""
