"""What an engine is asked to do: the model's files, prompts as token ids, their order."""
